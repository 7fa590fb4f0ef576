#include <isthmus/planner/planner.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "search.h"

namespace isthmus::planner {
namespace {

constexpr double kRelaxation = 0.1;

Goal goal_of(const Problem& problem) {
  return {.objective = problem.objective, .constraints = problem.constraints};
}

double relaxed(const Constraint& constraint) {
  // A context is a negative number.
  return constraint.limit + kRelaxation * std::abs(constraint.limit);
}

Plan plan_at(const Problem& problem, const Placement& placement, const Candidate& candidate) {
  const Choices& choices = problem.choices;
  Plan plan{.placement = placement,
            .front_bits = choices.front_bits[candidate.front],
            .back_bits = choices.back_bits[candidate.back],
            .kv_bits = choices.kv_bits[candidate.kv],
            .context = choices.contexts[candidate.context],
            .predicted = predict(problem, placement, candidate)};
  if (plan.placement.is_local()) {
    plan.back_bits = plan.front_bits;
  } else {
    plan.codec_up = choices.codecs_up[candidate.up];
    if (plan.placement.has_tail()) plan.codec_down = choices.codecs_down[candidate.down];
  }
  return plan;
}

Plan plan_of(const Space& space, const Candidate& candidate) {
  return plan_at(space.problem(), space.placement({.placement = candidate.placement}), candidate);
}

std::vector<Sensitivity> find_binding(const Space& space, const std::optional<Plan>& plan) {
  const Problem& problem = space.problem();
  std::vector<Sensitivity> list;
  for (size_t i = 0; i < problem.constraints.size(); ++i) {
    Goal goal = goal_of(problem);
    goal.constraints[i].limit = relaxed(goal.constraints[i]);
    const std::optional<Candidate> candidate = minimize(space, goal);
    if (!candidate) continue;
    Sensitivity found{.constraint = problem.constraints[i],
                      .relaxed_limit = goal.constraints[i].limit,
                      .relaxed = plan_of(space, *candidate),
                      .gain = std::numeric_limits<double>::infinity()};
    if (plan) {
      const double before = plan->predicted.metrics[problem.objective];
      const double after = found.relaxed.predicted.metrics[problem.objective];
      if (!(after < before)) continue;
      found.gain = (before - after) / std::abs(before);
    }
    list.push_back(std::move(found));
  }
  std::stable_sort(list.begin(), list.end(),
                   [](const Sensitivity& a, const Sensitivity& b) { return a.gain > b.gain; });
  return list;
}

// The best of some placements: a feasible one, or without one the best of all of them.
std::optional<Plan> best_of(const Space& space,
                            const std::function<bool(const Placement&)>& wanted) {
  const Problem& problem = space.problem();
  std::optional<Candidate> candidate = minimize(space, goal_of(problem), wanted);
  if (!candidate) candidate = minimize(space, {.objective = problem.objective}, wanted);
  if (!candidate) return std::nullopt;
  return plan_of(space, *candidate);
}

std::optional<Candidate> find_nearest(const Space& space) {
  return minimize(space, {.constraints = space.problem().constraints, .excess = true});
}

std::vector<Plan> find_best_per_cut(const Space& space) {
  const Problem& problem = space.problem();
  std::vector<Plan> list;
  for (int32_t cut = Placement::kLocal; cut <= problem.device.model.layer_count; ++cut) {
    const std::optional<Candidate> candidate = minimize(
        space, goal_of(problem), [&](const Placement& placement) { return placement.cut == cut; });
    if (candidate) list.push_back(plan_of(space, *candidate));
  }
  return list;
}

}  // namespace

std::optional<Candidate> optimize(const Problem& problem) {
  return minimize(Space(problem), goal_of(problem));
}

std::vector<Candidate> pareto_front(const Problem& problem) {
  return pareto_front(Space(problem));
}

Census count(const Problem& problem) {
  return count(Space(problem));
}

std::optional<Candidate> nearest_to_feasible(const Problem& problem) {
  return find_nearest(Space(problem));
}

Plan make_plan(const Problem& problem, const Candidate& candidate) {
  return plan_at(problem, placements(problem)[candidate.placement], candidate);
}

std::vector<Constraint> broken(const Problem& problem, const Metrics& metrics) {
  std::vector<Constraint> list;
  std::copy_if(problem.constraints.begin(), problem.constraints.end(), std::back_inserter(list),
               [&](const Constraint& c) { return !(metrics[c.metric] <= c.limit); });
  return list;
}

Result<Answer> solve(const Problem& asked) {
  ISTHMUS_ASSIGN(const Problem problem, asked.completed());
  const Space space(problem);
  Answer answer;
  const std::optional<Candidate> best = minimize(space, goal_of(problem));
  if (best) answer.plan = plan_of(space, *best);
  answer.census = count(space);
  answer.binding = find_binding(space, answer.plan);
  answer.local = best_of(space, [](const Placement& p) { return p.is_local(); });
  answer.all_server =
      best_of(space, [](const Placement& p) { return p.cut == 0 && !p.has_tail(); });
  if (!best) {
    if (const std::optional<Candidate> near = find_nearest(space)) {
      answer.nearest = plan_of(space, *near);
      for (const Constraint& constraint : broken(problem, answer.nearest->predicted.metrics)) {
        answer.changes.push_back(
            {constraint.metric, answer.nearest->predicted.metrics[constraint.metric]});
      }
    }
  }
  for (const Candidate& candidate : pareto_front(space))
    answer.pareto.push_back(plan_of(space, candidate));
  answer.best_per_cut = find_best_per_cut(space);
  return answer;
}

}  // namespace isthmus::planner
