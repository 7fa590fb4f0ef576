// Text that may travel: short, valid UTF-8, and one line. It ends up in logs and on terminals, so
// it has no control characters.
#pragma once

#include <string>
#include <string_view>

namespace isthmus::wire {

/// Whether `text` is UTF-8 without control characters (C0, DEL, C1).
[[nodiscard]] bool is_plain_text(std::string_view text);

/// `text` cut to kMaxTextBytes between two characters, with a question mark for each control
/// character and each byte that is not UTF-8.
[[nodiscard]] std::string fit_text(std::string_view text);

}  // namespace isthmus::wire
