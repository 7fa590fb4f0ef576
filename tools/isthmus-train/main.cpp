// isthmus-train: trains what a cut needs to send less, or to bear noise: a projection, a soft
// prompt, adapters.
#include <cstdio>
#include <string>

#include "common/command_line.h"
#include "common/terminal.h"
#include "options.h"
#include "run.h"

namespace isthmus::tools {
namespace {

constexpr const char* kTool = "isthmus-train";

constexpr const char* kFooter =
    "Everything in an artefact can be read by everyone who has the file: use public text. The "
    "device needs its encoder,\n"
    "the server the rest; either takes the whole file.";

/// A word as a shell wants it.
std::string quoted(const std::string& word) {
  constexpr const char* kPlain =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789%+,-./:=@_";
  if (!word.empty() && word.find_first_not_of(kPlain) == std::string::npos) return word;
  std::string result = "'";
  for (const char c : word) {
    if (c == '\'') result += "'\\'";
    result += c;
  }
  return result + "'";
}

Status run(const TrainFlags& flags) {
  ISTHMUS_ASSIGN(const TrainReport report, train_as(flags));
  std::fputs(to_ending(report).c_str(), stderr);
  std::printf("%s\n", report.codec.c_str());
  return check_output();
}

int main(int argc, char** argv) {
  CLI::App app("Trains a projection, a soft prompt and adapters for a cut of a model.", kTool);
  app.footer(kFooter);
  TrainFlags flags;
  for (int i = 0; i < argc; ++i) {
    if (i > 0) flags.command += ' ';
    flags.command += quoted(argv[i]);
  }
  declare(app, flags);
  return run_tool(
      app, argc, argv, [&] { check(flags); }, [&] { return run(flags); });
}

}  // namespace
}  // namespace isthmus::tools

int main(int argc, char** argv) {
  return isthmus::tools::main(argc, argv);
}
