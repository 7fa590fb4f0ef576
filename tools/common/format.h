// Text out of numbers, for reports.
#pragma once

#include <cstdint>
#include <cstdio>
#include <string>

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

}  // namespace isthmus::tools
