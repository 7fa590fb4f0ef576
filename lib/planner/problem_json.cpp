#include "problem_json.h"

#include <limits>

#include "evidence_json.h"
#include "profile_json.h"

namespace isthmus::planner {
namespace {

using nlohmann::json;

constexpr int32_t kLargest = 1 << 30;
constexpr double kLargestLimit = std::numeric_limits<double>::max();

Result<std::vector<int32_t>> integers(const JsonView& view, const char* key) {
  ISTHMUS_ASSIGN(const std::vector<double> numbers, view.numbers(key, 0, kLargest));
  std::vector<int32_t> list;
  for (const double number : numbers) {
    list.push_back(static_cast<int32_t>(number));
    if (list.back() != number)
      return view.error("has " + std::to_string(number) + " in '" + key + "', no integer");
  }
  return list;
}

Result<std::vector<std::string>> texts(const JsonView& view, const char* key) {
  ISTHMUS_ASSIGN(const std::vector<JsonView> items, view.items(key));
  std::vector<std::string> list;
  for (const JsonView& item : items) {
    if (!item.node().is_string()) return item.error("is no text");
    list.push_back(item.node().get<std::string>());
  }
  return list;
}

Result<Workload> read_workload(const JsonView& view) {
  Workload work;
  ISTHMUS_ASSIGN(work.prompt_tokens, view.integer("prompt_tokens", 0, kLargest));
  ISTHMUS_ASSIGN(work.reply_tokens, view.integer("reply_tokens", 0, kLargest));
  ISTHMUS_ASSIGN(work.sessions, view.integer("sessions", 0, kLargest));
  ISTHMUS_ASSIGN(work.chunk_tokens, view.integer("chunk_tokens", 0, kLargest));
  ISTHMUS_ASSIGN(work.chunks_in_flight, view.integer("chunks_in_flight", 0, kLargest));
  return work;
}

Result<Choices> read_choices(const JsonView& view) {
  Choices choices;
  ISTHMUS_ASSIGN(choices.local, view.boolean("local"));
  ISTHMUS_ASSIGN(choices.tails, view.boolean("tails"));
  ISTHMUS_ASSIGN(choices.min_cut, view.integer("min_cut", 0, kLargest));
  ISTHMUS_ASSIGN(choices.front_bits, integers(view, "front_bits"));
  ISTHMUS_ASSIGN(choices.back_bits, integers(view, "back_bits"));
  ISTHMUS_ASSIGN(choices.kv_bits, integers(view, "kv_bits"));
  ISTHMUS_ASSIGN(choices.contexts, integers(view, "contexts"));
  ISTHMUS_ASSIGN(choices.codecs_up, texts(view, "codecs_up"));
  ISTHMUS_ASSIGN(choices.codecs_down, texts(view, "codecs_down"));
  return choices;
}

Result<Metric> metric_named(const JsonView& view, const char* what, const std::string& name) {
  const auto metric = parse_metric(name);
  if (!metric) return view.error(std::string("has the unknown ") + what + " '" + name + "'");
  return *metric;
}

Result<Constraint> read_constraint(const JsonView& view) {
  ISTHMUS_ASSIGN(const std::string name, view.text("metric"));
  ISTHMUS_ASSIGN(const Metric metric, metric_named(view, "metric", name));
  ISTHMUS_ASSIGN(const double limit, view.number("limit", -kLargestLimit, kLargestLimit));
  return Constraint{.metric = metric, .limit = limit};
}

}  // namespace

json to_node(const Problem& problem) {
  const Workload& work = problem.workload;
  const Choices& choices = problem.choices;
  json constraints = json::array();
  for (const Constraint& constraint : problem.constraints)
    constraints.push_back({{"metric", to_string(constraint.metric)}, {"limit", constraint.limit}});
  json axes = json::array();
  for (const Metric axis : problem.axes) axes.push_back(to_string(axis));
  return {{"device", to_node(problem.device)},
          {"server", to_node(problem.server)},
          {"link", to_node(problem.link)},
          {"evidence", to_node(problem.evidence)},
          {"workload",
           {{"prompt_tokens", work.prompt_tokens},
            {"reply_tokens", work.reply_tokens},
            {"sessions", work.sessions},
            {"chunk_tokens", work.chunk_tokens},
            {"chunks_in_flight", work.chunks_in_flight}}},
          {"choices",
           {{"local", choices.local},
            {"tails", choices.tails},
            {"min_cut", choices.min_cut},
            {"front_bits", choices.front_bits},
            {"back_bits", choices.back_bits},
            {"kv_bits", choices.kv_bits},
            {"contexts", choices.contexts},
            {"codecs_up", choices.codecs_up},
            {"codecs_down", choices.codecs_down}}},
          {"objective", to_string(problem.objective)},
          {"constraints", std::move(constraints)},
          {"axes", std::move(axes)}};
}

Result<Problem> read_problem(const JsonView& view) {
  Problem problem;
  ISTHMUS_ASSIGN(const JsonView device, view.object("device"));
  ISTHMUS_ASSIGN(problem.device, read_machine(device));
  ISTHMUS_ASSIGN(const JsonView server, view.object("server"));
  ISTHMUS_ASSIGN(problem.server, read_machine(server));
  ISTHMUS_ASSIGN(const JsonView link, view.object("link"));
  ISTHMUS_ASSIGN(problem.link, read_link(link));
  ISTHMUS_ASSIGN(const std::vector<JsonView> rows, view.items("evidence"));
  for (const JsonView& row : rows) ISTHMUS_TRY(add_row(row, problem.evidence));
  ISTHMUS_ASSIGN(const JsonView workload, view.object("workload"));
  ISTHMUS_ASSIGN(problem.workload, read_workload(workload));
  ISTHMUS_ASSIGN(const JsonView choices, view.object("choices"));
  ISTHMUS_ASSIGN(problem.choices, read_choices(choices));
  ISTHMUS_ASSIGN(const std::string objective, view.text("objective"));
  ISTHMUS_ASSIGN(problem.objective, metric_named(view, "objective", objective));
  ISTHMUS_ASSIGN(const std::vector<JsonView> constraints, view.items("constraints"));
  for (const JsonView& item : constraints) {
    ISTHMUS_ASSIGN(const Constraint constraint, read_constraint(item));
    problem.constraints.push_back(constraint);
  }
  ISTHMUS_ASSIGN(const std::vector<std::string> axes, texts(view, "axes"));
  for (const std::string& name : axes) {
    ISTHMUS_ASSIGN(const Metric axis, metric_named(view, "axis", name));
    problem.axes.push_back(axis);
  }
  return problem;
}

}  // namespace isthmus::planner
