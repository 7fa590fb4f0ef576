// Codec patterns with a clip that is chosen from the data.
#pragma once

#include <string>
#include <string_view>

#include "common/format.h"

namespace isthmus::tools {

/// `pattern` with `clip` in place of the '*' in "max=*". A norm is no coordinate: "l2=*" stays, and
/// is no codec.
inline std::string with_clip(std::string pattern, double clip) {
  constexpr std::string_view kChosen = "max=*";
  const size_t at = pattern.find(kChosen);
  if (at != std::string::npos) pattern.replace(at, kChosen.size(), "max=" + format("%.4g", clip));
  return pattern;
}

}  // namespace isthmus::tools
