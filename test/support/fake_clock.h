// A clock that stands still until it is told to move.
#pragma once

#include <isthmus/core/clock.h>

namespace isthmus::test {

class FakeClock final : public Clock {
 public:
  [[nodiscard]] TimePoint now() const override { return now_; }
  void advance(std::chrono::nanoseconds duration) { now_ += duration; }

 private:
  TimePoint now_{std::chrono::hours(1)};
};

}  // namespace isthmus::test
