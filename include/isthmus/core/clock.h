// Time as something passed in, so that tests decide what time it is.
#pragma once

#include <chrono>

namespace isthmus {

/// A monotonic clock. Implementations are safe to read from any thread.
class Clock {
 public:
  using TimePoint = std::chrono::steady_clock::time_point;

  virtual ~Clock() = default;
  [[nodiscard]] virtual TimePoint now() const = 0;
};

/// The machine's monotonic clock.
class SteadyClock final : public Clock {
 public:
  [[nodiscard]] TimePoint now() const override { return std::chrono::steady_clock::now(); }
};

/// Seconds between two points of one clock.
[[nodiscard]] inline double seconds_between(Clock::TimePoint begin, Clock::TimePoint end) {
  return std::chrono::duration<double>(end - begin).count();
}

}  // namespace isthmus
