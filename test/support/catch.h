// The one way tests include Catch2, together with small helpers every suite needs.
#pragma once

#include <isthmus/core/error.h>
#include <catch2/catch.hpp>
#include <ostream>

namespace isthmus {

inline std::ostream& operator<<(std::ostream& out, ErrorCode code) {
  return out << to_string(code);
}

}  // namespace isthmus

namespace isthmus::test {

/// The value of a Result, or a failed test that prints the error.
template <typename T>
T value_of(tl::expected<T, Error>&& result) {
  if (!result) FAIL(to_string(result.error().code) << ": " << result.error().message);
  if constexpr (!std::is_void_v<T>) return std::move(*result);
}

}  // namespace isthmus::test

/// Fails unless the Result is an error with this code; shows the message.
#define CHECK_FAILS_WITH(expression, expected_code)        \
  do {                                                     \
    const auto& isthmus_result = (expression);             \
    REQUIRE_FALSE(isthmus_result.has_value());             \
    CAPTURE(isthmus_result.error().message);               \
    CHECK(isthmus_result.error().code == (expected_code)); \
  } while (false)
