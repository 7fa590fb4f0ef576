// Optimum, front, counts and nearest candidate against brute force over every candidate.
#include <isthmus/planner/planner.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "instances.h"
#include "support/catch.h"

namespace isthmus {
namespace {

using namespace planner;

struct Judged {
  Candidate candidate;
  Metrics metrics;
};

/// Every candidate in order, with its metrics by the formulas.
std::vector<Judged> everything(const Problem& problem) {
  const Choices& choices = problem.choices;
  const std::vector<Placement> list = placements(problem);
  std::vector<Judged> all;
  for (uint32_t p = 0; p < list.size(); ++p) {
    const bool local = list[p].is_local();
    const size_t backs = local ? 1 : choices.back_bits.size();
    const size_t ups = local ? 1 : choices.codecs_up.size();
    const size_t downs = list[p].has_tail() ? choices.codecs_down.size() : 1;
    for (uint32_t front = 0; front < choices.front_bits.size(); ++front)
      for (uint32_t back = 0; back < backs; ++back)
        for (uint32_t kv = 0; kv < choices.kv_bits.size(); ++kv)
          for (uint32_t context = 0; context < choices.contexts.size(); ++context)
            for (uint32_t up = 0; up < ups; ++up) {
              if (!local &&
                  !problem.device.find_codec(choices.codecs_up[up])->crosses_at(list[p].cut))
                continue;
              for (uint32_t down = 0; down < downs; ++down) {
                const Candidate candidate{p, front, back, kv, context, up, down};
                all.push_back({candidate, predict(problem, candidate).metrics});
              }
            }
  }
  return all;
}

bool breaks(const Metrics& metrics, const Constraint& constraint) {
  return !(metrics[constraint.metric] <= constraint.limit);
}

bool feasible(const Problem& problem, const Metrics& metrics) {
  return std::none_of(problem.constraints.begin(), problem.constraints.end(),
                      [&](const Constraint& c) { return breaks(metrics, c); });
}

std::optional<Candidate> brute_optimum(const Problem& problem, const std::vector<Judged>& all) {
  std::optional<Candidate> best;
  double least = std::numeric_limits<double>::infinity();
  for (const Judged& one : all) {
    if (!feasible(problem, one.metrics) || !(one.metrics[problem.objective] < least)) continue;
    least = one.metrics[problem.objective];
    best = one.candidate;
  }
  return best;
}

std::vector<Candidate> brute_front(const Problem& problem, const std::vector<Judged>& all) {
  const auto dominates = [&](const Judged& a, const Judged& b) {
    bool better = false;
    for (const Metric axis : problem.axes) {
      if (a.metrics[axis] > b.metrics[axis]) return false;
      better = better || a.metrics[axis] < b.metrics[axis];
    }
    return better || a.candidate < b.candidate;
  };
  std::vector<Judged> kept;
  for (const Judged& one : all) {
    const bool measured = std::none_of(problem.axes.begin(), problem.axes.end(),
                                       [&](Metric axis) { return std::isinf(one.metrics[axis]); });
    if (measured && feasible(problem, one.metrics)) kept.push_back(one);
  }
  std::vector<Candidate> front;
  for (const Judged& one : kept) {
    const bool beaten = std::any_of(kept.begin(), kept.end(),
                                    [&](const Judged& other) { return dominates(other, one); });
    if (!beaten) front.push_back(one.candidate);
  }
  return front;
}

Census brute_count(const Problem& problem, const std::vector<Judged>& all) {
  Census census{.candidates = all.size()};
  for (const Constraint& constraint : problem.constraints) {
    Rejection rejection{.constraint = constraint};
    for (const Judged& one : all) {
      if (!breaks(one.metrics, constraint)) continue;
      ++rejection.candidates;
      if (std::isinf(one.metrics[constraint.metric])) ++rejection.unmeasured;
    }
    census.rejections.push_back(rejection);
  }
  for (const Judged& one : all) census.feasible += feasible(problem, one.metrics) ? 1 : 0;
  return census;
}

double excess(const Problem& problem, const Metrics& metrics) {
  double sum = 0;
  for (const Constraint& c : problem.constraints) {
    const double above = metrics[c.metric] - c.limit;
    if (above > 0) sum += above / (c.limit == 0 ? 1 : std::abs(c.limit));
  }
  return sum;
}

void check_instance(const Problem& problem) {
  const std::vector<Judged> all = everything(problem);
  CHECK(optimize(problem) == brute_optimum(problem, all));
  CHECK(pareto_front(problem) == brute_front(problem, all));
  CHECK(count(problem) == brute_count(problem, all));

  double least = std::numeric_limits<double>::infinity();
  for (const Judged& one : all) least = std::min(least, excess(problem, one.metrics));
  const std::optional<Candidate> nearest = nearest_to_feasible(problem);
  REQUIRE(nearest.has_value() == std::isfinite(least));
  if (nearest)
    CHECK(excess(problem, predict(problem, *nearest).metrics) == Approx(least).margin(1e-12));
}

TEST_CASE("optimum, front and counts equal brute force on 10,000 random problems", "[planner]") {
  test::Instances instances(6);
  int solvable = 0;
  int infeasible = 0;
  for (int i = 0; i < 10'000; ++i) {
    CAPTURE(i);
    const auto problem = instances.problem().completed();
    REQUIRE(problem);
    check_instance(*problem);
    ++(optimize(*problem) ? solvable : infeasible);
  }
  // The instances try both.
  CHECK(solvable > 2000);
  CHECK(infeasible > 500);
}

TEST_CASE("relaxing the binding constraint by 10 % gains what the answer says", "[planner]") {
  test::Instances instances(7);
  int gains = 0;
  for (int i = 0; i < 2000; ++i) {
    CAPTURE(i);
    const Problem asked = instances.problem();
    const auto answer = solve(asked);
    REQUIRE(answer);
    CHECK(answer->plan.has_value() == (answer->census.feasible > 0));
    CHECK(answer->nearest.has_value() <= !answer->plan.has_value());
    for (const Sensitivity& found : answer->binding) {
      Problem relaxed = *asked.completed();
      for (Constraint& constraint : relaxed.constraints)
        if (constraint.metric == found.constraint.metric) constraint.limit = found.relaxed_limit;
      const auto best = optimize(relaxed);
      REQUIRE(best);
      const double after = predict(relaxed, *best).metrics[asked.objective];
      CHECK(after == found.relaxed.predicted.metrics[asked.objective]);
      if (!answer->plan) continue;
      CHECK(after < answer->plan->predicted.metrics[asked.objective]);
      ++gains;
    }
  }
  CHECK(gains > 20);
}

TEST_CASE("an infeasible problem names limits under which it is feasible", "[planner]") {
  test::Instances instances(8);
  int checked = 0;
  for (int i = 0; i < 500; ++i) {
    CAPTURE(i);
    Problem problem = *instances.problem().completed();
    const auto answer = solve(problem);
    REQUIRE(answer);
    if (!answer->nearest) continue;
    const bool measured =
        std::all_of(answer->changes.begin(), answer->changes.end(),
                    [](const Constraint& change) { return std::isfinite(change.limit); });
    REQUIRE(measured);
    REQUIRE_FALSE(answer->changes.empty());
    for (const Constraint& change : answer->changes)
      for (Constraint& constraint : problem.constraints)
        if (constraint.metric == change.metric) constraint.limit = change.limit;
    CHECK(count(problem).feasible > 0);
    ++checked;
  }
  CHECK(checked > 20);
}

}  // namespace
}  // namespace isthmus
