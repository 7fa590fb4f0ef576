#include "stop_filter.h"

#include <algorithm>
#include <utility>

namespace isthmus::edge {
namespace {

/// Length of the longest end of `text` that is a beginning of `stop`.
size_t open_length(std::string_view text, std::string_view stop) {
  for (size_t length = std::min(text.size(), stop.size() - 1); length > 0; --length) {
    if (stop.starts_with(text.substr(text.size() - length))) return length;
  }
  return 0;
}

}  // namespace

std::string StopFilter::push(std::string_view text) {
  if (stopped_) return {};
  held_ += text;
  // The text that is complete first ends the reply, so that the result does not depend on how the
  // stream was cut.
  size_t first_begin = std::string::npos;
  size_t first_end = std::string::npos;
  size_t open = 0;
  for (const std::string& stop : stops_) {
    open = std::max(open, open_length(held_, stop));
    const size_t begin = held_.find(stop);
    if (begin == std::string::npos) continue;
    const size_t end = begin + stop.size();
    if (end < first_end || (end == first_end && begin < first_begin)) {
      first_begin = begin;
      first_end = end;
    }
  }
  if (first_begin != std::string::npos) {
    stopped_ = true;
    held_.resize(first_begin);
    return std::exchange(held_, {});
  }
  std::string certain = held_.substr(0, held_.size() - open);
  held_.erase(0, certain.size());
  return certain;
}

std::string StopFilter::finish() {
  return std::exchange(held_, {});
}

}  // namespace isthmus::edge
