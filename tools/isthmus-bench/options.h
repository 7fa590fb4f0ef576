// The command line of isthmus-bench, and the names of its cases.
#pragma once

#include <isthmus/core/error.h>

#include <CLI/CLI.hpp>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/engine_flags.h"

namespace isthmus::tools {

/// What runs.
enum class Segment : uint8_t {
  kWhole,  ///< the whole model
  kFront,  ///< embedding and layers [0, cut): tokens to boundary rows
  kBack,   ///< layers [cut, L) and head: boundary rows to a token
  kSplit,  ///< front and back, over an encrypted connection on loopback
};

/// What it does.
enum class Phase : uint8_t {
  kPrompt,  ///< `prompt` tokens at once
  kDecode,  ///< `decode` tokens one after the other, behind `context` others
};

struct Case {
  Segment segment = Segment::kWhole;
  Phase phase = Phase::kPrompt;

  /// \returns kInvalidArgument for a text that is no "<segment>/<phase>".
  [[nodiscard]] static Result<Case> parse(std::string_view text);
  [[nodiscard]] std::string to_string() const;
  friend bool operator==(const Case&, const Case&) = default;
};

struct BenchFlags {
  std::filesystem::path model;
  std::string shape;  // instead of a model: random weights of this shape
  EngineFlags engine;
  int threads = 0;
  int32_t prompt = 128;
  int32_t decode = 64;
  int32_t context = 16;
  int repetitions = 5;
  std::optional<int32_t> cut;
  std::string codec = "f16";
  std::vector<std::string> cases;  // empty: all
  bool json = false;

  [[nodiscard]] std::vector<Case> chosen_cases() const;
  /// Tokens that a cache must hold.
  [[nodiscard]] int32_t capacity() const { return std::max(prompt, context + decode); }
};

/// Declares every flag on `app`, bound to `flags`. Parsing refuses values out of range.
void declare(CLI::App& app, BenchFlags& flags);

}  // namespace isthmus::tools
