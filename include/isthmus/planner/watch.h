// Whether a plan still holds: what a device measures as it talks, against what was predicted.
#pragma once

#include <isthmus/core/clock.h>
#include <isthmus/core/error.h>
#include <isthmus/planner/plan_file.h>
#include <chrono>
#include <optional>

namespace isthmus::planner {

struct WatchOptions {
  double margin = 0.25;                        ///< relative; a plan that is off by no more holds
  std::chrono::milliseconds patience{10'000};  ///< how long it must be off without a break

  /// \returns kInvalidArgument for a margin that is not above 0 or a negative patience.
  [[nodiscard]] Status validate() const;
};

/// Seconds of the tokens of one reply behind the first, per token.
struct MeasuredToken {
  double total = 0;
  double wire = 0;  ///< round trip and sending
};

/// A plan that no longer holds. It stays in force for the session; the next one should be planned
/// anew, with the link as it is now.
struct Deviation {
  double predicted_seconds = 0;
  double measured_seconds = 0;  ///< per token, mean since the plan went off
  double wire_seconds = 0;      ///< of them: what a new link profile would say
};

/// The link as the session saw it: with the round trip that makes the plan's time on the wire the
/// measured one. Messages of one size cannot tell a longer way from a slower one, so the rates stay
/// as they were measured.
[[nodiscard]] LinkProfile link_now(const LinkProfile& planned, const PlanFile& plan,
                                   const Deviation& deviation);

/// Follows the replies of one session. Never changes anything. Not thread-safe.
class PlanWatch {
 public:
  /// \throws std::invalid_argument for options that do not validate or a prediction that is not
  /// above 0.
  PlanWatch(double predicted_token_seconds, const WatchOptions& options = {});

  /// A reply that ended at `now`. \returns the deviation when the plan has been off by more than
  /// the margin, always in the same direction, in all replies for `patience`; once, until it holds
  /// again.
  [[nodiscard]] std::optional<Deviation> observe(const MeasuredToken& token, Clock::TimePoint now);

 private:
  double predicted_;
  WatchOptions options_;
  int direction_ = 0;  // of the replies since `since_`: slower 1, faster -1, as planned 0
  Clock::TimePoint since_;
  int count_ = 0;
  MeasuredToken sum_;
  bool reported_ = false;
};

}  // namespace isthmus::planner
