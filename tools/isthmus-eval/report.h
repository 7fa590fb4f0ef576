// Results as a table for people, a table for programs, and JSON.
#pragma once

#include <string>
#include <vector>

#include "settings.h"

namespace isthmus::tools {

[[nodiscard]] std::string to_text(const std::vector<SettingResult>& results);
[[nodiscard]] std::string to_csv(const std::vector<SettingResult>& results);
[[nodiscard]] std::string to_json(const std::vector<SettingResult>& results);

}  // namespace isthmus::tools
