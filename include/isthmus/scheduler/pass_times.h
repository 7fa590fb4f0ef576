// How long passes take that carry short steps only, by how many sessions are in them.
//
// What counts is how much two passes take longer than one that does both their work: nearly a whole
// pass where weights have to be read and nothing else matters (a GPU), next to nothing where time
// goes with the rows (a CPU).
//
// Pure: counts and times in, times out.
#pragma once

#include <array>
#include <chrono>
#include <cstddef>

namespace isthmus::scheduler {

/// Not thread-safe.
class PassTimes {
 public:
  /// A pass with so many sessions, at least 1, took `time`.
  void note(size_t sessions, std::chrono::nanoseconds time);

  /// What a pass with so many sessions takes: on straight lines between nothing, which takes no
  /// time, and the means of what was noted; on the last of these lines beyond them. 0 before
  /// anything was noted.
  [[nodiscard]] std::chrono::nanoseconds expected(double sessions) const;

  /// How much longer two passes take than one with all their sessions; never negative.
  [[nodiscard]] std::chrono::nanoseconds saved_together(size_t some, size_t others) const;

 private:
  struct Mean {
    double sessions = 0;  // 0: nothing was noted
    double nanoseconds = 0;
  };
  // 1, 2, 3 to 4, 5 to 8 sessions, and so on; the last also takes all that are more.
  std::array<Mean, 12> means_{};
};

}  // namespace isthmus::scheduler
