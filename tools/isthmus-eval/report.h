// Results as a table for people, a table for programs, JSON, and a chart.
#pragma once

#include <string>
#include <vector>

#include "settings.h"
#include "specs.h"

namespace isthmus::tools {

[[nodiscard]] std::string to_text(const std::vector<SettingResult>& results);
[[nodiscard]] std::string to_csv(const std::vector<SettingResult>& results);
[[nodiscard]] std::string to_json(const std::vector<SettingResult>& results);

[[nodiscard]] std::string to_text(const SpecResults& results);
[[nodiscard]] std::string to_csv(const SpecResults& results);
[[nodiscard]] std::string to_json(const SpecResults& results);
/// Rate against quality, as SVG.
[[nodiscard]] std::string to_chart(const SpecResults& results);

}  // namespace isthmus::tools
