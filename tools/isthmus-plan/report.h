// An answer for people and for spreadsheets.
#pragma once

#include <isthmus/planner/planner.h>

#include <string>

namespace isthmus::tools {

/// The plan, what it is predicted to cost, why, the front, and what each limit refused.
[[nodiscard]] std::string to_text(const planner::Problem& problem, const planner::Answer& answer);

/// The front and the best of each cut, a line each.
[[nodiscard]] std::string to_csv(const planner::Answer& answer);

/// A page that needs no other file: tables, front, latency stack and memory by cut.
[[nodiscard]] std::string to_html(const planner::Problem& problem, const planner::Answer& answer);

/// "14", "14 to 28", "device".
[[nodiscard]] std::string place_name(const planner::Plan& plan);

}  // namespace isthmus::tools
