// isthmus-bench: how fast a model runs here, whole, in two halves, and split over a connection.
#include <cstdio>
#include <string>

#include "common/command_line.h"
#include "common/terminal.h"
#include "options.h"
#include "report.h"
#include "suite.h"

namespace isthmus::tools {
namespace {

constexpr const char* kTool = "isthmus-bench";

Status run(const BenchFlags& flags) {
  ISTHMUS_ASSIGN(const SuiteResult result, run_suite(flags));
  std::fputs((flags.json ? to_json(result) : to_text(result, flags)).c_str(), stdout);
  return check_output();
}

int main(int argc, char** argv) {
  CLI::App app(
      "Measures how fast a model runs on this machine: whole, its front, its back, and both over "
      "an "
      "encrypted connection on loopback.",
      kTool);
  BenchFlags flags;
  declare(app, flags);
  return run_tool(
      app, argc, argv, [&] { check(flags.engine); }, [&] { return run(flags); });
}

}  // namespace
}  // namespace isthmus::tools

int main(int argc, char** argv) {
  return isthmus::tools::main(argc, argv);
}
