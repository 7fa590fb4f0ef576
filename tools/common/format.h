// Text out of numbers and for markup, for reports.
#pragma once

#include <cstdint>
#include <cstdio>
#include <string>
#include <string_view>

namespace isthmus::tools {

/// printf into a string.
template <typename... Values>
std::string format(const char* pattern, Values... values) {
  const int length = std::snprintf(nullptr, 0, pattern, values...);
  std::string text(length > 0 ? static_cast<size_t>(length) : 0, '\0');
  std::snprintf(text.data(), text.size() + 1, pattern, values...);
  return text;
}

/// In units of 10^6 bytes.
inline double megabytes(uint64_t bytes) {
  return static_cast<double>(bytes) / 1e6;
}

/// Text as it may stand between the tags of HTML and SVG.
inline std::string escaped(std::string_view text) {
  std::string result;
  for (const char c : text) {
    if (c == '<') {
      result += "&lt;";
    } else if (c == '&') {
      result += "&amp;";
    } else {
      result += c;
    }
  }
  return result;
}

}  // namespace isthmus::tools
