// Evidence as part of larger JSON documents.
#pragma once

#include <isthmus/planner/evidence.h>
#include <nlohmann/json.hpp>

#include "json_view.h"

namespace isthmus::planner {

/// Rows as isthmus-eval and isthmus-audit write them, with what the planner reads of them.
[[nodiscard]] nlohmann::json to_node(const Evidence& evidence);
/// Adds a row of either tool. \returns kCorrupt naming the field.
[[nodiscard]] Status add_row(const JsonView& row, Evidence& evidence);

}  // namespace isthmus::planner
