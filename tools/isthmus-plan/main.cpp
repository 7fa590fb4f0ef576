// isthmus-plan: measures machines and links, and says where to cut a model and why.
#include <isthmus/planner/plan_file.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <string>

#include "common/command_line.h"
#include "common/terminal.h"
#include "common/text_file.h"
#include "measure.h"
#include "options.h"
#include "probe.h"
#include "report.h"

namespace isthmus::tools {
namespace {

constexpr const char* kTool = "isthmus-plan";

// To a file, or to standard output without one.
Status deliver(const std::filesystem::path& path, const std::string& text) {
  if (!path.empty()) return write_text(path, text);
  std::fputs(text.c_str(), stdout);
  return check_output();
}

Status profile(const ProfileFlags& flags) {
  ISTHMUS_ASSIGN(const planner::MachineProfile measured, measure_machine(flags));
  ISTHMUS_TRY(write_text(flags.output, planner::to_json(measured)));
  const planner::WeightCost& weights = measured.weights.front();
  const int32_t layers = measured.model.layer_count;
  std::printf(
      "%s: a token through %d layers %.2f ms, through the head %.2f ms, a prompt of 128 %.1f ms; "
      "spread %.0f %%\n",
      measured.machine.c_str(), layers, 1e3 * weights.time.at(layers, 1),
      1e3 * weights.head_seconds, 1e3 * weights.time.at(layers, 128), 100 * measured.spread);
  return check_output();
}

Status derive(const DeriveFlags& flags) {
  ISTHMUS_ASSIGN(const planner::MachineProfile measured, read_machine(flags.profile));
  ISTHMUS_ASSIGN(const planner::MachineProfile derived,
                 planner::derive_profile(measured, flags.description()));
  return deliver(flags.output, planner::to_json(derived));
}

Status link(const ServerFlags& flags) {
  ISTHMUS_ASSIGN(const planner::LinkProfile measured, probe_link(flags));
  return deliver(flags.output, planner::to_json(measured));
}

Status server(const ServerFlags& flags) {
  ISTHMUS_ASSIGN(const std::string text, fetch_profile(flags));
  return deliver(flags.output, text);
}

Status plan(const PlanFlags& flags) {
  ISTHMUS_ASSIGN(const planner::Problem asked, read_problem(flags));
  ISTHMUS_ASSIGN(const planner::Problem problem, asked.completed());
  ISTHMUS_ASSIGN(const planner::Answer answer, planner::solve(problem));
  const std::string json = planner::to_json(problem, answer);
  ISTHMUS_TRY(write_text(flags.output, json));
  ISTHMUS_TRY(write_text(flags.csv, to_csv(answer)));
  ISTHMUS_TRY(write_text(flags.html, to_html(problem, answer)));
  ISTHMUS_TRY(deliver({}, flags.json ? json : to_text(problem, answer)));
  if (!answer.plan) return fail(ErrorCode::kInvalidArgument, "no candidate keeps every limit");
  return {};
}

int main(int argc, char** argv) {
  CLI::App app("Says where to cut a model, at which precision and with what on the wire, and why.",
               kTool);
  Flags flags;
  declare(app, flags);
  const auto check = [&] {
    const PlanFlags& p = flags.plan;
    if (app.get_subcommands().empty() && (p.device.empty() || p.server.empty() || p.link.empty()))
      throw CLI::RequiredError("--device, --server-profile and --link");
    const CLI::App& profiled = *app.get_subcommand("profile");
    check_bits(flags.profile.engine.precision == "exact",
               profiled.count("--weight-bits") + profiled.count("--kv-bits") > 0);
  };
  return run_tool(app, argc, argv, check, [&]() -> Status {
    if (app.got_subcommand("profile")) return profile(flags.profile);
    if (app.got_subcommand("derive")) return derive(flags.derive);
    if (app.got_subcommand("link")) return link(flags.server);
    if (app.got_subcommand("server")) return server(flags.server);
    return plan(flags.plan);
  });
}

}  // namespace
}  // namespace isthmus::tools

int main(int argc, char** argv) {
  return isthmus::tools::main(argc, argv);
}
