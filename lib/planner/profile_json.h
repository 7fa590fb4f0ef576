// Profiles as parts of larger JSON documents.
#pragma once

#include <isthmus/planner/profile.h>
#include <nlohmann/json.hpp>

#include "json_view.h"

namespace isthmus::planner {

[[nodiscard]] nlohmann::json to_node(const MachineProfile& profile);
[[nodiscard]] nlohmann::json to_node(const LinkProfile& link);
/// \returns kCorrupt naming the field.
[[nodiscard]] Result<MachineProfile> read_machine(const JsonView& view);
[[nodiscard]] Result<LinkProfile> read_link(const JsonView& view);

}  // namespace isthmus::planner
