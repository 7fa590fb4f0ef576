// An audit's results as a table and as JSON.
#pragma once

#include <string>

#include "run.h"

namespace isthmus::tools {

[[nodiscard]] std::string to_text(const AuditResult& result);
[[nodiscard]] std::string to_json(const AuditResult& result);

}  // namespace isthmus::tools
