#include "layer_range.h"

#include <charconv>

namespace isthmus::tools {

Result<std::pair<int32_t, int32_t>> parse_layers(const std::string& text) {
  std::pair<int32_t, int32_t> range;
  const char* end = text.data() + text.size();
  const auto first = std::from_chars(text.data(), end, range.first);
  const bool colon = first.ec == std::errc{} && first.ptr != end && *first.ptr == ':';
  const auto last = colon ? std::from_chars(first.ptr + 1, end, range.second) : first;
  if (!colon || last.ec != std::errc{} || last.ptr != end)
    return fail(ErrorCode::kInvalidArgument, "'" + text + "' is not FIRST:END");
  return range;
}

}  // namespace isthmus::tools
