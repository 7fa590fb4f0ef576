// isthmus-eval: what a boundary's codec, or the engine's packed numbers, cost in language quality.
#include <cstdio>
#include <string>

#include "common/command_line.h"
#include "common/terminal.h"
#include "common/text_file.h"
#include "options.h"
#include "report.h"
#include "settings.h"
#include "specs.h"
#include "subject.h"

namespace isthmus::tools {
namespace {

constexpr const char* kTool = "isthmus-eval";

Status print(const std::string& text) {
  std::fputs(text.c_str(), stdout);
  return check_output();
}

Status run(const EvalFlags& flags) {
  ISTHMUS_ASSIGN(const Subject subject, open_subject(flags));
  if (flags.whole) {
    ISTHMUS_ASSIGN(const auto results, evaluate_settings(subject, flags));
    ISTHMUS_TRY(write_text(flags.csv, to_csv(results)));
    return print(flags.json ? to_json(results) : to_text(results));
  }
  ISTHMUS_ASSIGN(const SpecResults results, evaluate_specs(subject, flags));
  ISTHMUS_TRY(write_text(flags.csv, to_csv(results)));
  ISTHMUS_TRY(write_text(flags.svg, to_chart(results)));
  return print(flags.json ? to_json(results) : to_text(results));
}

int main(int argc, char** argv) {
  CLI::App app("Measures what compressing a boundary, or a model's weights, costs in quality.",
               kTool);
  EvalFlags flags;
  declare(app, flags);
  return run_tool(
      app, argc, argv, [&] { check(flags); }, [&] { return run(flags); });
}

}  // namespace
}  // namespace isthmus::tools

int main(int argc, char** argv) {
  return isthmus::tools::main(argc, argv);
}
