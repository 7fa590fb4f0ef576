#include "report.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <vector>

#include "common/chart.h"
#include "common/format.h"

namespace isthmus::tools {
namespace {

using nlohmann::json;

std::string percent(double share, const audit::Interval& interval) {
  return format("%5.1f %% (%.1f to %.1f)", 100 * share, 100 * interval.low, 100 * interval.high);
}

// JSON has no infinity: null, as where nothing is promised.
json finite(double value) {
  return std::isfinite(value) ? json(value) : json();
}

/// Stretches read without a mistake by `pattern`, in percent; `none` where there was no stretch.
std::string exact(const audit::Recovery& recovery, const char* pattern, const char* none) {
  return recovery.exact_sequence ? format(pattern, 100 * *recovery.exact_sequence) : none;
}

std::vector<std::string> specs_of(const AuditResult& result) {
  std::vector<std::string> specs;
  for (const AttackResult& r : result.list)
    if (std::ranges::find(specs, r.spec) == specs.end()) specs.push_back(r.spec);
  return specs;
}

/// Tokens read at the first guess over the cut, a series for each attack.
Chart chart_of(const AuditResult& result, const std::string& spec) {
  Chart chart{.title = spec,
              .x_label = "cut",
              .y_label = "tokens read at the first guess, % (95 % interval)",
              .linear = true};
  for (const AttackResult& r : result.list) {
    if (r.spec != spec) continue;
    const auto series = std::ranges::find(chart.series, r.attack) - chart.series.begin();
    if (series == std::ssize(chart.series)) chart.series.push_back(r.attack);
    // Beside each other where attacks read alike.
    constexpr double kApart = 0.04;
    chart.points.push_back({.x = r.cut + kApart * static_cast<double>(series),
                            .y = 100 * r.recovery.top1,
                            .series = static_cast<size_t>(series),
                            .low = 100 * r.recovery.top1_interval.low,
                            .high = 100 * r.recovery.top1_interval.high});
  }
  return chart;
}

}  // namespace

std::string to_text(const AuditResult& result) {
  std::string text = format(
      "attackers trained on %zu tokens, tested on %zu others; these attacks read so much, stronger "
      "ones may read more\n\n",
      result.train_tokens, result.test_tokens);
  text +=
      "cut  attack                    first guess (95 %)       in five guesses (95 %)   16 in a "
      "row  "
      "epsilon row, prompt   spec\n";
  for (const AttackResult& r : result.list) {
    const std::string epsilon =
        r.promise ? format("%.1f, %.1f", r.promise->epsilon_per_row, r.promise->epsilon_per_prompt)
                  : "none";
    text += format("%3d  %-24s  %-23s  %-23s  %10s  %-20s  %s\n", r.cut, r.attack.c_str(),
                   percent(r.recovery.top1, r.recovery.top1_interval).c_str(),
                   percent(r.recovery.top5, r.recovery.top5_interval).c_str(),
                   exact(r.recovery, "%.1f %%", "-").c_str(), epsilon.c_str(), r.spec.c_str());
  }
  return text;
}

std::string to_json(const AuditResult& result) {
  json list = json::array();
  for (const AttackResult& r : result.list) {
    const audit::Recovery& recovery = r.recovery;
    list.push_back(
        {{"cut", r.cut},
         {"spec", r.spec},
         {"attack", r.attack},
         {"train_tokens", result.train_tokens},
         {"test_tokens", recovery.tokens},
         {"top1", recovery.top1},
         {"top1_interval", {recovery.top1_interval.low, recovery.top1_interval.high}},
         {"top5", recovery.top5},
         {"top5_interval", {recovery.top5_interval.low, recovery.top5_interval.high}},
         {"exact_sequence", recovery.exact_sequence ? json(*recovery.exact_sequence) : json()},
         {"epsilon_per_row", r.promise ? finite(r.promise->epsilon_per_row) : json()},
         {"epsilon_per_prompt", r.promise ? finite(r.promise->epsilon_per_prompt) : json()},
         {"prompt_rows", result.prompt_rows},
         {"delta", r.promise ? json(r.promise->delta) : json()}});
    if (!r.history.empty()) list.back()["held_out_top1"] = r.history;
  }
  return list.dump(1) + "\n";
}

std::string to_html(const AuditResult& result) {
  std::string page =
      "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>Isthmus "
      "audit</title>\n"
      "<style>body{font:15px/1.45 sans-serif;max-width:1000px;margin:2em auto;padding:0 1em}"
      "table{border-collapse:collapse;font-size:13px}td,th{padding:2px 10px;text-align:right}"
      "td:nth-child(-n+3),th:nth-child(-n+3){text-align:left}tr:nth-child(odd){background:#f4f4f4}"
      "</style></head><body>\n<h1>What attackers read of released messages</h1>\n";
  page += format(
      "<p>Attackers who know the public model learnt from %zu tokens and read %zu others. What "
      "these "
      "attacks read is a lower bound: stronger ones may read more. <b>unigram_prior</b> and "
      "<b>language_prior</b> see no message; the latter is told all true earlier tokens. "
      "<b>+prior</b> is an attack together with the language model.</p>\n",
      result.train_tokens, result.test_tokens);
  for (const std::string& spec : specs_of(result)) page += to_svg(chart_of(result, spec));
  page +=
      "<table><tr><th>cut</th><th>spec</th><th>attack</th><th>first guess, % (95 %)</th><th>in "
      "five, % "
      "(95 %)</th><th>16 in a row, %</th><th>epsilon of a row</th><th>of a prompt</th>"
      "<th>delta</th></tr>\n";
  for (const AttackResult& r : result.list) {
    const audit::Recovery& q = r.recovery;
    page += format("<tr><td>%d</td><td>%s</td><td>%s</td><td>%s</td><td>%s</td><td>%s</td>", r.cut,
                   r.spec.c_str(), r.attack.c_str(), percent(q.top1, q.top1_interval).c_str(),
                   percent(q.top5, q.top5_interval).c_str(), exact(q, "%.1f", "").c_str());
    page += r.promise
                ? format("<td>%.4g</td><td>%.4g</td><td>%g</td></tr>\n", r.promise->epsilon_per_row,
                         r.promise->epsilon_per_prompt, r.promise->delta)
                : "<td>none</td><td>none</td><td></td></tr>\n";
  }
  return page + "</table></body></html>\n";
}

}  // namespace isthmus::tools
