// Whether the next pass is worth putting off for sessions that were answered a moment ago.
//
// A session that decodes sends its next token as soon as it has the last one. Without patience
// those that need a millisecond for it miss the pass that the first of them starts, and the
// sessions fall apart into groups that take turns. What that costs is the caller's to say: beside a
// prompt, which fills every pass, a whole pass for each that missed one; otherwise only what two
// small passes take longer than a large one, which is little where the time goes with the rows.
// What is done with the time is the caller's as well: a piece of the prompt may fit into it.
//
// Pure: ids and times in, a time out.
#pragma once

#include <isthmus/core/clock.h>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>

namespace isthmus::scheduler {

/// Not thread-safe.
class ReturnForecast {
 public:
  /// All that had come by `now` has been noted.
  void caught_up(Clock::TimePoint now) { caught_up_ = now; }
  /// A lane got an answer and has nothing else waiting.
  void answered(uint64_t lane, Clock::TimePoint now);
  /// Its next step is here. It came at some time since `caught_up`: while a pass runs nobody looks.
  void arrived(uint64_t lane, Clock::TimePoint now);
  void forget(uint64_t lane);

  /// Whether a lane is away that may be back any moment: for four times its usual time and for a
  /// tenth of a second at least, for a second when it was never away before.
  [[nodiscard]] bool expects_any(Clock::TimePoint now) const;

  /// How much longer sessions wait for a token on average when so many lanes miss the next pass.
  using Loss = std::function<std::chrono::nanoseconds(size_t missing)>;
  /// From now on; both 0 when nobody is worth it.
  struct Wait {
    std::chrono::nanoseconds usual{0};    ///< until all of them are usually back, 0 when overdue
    std::chrono::nanoseconds longest{0};  ///< until it has taken as long as `loss` says
    friend bool operator==(const Wait&, const Wait&) = default;
  };
  /// How long to wait for more at `now`: for the lanes that usually come back before waiting for
  /// them has taken as long as `loss` says.
  [[nodiscard]] Wait worth_waiting(Clock::TimePoint now, const Loss& loss) const;

 private:
  struct Lane {
    std::optional<std::chrono::nanoseconds> usual;  // between answer and next step
    std::optional<Clock::TimePoint> answered;       // while it is away
  };
  Clock::TimePoint caught_up_;
  std::map<uint64_t, Lane> lanes_;
};

}  // namespace isthmus::scheduler
