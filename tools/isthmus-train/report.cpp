#include "report.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "common/chart.h"
#include "common/format.h"

namespace isthmus::tools {

using nlohmann::json;

std::string to_line(const TrainReport& report) {
  const TrainReport::Validation& last = report.validations.back();
  const std::string held_out = report.distil ? format("divergence %8.4f nats", last.loss)
                                             : format("perplexity %9.2f", std::exp(last.loss));
  return format("%8lld tokens  held-out %s%s  %7.0f s\n",
                static_cast<long long>(last.steps * report.tokens_per_step), held_out.c_str(),
                last.best ? "  best" : "      ", last.seconds);
}

std::string to_ending(const TrainReport& report) {
  const int64_t done = report.steps.empty() ? 0 : report.steps.back().step.step;
  return format("best after %lld of %lld steps%s\n",
                static_cast<long long>(report.result->best_steps), static_cast<long long>(done),
                report.result->ended_early ? ", ended early: nothing better came" : "");
}

std::string to_json(const TrainReport& report) {
  json steps = json::array();
  for (const auto& [step, seconds] : report.steps) {
    steps.push_back({{"step", step.step},
                     {"loss", step.loss},
                     {"gradient_norm", step.gradient_norm},
                     {"seconds", seconds}});
  }
  json validations = json::array();
  for (const TrainReport::Validation& v : report.validations) {
    validations.push_back(
        {{"step", v.steps}, {"loss", v.loss}, {"best", v.best}, {"seconds", v.seconds}});
    if (!report.distil) validations.back()["perplexity"] = std::exp(v.loss);
  }
  json log = {{"command", report.command},
              {"codec", report.codec},
              {"distil", report.distil},
              {"data", report.data_hash},
              {"tokens_per_step", report.tokens_per_step},
              {"steps", steps},
              {"validations", validations},
              {"peak_memory_mb", report.peak_memory_mb}};
  if (report.result) {
    log["best_step"] = report.result->best_steps;
    log["ended_early"] = report.result->ended_early;
  }
  return log.dump(1) + "\n";
}

Status recall(const std::string& text, TrainReport& report) {
  try {
    const json log = json::parse(text);
    for (const json& step : log.at("steps")) {
      report.steps.push_back({.step = {.step = step.at("step").get<int64_t>(),
                                       .loss = step.at("loss").get<double>(),
                                       .gradient_norm = step.at("gradient_norm").get<double>()},
                              .seconds = step.at("seconds").get<double>()});
    }
    for (const json& measured : log.at("validations")) {
      report.validations.push_back({.steps = measured.at("step").get<int64_t>(),
                                    .loss = measured.at("loss").get<double>(),
                                    .best = measured.at("best").get<bool>(),
                                    .seconds = measured.at("seconds").get<double>()});
    }
    return {};
  } catch (const json::exception& error) {
    return fail(ErrorCode::kCorrupt, std::string("train: the checkpoint's log: ") + error.what());
  }
}

std::string to_chart(const TrainReport& report) {
  // A divergence is the logarithm of what perplexity grows by on text of the clean model's own.
  Chart chart{.title = "Perplexity while training",
              .x_label = "tokens trained on",
              .y_label = report.distil ? "perplexity on the clean model's text, times its own"
                                       : "perplexity of the next token",
              .floor = 1,
              .series = {"training, each step", "held out"}};
  const auto add = [&](int64_t steps, double loss, size_t series, bool large) {
    // A logarithmic axis has no 0: the measurement before the first step is drawn at the first.
    const auto tokens = static_cast<double>(std::max<int64_t>(1, steps) * report.tokens_per_step);
    chart.points.push_back(
        {.x = tokens,
         .y = std::exp(loss),
         .series = series,
         .number = large ? format("%.*f", report.distil ? 2 : 0, std::exp(loss)) : ""});
  };
  for (const auto& [step, seconds] : report.steps) add(step.step, step.loss, 0, false);
  for (const TrainReport::Validation& v : report.validations) add(v.steps, v.loss, 1, true);
  chart.notes = {report.codec};
  return to_svg(chart);
}

}  // namespace isthmus::tools
