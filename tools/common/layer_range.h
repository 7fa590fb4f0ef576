// Ranges of layers on a command line.
#pragma once

#include <isthmus/core/error.h>

#include <cstdint>
#include <string>
#include <utility>

namespace isthmus::tools {

/// "A:B" as a half-open range, which may be one that no model has. \returns kInvalidArgument
[[nodiscard]] Result<std::pair<int32_t, int32_t>> parse_layers(const std::string& text);

}  // namespace isthmus::tools
