// The command line of isthmus-load.
#pragma once

#include <isthmus/codec/spec.h>

#include <CLI/CLI.hpp>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "common/engine_flags.h"

namespace isthmus::tools {

struct LoadFlags {
  std::filesystem::path model;
  std::string server;
  std::vector<int32_t> cuts = {3};  // devices take turns
  codec::CodecSpec codec{codec::Format::kF16};
  EngineFlags engine;  // of the recording
  int devices = 16;
  double rate = 0;              // requests a second; 0: each device asks again when it is answered
  std::filesystem::path trace;  // BurstGPT's CSV
  double trace_speed = 1;
  int32_t prompt_tokens = 64;
  int32_t output_tokens = 64;
  int32_t chunk = 128;          // tokens of a prompt in one step, as real devices do
  int32_t intruder_tokens = 0;  // prompt of one more device, which comes half-way
  double duration_s = 10;
  double warm_up_s = 1;
  double timeout_s = 60;
  uint64_t seed = 1;
  bool own_keys = false;
  bool insecure = false;
  bool json = false;
  std::filesystem::path home;

  /// Positions that a session may need.
  [[nodiscard]] int32_t most_tokens() const;
};

/// Declares every flag on `app`, bound to `flags`.
void declare(CLI::App& app, LoadFlags& flags);

/// Refuses combinations that mean nothing. \throws CLI::ValidationError
void check(const LoadFlags& flags);

}  // namespace isthmus::tools
