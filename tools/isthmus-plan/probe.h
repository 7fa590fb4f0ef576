// Asking a server: how far away it is, and what was measured of it.
#pragma once

#include <isthmus/core/error.h>
#include <isthmus/planner/profile.h>

#include <string>

#include "options.h"

namespace isthmus::tools {

/// Measures through the encrypted channel that sessions use: round trips of empty messages, and the
/// rates from messages of growing size. \returns the errors of connecting; kTimeout.
[[nodiscard]] Result<planner::LinkProfile> probe_link(const ServerFlags& flags);

/// The server's own profile, as JSON. \returns also kNotFound when it has none, and the errors of
/// planner::parse_machine.
[[nodiscard]] Result<std::string> fetch_profile(const ServerFlags& flags);

}  // namespace isthmus::tools
