// Text that may travel: short and valid UTF-8.
#pragma once

#include <string_view>

namespace isthmus::wire {

[[nodiscard]] bool is_utf8(std::string_view text);

}  // namespace isthmus::wire
