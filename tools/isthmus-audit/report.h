// An audit's results as a table, as JSON and as a page.
#pragma once

#include <string>

#include "run.h"

namespace isthmus::tools {

[[nodiscard]] std::string to_text(const AuditResult& result);
[[nodiscard]] std::string to_json(const AuditResult& result);
/// One page: what was measured, a chart for each spec, the table.
[[nodiscard]] std::string to_html(const AuditResult& result);

}  // namespace isthmus::tools
