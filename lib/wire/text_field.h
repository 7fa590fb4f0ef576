// Text that may travel: short and valid UTF-8.
#pragma once

#include <string>
#include <string_view>

namespace isthmus::wire {

[[nodiscard]] bool is_utf8(std::string_view text);

/// `text` cut to kMaxTextBytes between two characters, with a question mark for each byte that is
/// not UTF-8.
[[nodiscard]] std::string fit_text(std::string_view text);

}  // namespace isthmus::wire
