// UTF-8 one character at a time (Unicode 15, section 3.9, table 3-7), and normalisation.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace isthmus::text {

inline constexpr std::string_view kReplacement = "\xEF\xBF\xBD";  // U+FFFD

enum class Utf8State : uint8_t {
  kValid,       ///< a whole character
  kInvalid,     ///< a maximal subpart that no further byte can make valid
  kUnfinished,  ///< the start of a character, cut off by the end of the text
};

struct Utf8Unit {
  size_t length = 0;  ///< at least 1
  Utf8State state = Utf8State::kInvalid;
};

/// What stands at the front of `text`, which is not empty.
[[nodiscard]] Utf8Unit next_utf8(std::string_view text);

/// The code point of the valid UTF-8 character that `text` starts with.
[[nodiscard]] int32_t code_point_of(std::string_view text);
/// Appends one code point (not a surrogate, at most U+10FFFF).
void append_utf8(std::string& out, int32_t code_point);

/// `text` with every `from`, which is not empty, replaced by `to`.
[[nodiscard]] std::string replace_all(std::string_view text, std::string_view from,
                                      std::string_view to);

/// Whether Python's str.strip() drops the character, and so Jinja's trim.
[[nodiscard]] bool is_white(int32_t code_point);

/// Normalisation form C of valid UTF-8.
[[nodiscard]] std::string nfc(std::string_view text);

}  // namespace isthmus::text
