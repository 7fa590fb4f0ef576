#include "plan_follower.h"

#include "common/format.h"
#include "common/text_file.h"

namespace isthmus::tools {
namespace {

planner::WatchOptions watch_options(const PlanFlags& flags) {
  return {.patience = std::chrono::milliseconds(static_cast<int64_t>(1e3 * flags.patience_s))};
}

bool decide_the_same(planner::PlanFile one, const planner::PlanFile& other) {
  one.token_seconds = other.token_seconds;
  one.wire_seconds = other.wire_seconds;
  one.first_token_seconds = other.first_token_seconds;
  return one == other;
}

}  // namespace

PlanFollower::PlanFollower(const PlanFlags& flags, const planner::PlanFile& plan)
    : flags_(flags), plan_(plan), watch_(plan.token_seconds, watch_options(flags)) {}

Result<std::string> PlanFollower::observe(const edge::Reply& reply) {
  if (reply.tokens_per_s <= 0) return std::string();
  const auto deviation = watch_.observe(
      {.total = 1 / reply.tokens_per_s, .wire = reply.wire_s_per_token}, clock_.now());
  if (!deviation) return std::string();
  const std::string found =
      format("the plan said %.1f ms a token, it takes %.1f ms, %.1f ms of them on the wire: ",
             1e3 * deviation->predicted_seconds, 1e3 * deviation->measured_seconds,
             1e3 * deviation->wire_seconds);
  if (flags_.replan.empty())
    return found + "measure the link again and plan anew for the next conversation";
  ISTHMUS_ASSIGN(const std::string outcome, plan_anew(*deviation));
  return found + outcome;
}

Result<std::string> PlanFollower::plan_anew(const planner::Deviation& deviation) const {
  ISTHMUS_ASSIGN(const std::string text, read_text(flags_.file));
  ISTHMUS_ASSIGN(planner::Problem problem, planner::parse_problem(text, flags_.file.string()));
  problem.link = planner::link_now(problem.link, plan_, deviation);
  ISTHMUS_ASSIGN(const planner::Answer answer, planner::solve(problem));
  if (!answer.plan) {
    return std::string("with the link as it is now no plan keeps every limit; ") +
           planner::why(problem, answer).back();
  }
  const std::string json = planner::to_json(problem, answer);
  ISTHMUS_ASSIGN(const planner::PlanFile next, planner::parse_plan(json, "the new plan"));
  ISTHMUS_TRY(write_text(flags_.replan, json));
  return (decide_the_same(next, plan_) ? "the same plan is still the best"
                                       : "planned anew for the next conversation") +
         format(", %.1f ms a token, in ", 1e3 * next.token_seconds) + flags_.replan.string();
}

}  // namespace isthmus::tools
