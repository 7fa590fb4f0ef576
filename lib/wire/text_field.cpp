#include "text_field.h"

#include <isthmus/wire/messages.h>
#include <utf8proc.h>

namespace isthmus::wire {
namespace {

/// Bytes of the UTF-8 character that `text` starts with; 0 when it starts with none, or with a
/// control character.
size_t character_length(std::string_view text) {
  utf8proc_int32_t code_point = 0;
  const auto length = utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
                                       static_cast<utf8proc_ssize_t>(text.size()), &code_point);
  if (length <= 0 || utf8proc_category(code_point) == UTF8PROC_CATEGORY_CC) return 0;
  return static_cast<size_t>(length);
}

}  // namespace

bool is_plain_text(std::string_view text) {
  while (!text.empty()) {
    const size_t length = character_length(text);
    if (length == 0) return false;
    text.remove_prefix(length);
  }
  return true;
}

std::string fit_text(std::string_view text) {
  std::string fitted;
  while (!text.empty()) {
    const size_t length = character_length(text);
    const std::string_view character = length == 0 ? "?" : text.substr(0, length);
    if (fitted.size() + character.size() > kMaxTextBytes) break;
    fitted += character;
    text.remove_prefix(length == 0 ? 1 : length);
  }
  return fitted;
}

}  // namespace isthmus::wire
