#include <isthmus/planner/plan_file.h>

#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "json_view.h"
#include "problem_json.h"

namespace isthmus::planner {
namespace {

using nlohmann::json;

constexpr int32_t kVersion = 1;

template <typename... Values>
std::string format(const char* pattern, Values... values) {
  char text[300];
  std::snprintf(text, sizeof text, pattern, values...);
  return text;
}

json finite(double value) {
  return std::isfinite(value) ? json(value) : json();
}

json to_node(const Metrics& metrics) {
  json node = json::object();
  for (size_t i = 0; i < kMetricCount; ++i) {
    const auto metric = static_cast<Metric>(i);
    const double sign = metric == Metric::kContext ? -1 : 1;
    node[std::string(to_string(metric))] = finite(sign * metrics[metric]);
  }
  return node;
}

json to_node(const Prediction& predicted) {
  return {{"metrics", to_node(predicted.metrics)},
          {"token_seconds",
           {{"device", predicted.device},
            {"codec", predicted.codec},
            {"wire", predicted.wire},
            {"server", predicted.server}}},
          {"bytes_up_per_token", predicted.bytes_up},
          {"bytes_down_per_token", predicted.bytes_down}};
}

json to_node(const Plan& plan) {
  const auto text = [](const std::string& spec) { return spec.empty() ? json() : json(spec); };
  const Placement& placement = plan.placement;
  return {{"local", placement.is_local()},
          {"cut", placement.is_local() ? json() : json(placement.cut)},
          {"tail", placement.has_tail() ? json(placement.tail) : json()},
          {"front_bits", plan.front_bits},
          {"back_bits", plan.back_bits},
          {"kv_bits", plan.kv_bits},
          {"context", plan.context},
          {"codec_up", text(plan.codec_up)},
          {"codec_down", text(plan.codec_down)}};
}

json with_prediction(const Plan& plan) {
  return {{"plan", to_node(plan)}, {"predicted", to_node(plan.predicted)}};
}

json optional_plan(const std::optional<Plan>& plan) {
  return plan ? with_prediction(*plan) : json();
}

json plans(const std::vector<Plan>& list) {
  json node = json::array();
  for (const Plan& plan : list) node.push_back(with_prediction(plan));
  return node;
}

json to_node(const Constraint& constraint) {
  const double sign = constraint.metric == Metric::kContext ? -1 : 1;
  return {{"metric", to_string(constraint.metric)}, {"limit", sign * constraint.limit}};
}

std::string limit_text(const Constraint& constraint) {
  return std::string(to_string(constraint.metric)) +
         (constraint.metric == Metric::kContext ? " at least " : " at most ") +
         describe(constraint.metric, constraint.limit);
}

std::string place_text(const Plan& plan) {
  if (plan.placement.is_local()) return "the whole model on the device";
  std::string text = plan.placement.cut == 0
                         ? std::string("embedding on the device")
                         : format("layers [0, %d) on the device", plan.placement.cut);
  if (!plan.placement.has_tail()) return text + ", the others and the head on the server";
  return text + format(", from layer %d on and the head on the device again", plan.placement.tail);
}

std::string share_text(const Prediction& p) {
  const double total = p.metrics[Metric::kToken];
  return format(
      "a token takes %.2f ms: %.0f %% device, %.0f %% codec, %.0f %% wire, %.0f %% server",
      1e3 * total, 100 * p.device / total, 100 * p.codec / total, 100 * p.wire / total,
      100 * p.server / total);
}

// How an alternative loses.
std::string against(const Problem& problem, const char* name, const std::optional<Plan>& other) {
  if (!other) return {};
  const std::vector<Constraint> list = broken(problem, other->predicted.metrics);
  std::string text = std::string(name) + " would cost " +
                     describe(problem.objective, other->predicted.metrics[problem.objective]);
  for (size_t i = 0; i < list.size(); ++i) {
    text += (i == 0 ? ", and breaks " : ", ") + limit_text(list[i]) + " with " +
            describe(list[i].metric, other->predicted.metrics[list[i].metric]);
  }
  return text;
}

void explain_plan(const Problem& problem, const Answer& answer, std::vector<std::string>& reasons) {
  reasons.push_back(format("of %llu candidates %llu keep every limit, and this one has the least ",
                           static_cast<unsigned long long>(answer.census.candidates),
                           static_cast<unsigned long long>(answer.census.feasible)) +
                    std::string(to_string(problem.objective)) + ": " +
                    describe(problem.objective, answer.plan->predicted.metrics[problem.objective]));
  reasons.push_back(place_text(*answer.plan) + "; " + share_text(answer.plan->predicted));
  if (answer.binding.empty()) {
    reasons.emplace_back("no limit is binding: 10 % more of any of them changes nothing");
    return;
  }
  for (const Sensitivity& found : answer.binding) {
    reasons.push_back(
        limit_text(found.constraint) + " is binding: with " +
        describe(found.constraint.metric, found.relaxed_limit) + " it would be " +
        describe(problem.objective, found.relaxed.predicted.metrics[problem.objective]) +
        format(", %.1f %% less, by ", 100 * found.gain) + place_text(found.relaxed));
  }
}

void explain_failure(const Answer& answer, std::vector<std::string>& reasons) {
  reasons.push_back(format("none of %llu candidates keeps every limit",
                           static_cast<unsigned long long>(answer.census.candidates)));
  for (const Rejection& rejection : answer.census.rejections) {
    if (rejection.candidates == answer.census.candidates)
      reasons.push_back(limit_text(rejection.constraint) + " refuses all of them by itself");
  }
  if (!answer.nearest) {
    reasons.emplace_back("what was never measured would have to be: no candidate has all the data");
    return;
  }
  std::string text = "the smallest change that makes it feasible: ";
  for (size_t i = 0; i < answer.changes.size(); ++i)
    text += (i == 0 ? "" : " and ") + limit_text(answer.changes[i]);
  reasons.push_back(text + ", by " + place_text(*answer.nearest));
}

Result<std::string> optional_text(const JsonView& view, const char* key) {
  return view.has(key) ? view.text(key) : Result<std::string>(std::string());
}

Result<ModelShape> read_model(const JsonView& file) {
  ISTHMUS_ASSIGN(const JsonView view, file.object("model"));
  ModelShape model;
  ISTHMUS_ASSIGN(model.architecture, view.text("architecture"));
  ISTHMUS_ASSIGN(model.layer_count, view.integer("layer_count", 1, 4096));
  ISTHMUS_ASSIGN(model.hidden_size, view.integer("hidden_size", 1, 1 << 24));
  ISTHMUS_ASSIGN(model.vocab_size, view.integer("vocab_size", 1, 1 << 30));
  return model;
}

Status read_placement(const JsonView& plan, int32_t layers, Placement& placement) {
  ISTHMUS_ASSIGN(const bool local, plan.boolean("local"));
  placement.cut = Placement::kLocal;
  if (local) return {};
  ISTHMUS_ASSIGN(placement.cut, plan.integer("cut", 0, layers));
  if (!plan.has("tail")) return {};
  ISTHMUS_ASSIGN(placement.tail, plan.integer("tail", placement.cut + 1, layers));
  return {};
}

}  // namespace

std::string describe(Metric metric, double value) {
  if (!std::isfinite(value)) return "not measured";
  switch (metric) {
    case Metric::kToken:
    case Metric::kFirstToken:
    case Metric::kThroughput:
      return value < 1 ? format("%.2f ms", 1e3 * value) : format("%.2f s", value);
    case Metric::kDeviceMemory:
    case Metric::kServerMemory:
      return format("%.1f MB", value / 1e6);
    case Metric::kTraffic:
      return format("%.0f bytes a token", value);
    case Metric::kEnergy:
      return format("%.3g J a token", value);
    case Metric::kQuality:
    case Metric::kAttack:
      return value <= 1e6 ? format("%.2f %%", 100 * value) : std::string("anything measured");
    case Metric::kEpsilonPerRow:
    case Metric::kEpsilonPerPrompt:
      return value <= 1e12 ? format("%.3g", value) : std::string("anything measured");
    case Metric::kContext:
      return format("%.0f tokens", -value);
  }
  return {};
}

std::vector<std::string> why(const Problem& problem, const Answer& answer) {
  std::vector<std::string> reasons;
  if (answer.plan) {
    explain_plan(problem, answer, reasons);
  } else {
    explain_failure(answer, reasons);
  }
  for (const auto& [name, other] : {std::pair("the device alone", &answer.local),
                                    std::pair("the server alone", &answer.all_server)}) {
    if (*other) reasons.push_back(against(problem, name, *other));
  }
  return reasons;
}

std::string to_json(const Problem& problem, const Answer& answer) {
  json binding = json::array();
  for (const Sensitivity& found : answer.binding) {
    json node = to_node(found.constraint);
    const double sign = found.constraint.metric == Metric::kContext ? -1 : 1;
    node["relaxed_limit"] = sign * found.relaxed_limit;
    node["gain"] = finite(found.gain);
    node["relaxed"] = with_prediction(found.relaxed);
    binding.push_back(std::move(node));
  }
  json rejections = json::array();
  for (const Rejection& rejection : answer.census.rejections) {
    json node = to_node(rejection.constraint);
    node["candidates"] = rejection.candidates;
    node["unmeasured"] = rejection.unmeasured;
    rejections.push_back(std::move(node));
  }
  json changes = json::array();
  for (const Constraint& change : answer.changes) changes.push_back(to_node(change));
  const json document = {{"isthmus_plan", kVersion},
                         {"model",
                          {{"architecture", problem.device.model.architecture},
                           {"layer_count", problem.device.model.layer_count},
                           {"hidden_size", problem.device.model.hidden_size},
                           {"vocab_size", problem.device.model.vocab_size}}},
                         {"precision", problem.device.precision},
                         {"threads", problem.device.threads},
                         {"objective", to_string(problem.objective)},
                         {"plan", answer.plan ? to_node(*answer.plan) : json()},
                         {"predicted", answer.plan ? to_node(answer.plan->predicted) : json()},
                         {"why", why(problem, answer)},
                         {"binding", std::move(binding)},
                         {"rejected",
                          {{"candidates", answer.census.candidates},
                           {"feasible", answer.census.feasible},
                           {"by", std::move(rejections)}}},
                         {"pareto", plans(answer.pareto)},
                         {"best_per_cut", plans(answer.best_per_cut)},
                         {"local", optional_plan(answer.local)},
                         {"all_server", optional_plan(answer.all_server)},
                         {"nearest", optional_plan(answer.nearest)},
                         {"changes", std::move(changes)},
                         {"problem", to_node(problem)}};
  return document.dump(1) + "\n";
}

Result<PlanFile> parse_plan(std::string_view text, std::string_view name) {
  ISTHMUS_ASSIGN(const json document, parse_json(text, name));
  const JsonView view(document, std::string(name) + ":");
  ISTHMUS_TRY(view.integer("isthmus_plan", kVersion, kVersion));
  if (!view.has("plan")) {
    return fail(ErrorCode::kNotFound,
                "planner: " + std::string(name) + " holds no plan: no candidate was feasible");
  }
  PlanFile file;
  ISTHMUS_ASSIGN(file.model, read_model(view));
  ISTHMUS_ASSIGN(file.precision, view.text("precision"));
  ISTHMUS_ASSIGN(file.threads, view.integer("threads", 1, 4096));
  ISTHMUS_ASSIGN(const JsonView plan, view.object("plan"));
  ISTHMUS_TRY(read_placement(plan, file.model.layer_count, file.placement));
  ISTHMUS_ASSIGN(file.front_bits, plan.integer("front_bits", 1, 32));
  ISTHMUS_ASSIGN(file.back_bits, plan.integer("back_bits", 1, 32));
  ISTHMUS_ASSIGN(file.kv_bits, plan.integer("kv_bits", 1, 32));
  ISTHMUS_ASSIGN(file.context, plan.integer("context", 1, 1 << 24));
  ISTHMUS_ASSIGN(file.codec_up, optional_text(plan, "codec_up"));
  ISTHMUS_ASSIGN(file.codec_down, optional_text(plan, "codec_down"));
  if (file.codec_up.empty() != file.placement.is_local())
    return plan.error("must have a 'codec_up' exactly when the model is split");
  if (file.codec_down.empty() == file.placement.has_tail())
    return plan.error("must have a 'codec_down' exactly when there is a tail");
  ISTHMUS_ASSIGN(const JsonView predicted, view.object("predicted"));
  ISTHMUS_ASSIGN(const JsonView metrics, predicted.object("metrics"));
  ISTHMUS_ASSIGN(file.token_seconds, metrics.number("token", 0, 1e9));
  ISTHMUS_ASSIGN(file.first_token_seconds, metrics.number("first_token", 0, 1e9));
  ISTHMUS_ASSIGN(const JsonView token, predicted.object("token_seconds"));
  ISTHMUS_ASSIGN(file.wire_seconds, token.number("wire", 0, 1e9));
  return file;
}

Result<Problem> parse_problem(std::string_view text, std::string_view name) {
  ISTHMUS_ASSIGN(const json document, parse_json(text, name));
  const JsonView view(document, std::string(name) + ":");
  ISTHMUS_TRY(view.integer("isthmus_plan", kVersion, kVersion));
  ISTHMUS_ASSIGN(const JsonView problem, view.object("problem"));
  ISTHMUS_ASSIGN(const Problem asked, read_problem(problem));
  ISTHMUS_ASSIGN(const ModelShape model, read_model(view));
  if (asked.device.model != model) {
    return fail(ErrorCode::kModelMismatch, "planner: " + std::string(name) +
                                               " has a plan for one model, a problem of another");
  }
  return asked.completed();
}

}  // namespace isthmus::planner
