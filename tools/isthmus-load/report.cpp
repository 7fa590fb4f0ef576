#include "report.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "common/format.h"

namespace isthmus::tools {
namespace {

using std::chrono::nanoseconds;

/// What "before" the intruder means: later tokens take longer, so it must not be long before.
constexpr std::chrono::seconds kBefore{2};

double seconds(nanoseconds time) {
  return std::chrono::duration<double>(time).count();
}

/// A stretch of time, half-open.
struct Span {
  nanoseconds begin;
  nanoseconds end;
  [[nodiscard]] bool contains(nanoseconds time) const { return begin <= time && time < end; }
};

/// Times between two tokens of one reply that `counts(earlier, later)`.
template <typename Counts>
std::vector<double> gaps(const Run& run, const Counts& counts) {
  std::vector<double> found;
  for (const auto& [request, outcome] : run.requests) {
    for (size_t i = 1; i < outcome.tokens.size(); ++i) {
      if (!counts(outcome.tokens[i - 1], outcome.tokens[i])) continue;
      found.push_back(seconds(outcome.tokens[i] - outcome.tokens[i - 1]));
    }
  }
  return found;
}

/// Those whose later token came within `span`.
std::vector<double> gaps_ending_in(const Run& run, Span span) {
  return gaps(run, [span](nanoseconds, nanoseconds later) { return span.contains(later); });
}

/// Those that lie in `span` with any part: what made a token wait may end before the token comes.
std::vector<double> gaps_touching(const Run& run, Span span) {
  return gaps(run, [span](nanoseconds earlier, nanoseconds later) {
    return earlier < span.end && later > span.begin;
  });
}

nlohmann::json to_json(const Percentiles& p) {
  return {{"p50", p.p50}, {"p90", p.p90}, {"p99", p.p99}, {"max", p.most}};
}

std::string line(const char* name, const Percentiles& p) {
  return format("%-32s p50 %8.1f  p90 %8.1f  p99 %8.1f  max %8.1f ms\n", name, p.p50 * 1e3,
                p.p90 * 1e3, p.p99 * 1e3, p.most * 1e3);
}

}  // namespace

Percentiles percentiles(std::vector<double> values) {
  if (values.empty()) return {};
  std::sort(values.begin(), values.end());
  const auto at = [&](double fraction) {
    const auto rank = static_cast<size_t>(std::ceil(fraction * static_cast<double>(values.size())));
    return values[std::max<size_t>(rank, 1) - 1];
  };
  return {at(0.5), at(0.9), at(0.99), values.back()};
}

Report summarise(const Run& run) {
  const Span counted{run.warm_up, run.end};
  Report report{.devices = run.devices, .seconds = seconds(run.end - run.warm_up)};
  std::vector<double> first;
  size_t tokens = 0;
  size_t rows = 0;
  for (const auto& [request, outcome] : run.requests) {
    for (const nanoseconds time : outcome.tokens) tokens += counted.contains(time) ? 1 : 0;
    report.told_busy += outcome.busy;
    if (!outcome.tokens.empty() && counted.contains(outcome.tokens.front())) {
      rows += static_cast<size_t>(request.prompt_tokens);
      first.push_back(seconds(outcome.tokens.front() - outcome.arrived));
    }
    if (!outcome.failed) {
      report.completed += 1;
    } else if (*outcome.failed != ErrorCode::kCancelled) {
      ++report.failed[std::string(to_string(*outcome.failed))];
    }
  }
  for (const auto& [request, outcome] : run.intruder) {
    if (outcome.failed && *outcome.failed != ErrorCode::kCancelled)
      report.intruder_failed = to_string(*outcome.failed);
  }
  report.tokens_per_s = static_cast<double>(tokens) / report.seconds;
  report.rows_per_s = static_cast<double>(tokens + rows) / report.seconds;
  report.first_token_s = percentiles(std::move(first));
  report.between_tokens_s = percentiles(gaps_ending_in(run, counted));
  if (!run.intruder.empty() && !run.intruder.front().second.tokens.empty()) {
    const Outcome& outcome = run.intruder.front().second;
    const nanoseconds answered = outcome.tokens.front();
    report.intruder_s = seconds(answered - outcome.arrived);
    report.between_tokens_before_s =
        percentiles(gaps_ending_in(run, {outcome.arrived - kBefore, outcome.arrived}));
    report.between_tokens_during_s = percentiles(gaps_touching(run, {outcome.arrived, answered}));
  }
  return report;
}

std::string to_text(const Report& report) {
  std::string text = format(
      "%zu devices, %.1f s: %zu requests completed, %.1f tokens/s, %.1f rows/s\n", report.devices,
      report.seconds, report.completed, report.tokens_per_s, report.rows_per_s);
  text += line("first token", report.first_token_s);
  text += line("between tokens", report.between_tokens_s);
  if (report.intruder_s > 0) {
    text += format("intruder's first token after %.3f s\n", report.intruder_s);
    text += line("between tokens in the 2 s before", report.between_tokens_before_s);
    text += line("between tokens until then", report.between_tokens_during_s);
  }
  if (!report.intruder_failed.empty())
    text += format("intruder failed with %s\n", report.intruder_failed.c_str());
  text += format("told to come back: %zu times\n", report.told_busy);
  for (const auto& [code, count] : report.failed) {
    text += format("failed with %s: %zu\n", code.c_str(), count);
  }
  return text;
}

std::string to_json(const Report& report) {
  nlohmann::json json = {{"devices", report.devices},
                         {"seconds", report.seconds},
                         {"completed", report.completed},
                         {"told_busy", report.told_busy},
                         {"failed", report.failed},
                         {"tokens_per_s", report.tokens_per_s},
                         {"rows_per_s", report.rows_per_s},
                         {"first_token_s", to_json(report.first_token_s)},
                         {"between_tokens_s", to_json(report.between_tokens_s)}};
  if (report.intruder_s > 0) {
    json["intruder_s"] = report.intruder_s;
    json["between_tokens_before_s"] = to_json(report.between_tokens_before_s);
    json["between_tokens_during_s"] = to_json(report.between_tokens_during_s);
  }
  if (!report.intruder_failed.empty()) json["intruder_failed"] = report.intruder_failed;
  return json.dump(2) + "\n";
}

}  // namespace isthmus::tools
