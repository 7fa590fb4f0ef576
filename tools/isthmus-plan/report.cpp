#include "report.h"

#include <isthmus/planner/plan_file.h>

#include <cmath>

#include "common/format.h"

namespace isthmus::tools {
namespace {

using planner::Answer;
using planner::Metric;
using planner::Plan;
using planner::Problem;

std::string row(const Plan& plan) {
  const planner::Prediction& p = plan.predicted;
  return format("%-9s %5d %4d %3d %7d  %9.2f %9.2f  %8.2f %7.2f %7.2f %7.2f  %9.1f %9.1f %8.0f  %s",
                place_name(plan).c_str(), plan.front_bits, plan.back_bits, plan.kv_bits,
                plan.context, 1e3 * p.metrics[Metric::kToken], 1e3 * p.metrics[Metric::kFirstToken],
                1e3 * p.device, 1e3 * p.codec, 1e3 * p.wire, 1e3 * p.server,
                p.metrics[Metric::kDeviceMemory] / 1e6, p.metrics[Metric::kServerMemory] / 1e6,
                p.metrics[Metric::kTraffic], plan.codec_up.c_str()) +
         (plan.codec_down.empty() ? "\n" : format("  down %s\n", plan.codec_down.c_str()));
}

std::string table(const char* title, const std::vector<Plan>& plans) {
  if (plans.empty()) return {};
  std::string text = format(
      "\n%s\ncut       front back  kv context   token ms  first ms    device   codec    wire  "
      "server"
      "  device MB server MB  B/token  codec\n",
      title);
  for (const Plan& plan : plans) text += row(plan);
  return text;
}

std::string csv_row(const char* kind, const Plan& plan) {
  const planner::Prediction& p = plan.predicted;
  const auto number = [](int32_t value) { return value < 0 ? "" : std::to_string(value); };
  std::string text =
      format("%s,%s,%s,%d,%d,%d,%d,\"%s\",\"%s\",%.9g,%.9g,%.9g,%.9g", kind,
             number(plan.placement.cut).c_str(), number(plan.placement.tail).c_str(),
             plan.front_bits, plan.back_bits, plan.kv_bits, plan.context, plan.codec_up.c_str(),
             plan.codec_down.c_str(), p.device, p.codec, p.wire, p.server);
  for (size_t i = 0; i < planner::kMetricCount; ++i) {
    const auto metric = static_cast<Metric>(i);
    if (metric == Metric::kContext) continue;
    text +=
        std::isfinite(p.metrics[metric]) ? format(",%.9g", p.metrics[metric]) : std::string(",");
  }
  return text + "\n";
}

}  // namespace

std::string place_name(const Plan& plan) {
  if (plan.placement.is_local()) return "device";
  if (!plan.placement.has_tail()) return std::to_string(plan.placement.cut);
  return std::to_string(plan.placement.cut) + " to " + std::to_string(plan.placement.tail);
}

std::string to_text(const Problem& problem, const Answer& answer) {
  std::string text = format("device: %s, %s\nserver: %s, %s\n", problem.device.machine.c_str(),
                            problem.device.precision.c_str(), problem.server.machine.c_str(),
                            problem.server.precision.c_str());
  text += format("link: round trip %.1f ms (95 %%: %.1f ms), up %.1f Mbit/s, down %.1f Mbit/s\n",
                 1e3 * problem.link.rtt_seconds, 1e3 * problem.link.rtt_p95_seconds,
                 problem.link.up_bits_per_second / 1e6, problem.link.down_bits_per_second / 1e6);
  text += format("measured with a spread of %.0f %% (device), %.0f %% (server)\n",
                 100 * problem.device.spread, 100 * problem.server.spread);
  if (answer.plan) text += table("plan", {*answer.plan});
  text += "\nwhy\n";
  for (const std::string& reason : planner::why(problem, answer))
    text.append("- ").append(reason).append("\n");
  text += format("\nlimits, and how many of %llu candidates break each\n",
                 static_cast<unsigned long long>(answer.census.candidates));
  for (const planner::Rejection& rejection : answer.census.rejections) {
    text += format(
        "  %-18s %-22s %llu", std::string(planner::to_string(rejection.constraint.metric)).c_str(),
        planner::describe(rejection.constraint.metric, rejection.constraint.limit).c_str(),
        static_cast<unsigned long long>(rejection.candidates));
    if (rejection.unmeasured > 0)
      text += format(" (%llu not measured)", static_cast<unsigned long long>(rejection.unmeasured));
    text += "\n";
  }
  text += table("Pareto front", answer.pareto);
  return text + table("best of each cut", answer.best_per_cut);
}

std::string to_csv(const Answer& answer) {
  std::string text =
      "kind,cut,tail,front_bits,back_bits,kv_bits,context,codec_up,codec_down,device_s,codec_s,"
      "wire_s,server_s";
  for (size_t i = 0; i < planner::kMetricCount; ++i) {
    if (static_cast<Metric>(i) != Metric::kContext)
      text.append(",").append(planner::to_string(static_cast<Metric>(i)));
  }
  text += "\n";
  for (const Plan& plan : answer.pareto) text += csv_row("pareto", plan);
  for (const Plan& plan : answer.best_per_cut) text += csv_row("best_per_cut", plan);
  return text;
}

}  // namespace isthmus::tools
