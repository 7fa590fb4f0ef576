#include <isthmus/planner/watch.h>

#include <algorithm>
#include <stdexcept>

namespace isthmus::planner {

Status WatchOptions::validate() const {
  if (margin > 0 && patience.count() >= 0) return {};
  return fail(ErrorCode::kInvalidArgument, "planner: margin is " + std::to_string(margin) +
                                               ", patience " + std::to_string(patience.count()) +
                                               " ms, must be above 0 and at least 0");
}

LinkProfile link_now(const LinkProfile& planned, const PlanFile& plan, const Deviation& deviation) {
  const double change = std::max(-planned.rtt_seconds, deviation.wire_seconds - plan.wire_seconds);
  LinkProfile link = planned;
  link.rtt_seconds += change;
  link.rtt_p95_seconds = std::max(link.rtt_seconds, planned.rtt_p95_seconds + change);
  return link;
}

PlanWatch::PlanWatch(double predicted_token_seconds, const WatchOptions& options)
    : predicted_(predicted_token_seconds), options_(options) {
  if (const Status valid = options.validate(); !valid)
    throw std::invalid_argument(valid.error().message);
  if (!(predicted_token_seconds > 0))
    throw std::invalid_argument("planner: a prediction must be above 0");
}

std::optional<Deviation> PlanWatch::observe(const MeasuredToken& token, Clock::TimePoint now) {
  const double ratio = token.total / predicted_;
  const int direction = ratio > 1 + options_.margin ? 1 : ratio < 1 - options_.margin ? -1 : 0;
  if (direction != direction_) {
    direction_ = direction;
    since_ = now;
    count_ = 0;
    sum_ = {};
    reported_ = false;
  }
  ++count_;
  sum_.total += token.total;
  sum_.wire += token.wire;
  if (direction == 0 || reported_ || now - since_ < options_.patience) return std::nullopt;
  reported_ = true;
  return Deviation{.predicted_seconds = predicted_,
                   .measured_seconds = sum_.total / count_,
                   .wire_seconds = sum_.wire / count_};
}

}  // namespace isthmus::planner
