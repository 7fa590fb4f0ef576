// How the figures are shown.
#pragma once

#include <string>

#include "options.h"
#include "suite.h"

namespace isthmus::tools {

/// A JSON list with an object for each case: `case`, `threads`, `tokens_per_s` with `median`, `min`
/// and `max`, `bandwidth_fraction`, `resident_bytes`, `weight_bytes`, `kv_bytes_per_token`.
[[nodiscard]] std::string to_json(const SuiteResult& result);

/// Machine, build and sizes, then a table.
[[nodiscard]] std::string to_text(const SuiteResult& result, const BenchFlags& flags);

}  // namespace isthmus::tools
