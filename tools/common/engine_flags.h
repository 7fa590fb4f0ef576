// The flags of a CPU engine, the same in every tool.
#pragma once

#include <isthmus/engine/cpu_engine.h>

#include <CLI/CLI.hpp>
#include <cstdint>
#include <optional>
#include <string>

namespace isthmus::tools {

struct EngineFlags {
  std::string precision = "fine";
  std::optional<int32_t> kv_bits;      // absent: 16
  std::optional<int32_t> weight_bits;  // absent: 8

  /// What the flags mean for the library, `weight_bits` for every layer and the head.
  [[nodiscard]] engine::CpuEngineOptions options() const;
};

/// --precision.
void declare_precision(CLI::App& app, EngineFlags& flags);

/// --kv-bits, and the bits of weights under `bits_name` (--front-bits or --back-bits).
void declare_storage(CLI::App& app, EngineFlags& flags, const std::string& bits_name);

/// Refuses bits that were given where `exact` would not heed them. \throws CLI::ValidationError
void check_bits(bool is_exact, bool has_bits);

/// Refuses a precision that was not given through `declare_precision`, and bits that `exact` would
/// not heed. \throws CLI::ValidationError
void check(const EngineFlags& flags);

}  // namespace isthmus::tools
