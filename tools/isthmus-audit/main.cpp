// isthmus-audit: what attackers read from the messages that a device releases.
#include <isthmus/codec/spec.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <string>

#include "common/artefact_flags.h"
#include "common/command_line.h"
#include "common/engine_flags.h"
#include "common/terminal.h"
#include "common/text_file.h"
#include "report.h"
#include "run.h"

namespace isthmus::tools {
namespace {

constexpr const char* kTool = "isthmus-audit";

void declare(CLI::App& app, AuditFlags& flags) {
  const auto tokens = CLI::Range(size_t{16}, size_t{1} << 30);
  app.add_option("--model", flags.model, "GGUF file or Hugging Face folder")->required();
  app.add_option("--train-text", flags.train_text, "UTF-8 text that attackers learn from")
      ->required();
  app.add_option("--test-text", flags.test_text, "another text, that they try to read")->required();
  app.add_option("--train-tokens", flags.train_tokens, "how much is learnt from, whole windows")
      ->check(tokens)
      ->capture_default_str();
  app.add_option("--test-tokens", flags.test_tokens, "how much is attacked, whole windows")
      ->check(tokens)
      ->capture_default_str();
  app.add_option("--window", flags.window, "tokens read together, each window from position 0")
      ->check(CLI::Range(size_t{2}, size_t{1} << 20))
      ->capture_default_str();
  app.add_option("--match-tokens", flags.match_tokens,
                 "how many of the first window exhaustive causal matching reads; each costs a run "
                 "of the front on the whole vocabulary")
      ->capture_default_str();
  app.add_option("--beam", flags.beam, "readings kept by attackers who know the language")
      ->check(CLI::Range(size_t{1}, size_t{64}))
      ->capture_default_str();
  app.add_option("--cuts", flags.cuts, "layers of the front, separated by commas")
      ->delimiter(',')
      ->check(CLI::NonNegativeNumber);
  app.add_option("--specs", flags.specs,
                 "codecs the messages are released under, separated by semicolons; when absent "
                 "what the artefacts were trained with, each at its cut, or f16")
      ->delimiter(';')
      ->check([](const std::string& spec) { return complaint(codec::CodecSpec::parse(spec)); });
  declare_artefacts(app, flags.artefacts);
  declare_precision(app, flags.engine);
  declare_threads(app, flags.threads);
  app.add_option("--html", flags.html, "file to write a page with charts to");
  app.add_flag("--json", flags.json, "print a list with an object for each attack");
}

Status run(const AuditFlags& flags) {
  ISTHMUS_ASSIGN(const AuditResult result, run_audit(flags));
  ISTHMUS_TRY(write_text(flags.html, to_html(result)));
  std::fputs((flags.json ? to_json(result) : to_text(result)).c_str(), stdout);
  return check_output();
}

int main(int argc, char** argv) {
  CLI::App app("Measures how much text attackers read from released messages.", kTool);
  AuditFlags flags;
  declare(app, flags);
  const auto check = [&] {
    const bool own_cuts = flags.specs.empty() && !flags.artefacts.empty();
    if (own_cuts != flags.cuts.empty())
      throw CLI::ValidationError(own_cuts ? "--cuts: each artefact is attacked at its own"
                                          : "--cuts is missing");
  };
  return run_tool(app, argc, argv, check, [&] { return run(flags); });
}

}  // namespace
}  // namespace isthmus::tools

int main(int argc, char** argv) {
  return isthmus::tools::main(argc, argv);
}
