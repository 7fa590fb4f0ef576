// The best candidate, why it is the best, and what else there is.
#pragma once

#include <isthmus/core/error.h>
#include <isthmus/planner/cost.h>
#include <isthmus/planner/problem.h>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace isthmus::planner {

/// The feasible candidate with the least objective; among equals the first in the order of
/// candidates. Nothing when none is feasible. Exact: what is not looked at is infeasible, or not
/// better by a bound. `problem` must be completed, here and below.
[[nodiscard]] std::optional<Candidate> optimize(const Problem& problem);

/// The feasible candidates that no other feasible one dominates: none is at least as good on all of
/// `problem.axes` and better on one. Those that lack data for an axis stay out. Of candidates with
/// equal values the first stands for all. In the order of candidates.
[[nodiscard]] std::vector<Candidate> pareto_front(const Problem& problem);

/// How many candidates break a constraint, alone or with others.
struct Rejection {
  Constraint constraint;
  uint64_t candidates = 0;
  uint64_t unmeasured = 0;  ///< of them, those for which the metric was never measured
  friend bool operator==(const Rejection&, const Rejection&) = default;
};

struct Census {
  uint64_t candidates = 0;
  uint64_t feasible = 0;
  std::vector<Rejection> rejections;  ///< in the order of the constraints
  friend bool operator==(const Census&, const Census&) = default;
};

/// Exact counts over the whole space.
[[nodiscard]] Census count(const Problem& problem);

/// The candidate for which the limits must give way least, by the sum of the relative excesses over
/// them. What was never measured cannot give way. Nothing when every candidate lacks data.
[[nodiscard]] std::optional<Candidate> nearest_to_feasible(const Problem& problem);

/// A candidate and what it costs, in words that other programs read.
struct Plan {
  Placement placement;
  int32_t front_bits = 0;
  int32_t back_bits = 0;
  int32_t kv_bits = 0;
  int32_t context = 0;
  std::string codec_up;    ///< empty on the device alone
  std::string codec_down;  ///< empty without a tail
  Prediction predicted;
};

[[nodiscard]] Plan make_plan(const Problem& problem, const Candidate& candidate);

/// What one constraint costs the objective.
struct Sensitivity {
  Constraint constraint;
  double relaxed_limit = 0;  ///< 10 % wider
  Plan relaxed;              ///< the optimum then
  double gain = 0;  ///< how much less the objective is then, relative; infinite when there is no
                    ///< feasible candidate without it
};

/// An optimum and everything that explains it.
struct Answer {
  std::optional<Plan> plan;  ///< nothing: no candidate is feasible
  Census census;
  /// Constraints whose relaxation by 10 % gives a better optimum, the most valuable first. The
  /// first is the binding one.
  std::vector<Sensitivity> binding;
  std::optional<Plan> local;        ///< best on the device alone, feasible or not, where allowed
  std::optional<Plan> all_server;   ///< best with cut 0 and no tail, likewise
  std::optional<Plan> nearest;      ///< without a plan: what needs the smallest change
  std::vector<Constraint> changes;  ///< limits under which `nearest` is feasible
  std::vector<Plan> pareto;
  std::vector<Plan> best_per_cut;  ///< feasible ones only
};

/// All of the above at once. \returns the errors of Problem::completed.
[[nodiscard]] Result<Answer> solve(const Problem& problem);

/// The metrics that a plan breaks.
[[nodiscard]] std::vector<Constraint> broken(const Problem& problem, const Metrics& metrics);

}  // namespace isthmus::planner
