// A whole question as part of a plan's file, so that it can be asked again.
#pragma once

#include <isthmus/planner/problem.h>
#include <nlohmann/json.hpp>

#include "json_view.h"

namespace isthmus::planner {

[[nodiscard]] nlohmann::json to_node(const Problem& problem);
/// Whether numbers make sense is left to Problem::completed(). \returns kCorrupt naming the field.
[[nodiscard]] Result<Problem> read_problem(const JsonView& view);

}  // namespace isthmus::planner
