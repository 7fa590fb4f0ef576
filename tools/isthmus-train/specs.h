// Codec patterns with a clip that is chosen from the data.
#pragma once

#include <string>

#include "common/format.h"

namespace isthmus::tools {

/// `pattern` with `clip` in place of every '*'.
inline std::string with_clip(std::string pattern, double clip) {
  for (size_t at; (at = pattern.find('*')) != std::string::npos;)
    pattern.replace(at, 1, format("%.4g", clip));
  return pattern;
}

}  // namespace isthmus::tools
