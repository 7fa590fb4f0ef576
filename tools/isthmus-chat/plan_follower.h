// Whether the plan that a conversation follows still holds, and which one would follow it.
#pragma once

#include <isthmus/core/clock.h>
#include <isthmus/core/error.h>
#include <isthmus/edge/device.h>
#include <isthmus/planner/watch.h>

#include <chrono>
#include <filesystem>
#include <optional>
#include <string>

namespace isthmus::tools {

struct PlanFlags {
  std::filesystem::path file;    // of isthmus-plan; empty: what other flags say
  std::filesystem::path replan;  // where a new plan goes; empty: only say that one is needed
  double patience_s = 10;        // how long a plan must be off
};

/// Compares replies with the plan. The session stays as it is, whatever comes of it.
class PlanFollower {
 public:
  PlanFollower(const PlanFlags& flags, const planner::PlanFile& plan);

  /// What to tell the user after a reply; empty as long as the plan holds. \returns the errors of
  /// planning anew and of writing the new plan.
  [[nodiscard]] Result<std::string> observe(const edge::Reply& reply);

 private:
  [[nodiscard]] Result<std::string> plan_anew(const planner::Deviation& deviation) const;

  const PlanFlags& flags_;
  planner::PlanFile plan_;
  SteadyClock clock_;
  planner::PlanWatch watch_;
};

}  // namespace isthmus::tools
