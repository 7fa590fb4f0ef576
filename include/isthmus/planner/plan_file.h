// An answer as JSON, and the plan in it as other programs read it.
//
//   {"isthmus_plan": 1, "model", "precision", "plan", "predicted", "why", "binding", "rejected",
//    "pareto", "best_per_cut", "local", "all_server", "nearest", "changes", "problem"}
//
// `plan` is null when nothing is feasible. `problem` is all that the answer depends on, profiles
// included, so that it can be asked again with one thing changed.
#pragma once

#include <isthmus/core/error.h>
#include <isthmus/planner/planner.h>
#include <string>
#include <string_view>
#include <vector>

namespace isthmus::planner {

/// What a device and a server need of a plan.
struct PlanFile {
  ModelShape model;
  std::string precision;  ///< of the device's engine
  int32_t threads = 1;    ///< of the device
  Placement placement;
  int32_t front_bits = 0;
  int32_t back_bits = 0;
  int32_t kv_bits = 0;
  int32_t context = 0;
  std::string codec_up;    ///< empty on the device alone
  std::string codec_down;  ///< empty without a tail
  double token_seconds = 0;
  double wire_seconds = 0;  ///< of them: round trip and sending
  double first_token_seconds = 0;
  friend bool operator==(const PlanFile&, const PlanFile&) = default;
};

/// The reasons for an answer, in sentences.
[[nodiscard]] std::vector<std::string> why(const Problem& problem, const Answer& answer);

/// A value with its unit: "38.1 MB", "83.2 ms", "2048 tokens", "not measured".
[[nodiscard]] std::string describe(Metric metric, double value);

/// `problem` is the completed one.
[[nodiscard]] std::string to_json(const Problem& problem, const Answer& answer);

/// Reads the plan of such a file, which may come from anyone. \returns kTooLarge, kCorrupt naming
/// the field, kNotFound when the file holds no plan because nothing was feasible.
[[nodiscard]] Result<PlanFile> parse_plan(std::string_view json, std::string_view name);

/// Reads the problem of such a file, completed. \returns kTooLarge, kCorrupt naming the field,
/// kModelMismatch when it is not of the file's model, and the errors of Problem::completed.
[[nodiscard]] Result<Problem> parse_problem(std::string_view json, std::string_view name);

}  // namespace isthmus::planner
