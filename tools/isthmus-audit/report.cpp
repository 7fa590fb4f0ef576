#include "report.h"

#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>

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

}  // namespace

std::string to_text(const AuditResult& result) {
  std::string text = format(
      "attackers trained on %zu tokens, tested on %zu others; these attacks read so much, stronger "
      "ones may read more\n\n",
      result.train_tokens, result.test_tokens);
  text +=
      "cut  attack            first guess (95 %)       in five guesses (95 %)   16 in a row  "
      "epsilon row, prompt   spec\n";
  for (const AttackResult& r : result.list) {
    const std::string epsilon =
        r.promise ? format("%.1f, %.1f", r.promise->epsilon_per_row, r.promise->epsilon_per_prompt)
                  : "none";
    text += format("%3d  %-16s  %-23s  %-23s  %8.1f %%  %-20s  %s\n", r.cut, r.attack.c_str(),
                   percent(r.recovery.top1, r.recovery.top1_interval).c_str(),
                   percent(r.recovery.top5, r.recovery.top5_interval).c_str(),
                   100 * r.recovery.exact_sequence, epsilon.c_str(), r.spec.c_str());
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
         {"exact_sequence", recovery.exact_sequence},
         {"epsilon_per_row", r.promise ? finite(r.promise->epsilon_per_row) : json()},
         {"epsilon_per_prompt", r.promise ? finite(r.promise->epsilon_per_prompt) : json()},
         {"delta", r.promise ? json(r.promise->delta) : json()}});
  }
  return list.dump(1) + "\n";
}

}  // namespace isthmus::tools
