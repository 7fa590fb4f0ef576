// Names in error messages.
#pragma once

#include <string>
#include <string_view>

namespace isthmus::model {

/// `name` between apostrophes.
[[nodiscard]] inline std::string quote(std::string_view name) {
  std::string quoted(1, '\'');
  quoted += name;
  quoted += '\'';
  return quoted;
}

}  // namespace isthmus::model
