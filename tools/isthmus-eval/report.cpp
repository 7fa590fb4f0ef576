#include "report.h"

#include <cstdint>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <optional>

#include "common/chart.h"
#include "common/format.h"

namespace isthmus::tools {
namespace {

using audit::Interval;
using audit::Quality;
using nlohmann::json;

// "+0.31 % (-0.02 to +0.64)"
std::string percent(double change, const std::optional<Interval>& interval) {
  std::string text = format("%+.2f %%", 100 * change);
  if (interval) text += format(" (%+.2f to %+.2f)", 100 * interval->low, 100 * interval->high);
  return text;
}

// An absent end is an empty field.
std::string csv_interval(const std::optional<Interval>& interval) {
  return interval ? format("%.9g,%.9g", interval->low, interval->high) : ",";
}

json json_interval(const std::optional<Interval>& interval) {
  return interval ? json{interval->low, interval->high} : json();
}

void add_quality(json& object, const Quality& quality) {
  object["predictions"] = quality.predictions;
  object["perplexity"] = quality.perplexity;
  object["change"] = quality.change;
  object["change_interval"] = json_interval(quality.change_interval);
  object["kl_nats"] = quality.kl_nats;
  object["top1_flips"] = quality.top1_flips;
}

}  // namespace

std::string to_text(const std::vector<SettingResult>& results) {
  std::string text;
  if (!results.empty()) {
    const Quality& quality = results.front().quality;
    text = format("exact engine: perplexity %.4f of %zu tokens\n\n", quality.perplexity_reference,
                  quality.predictions);
  }
  text +=
      "cut  engine  front back KV bits  perplexity  change (95 %)               KL nats   flips   "
      "front MB  back MB   both MB  KV B/token\n";
  for (const SettingResult& r : results) {
    text += format(
        "%3d  %-6s  %5d %4d %7d  %10.4f  %-26s %8.6f  %5.2f %%  %8.2f %8.2f  %8.2f  %10llu\n",
        r.setting.cut, r.setting.precision.c_str(), r.setting.front_bits, r.setting.back_bits,
        r.setting.kv_bits, r.quality.perplexity,
        percent(r.quality.change, r.quality.change_interval).c_str(), r.quality.kl_nats,
        100 * r.quality.top1_flips, megabytes(r.front.weight_bytes), megabytes(r.back.weight_bytes),
        megabytes(r.front.weight_bytes + r.back.weight_bytes),
        static_cast<unsigned long long>(r.front.kv_bytes_per_token + r.back.kv_bytes_per_token));
  }
  return text;
}

std::string to_csv(const std::vector<SettingResult>& results) {
  std::string text =
      "cut,precision,front_bits,back_bits,kv_bits,predictions,perplexity,perplexity_exact,change,"
      "change_low,"
      "change_high,kl_nats,top1_flips,front_weight_bytes,back_weight_bytes,"
      "front_kv_bytes_per_token,back_kv_bytes_per_token\n";
  for (const SettingResult& r : results) {
    const Quality& q = r.quality;
    text += format("%d,%s,%d,%d,%d,%zu,%.9g,%.9g,%.9g,%s,%.9g,%.9g,%llu,%llu,%llu,%llu\n",
                   r.setting.cut, r.setting.precision.c_str(), r.setting.front_bits,
                   r.setting.back_bits, r.setting.kv_bits, q.predictions, q.perplexity,
                   q.perplexity_reference, q.change, csv_interval(q.change_interval).c_str(),
                   q.kl_nats, q.top1_flips, static_cast<unsigned long long>(r.front.weight_bytes),
                   static_cast<unsigned long long>(r.back.weight_bytes),
                   static_cast<unsigned long long>(r.front.kv_bytes_per_token),
                   static_cast<unsigned long long>(r.back.kv_bytes_per_token));
  }
  return text;
}

std::string to_json(const std::vector<SettingResult>& results) {
  json list = json::array();
  for (const SettingResult& r : results) {
    json object = {{"cut", r.setting.cut},
                   {"precision", r.setting.precision},
                   {"front_bits", r.setting.front_bits},
                   {"back_bits", r.setting.back_bits},
                   {"kv_bits", r.setting.kv_bits},
                   {"perplexity_exact", r.quality.perplexity_reference},
                   {"front_weight_bytes", r.front.weight_bytes},
                   {"back_weight_bytes", r.back.weight_bytes},
                   {"front_kv_bytes_per_token", r.front.kv_bytes_per_token},
                   {"back_kv_bytes_per_token", r.back.kv_bytes_per_token}};
    add_quality(object, r.quality);
    list.push_back(std::move(object));
  }
  return list.dump(1) + "\n";
}

std::string to_text(const SpecResults& results) {
  std::string text;
  int32_t cut = -1;
  for (const SpecResult& r : results.list) {
    if (r.cut != cut) {
      cut = r.cut;
      text += format("%scut %d, raw boundary: perplexity %.4f of %zu tokens\n",
                     text.empty() ? "" : "\n", cut, r.quality.perplexity_reference,
                     r.quality.predictions);
      text +=
          "bits  (prompt)  perplexity  change (95 %)               KL nats   flips   encode us  "
          "decode us  spec\n";
    }
    text +=
        format("%5.2f   %5.2f  %10.4f  %-26s %8.6f  %5.2f %%  %8.1f   %8.1f  %s\n",
               r.evaluation.bits_per_coordinate, r.evaluation.bits_per_coordinate_prompt,
               r.quality.perplexity, percent(r.quality.change, r.quality.change_interval).c_str(),
               r.quality.kl_nats, 100 * r.quality.top1_flips, r.evaluation.encode_us_per_token,
               r.evaluation.decode_us_per_token, r.spec.c_str());
  }
  if (results.cuts.size() < 2) return text;
  text += "\nmean over cuts\nbits  (prompt)  change (95 %)               KL nats   spec\n";
  for (size_t i = 0; i < results.patterns.size(); ++i) {
    const PatternMean mean = mean_of(results, i);
    text += format("%5.2f   %5.2f  %-26s %8.6f  %s\n", mean.bits_per_coordinate,
                   mean.bits_per_coordinate_prompt,
                   percent(mean.change.change, mean.change.interval).c_str(), mean.kl_nats,
                   results.patterns[i].c_str());
  }
  return text;
}

std::string to_csv(const SpecResults& results) {
  std::string text =
      "cut,spec,bits_per_coordinate,bits_per_coordinate_prompt,predictions,perplexity,"
      "perplexity_raw,change,change_low,change_high,kl_nats,top1_flips,encode_us_per_token,"
      "decode_us_per_token\n";
  for (const SpecResult& r : results.list) {
    const Quality& q = r.quality;
    // A spec may hold commas, but no quotes.
    text +=
        format("%d,\"%s\",%.9g,%.9g,%zu,%.9g,%.9g,%.9g,%s,%.9g,%.9g,%.6g,%.6g\n", r.cut,
               r.spec.c_str(), r.evaluation.bits_per_coordinate,
               r.evaluation.bits_per_coordinate_prompt, q.predictions, q.perplexity,
               q.perplexity_reference, q.change, csv_interval(q.change_interval).c_str(), q.kl_nats,
               q.top1_flips, r.evaluation.encode_us_per_token, r.evaluation.decode_us_per_token);
  }
  return text;
}

std::string to_json(const SpecResults& results) {
  json list = json::array();
  for (const SpecResult& r : results.list) {
    json object = {{"cut", r.cut},
                   {"spec", r.spec},
                   {"bits_per_coordinate", r.evaluation.bits_per_coordinate},
                   {"bits_per_coordinate_prompt", r.evaluation.bits_per_coordinate_prompt},
                   {"perplexity_raw", r.quality.perplexity_reference},
                   {"encode_us_per_token", r.evaluation.encode_us_per_token},
                   {"decode_us_per_token", r.evaluation.decode_us_per_token}};
    add_quality(object, r.quality);
    list.push_back(std::move(object));
  }
  return list.dump(1) + "\n";
}

std::string to_chart(const SpecResults& results) {
  Chart chart{.title = "Change of perplexity against size of the boundary",
              .x_label = "bits per coordinate, one token a message, every byte counted",
              .y_label = "change of perplexity, % (hollow: less than the axis shows)",
              .floor = 0.1};
  for (const int32_t cut : results.cuts) chart.series.push_back("cut " + std::to_string(cut));
  for (size_t i = 0; i < results.list.size(); ++i) {
    const SpecResult& r = results.list[i];
    chart.points.push_back({.x = r.evaluation.bits_per_coordinate,
                            .y = 100 * r.quality.change,
                            .series = i / results.patterns.size()});
  }
  chart.notes = {"numbers: mean over cuts, line: 95 %"};
  for (size_t i = 0; i < results.patterns.size(); ++i) {
    const PatternMean mean = mean_of(results, i);
    ChartPoint point{.x = mean.bits_per_coordinate,
                     .y = 100 * mean.change.change,
                     .number = std::to_string(i + 1)};
    if (mean.change.interval) {
      point.low = 100 * mean.change.interval->low;
      point.high = 100 * mean.change.interval->high;
    }
    chart.points.push_back(std::move(point));
    chart.notes.push_back(std::to_string(i + 1) + "  " + results.patterns[i]);
  }
  return to_svg(chart);
}

}  // namespace isthmus::tools
