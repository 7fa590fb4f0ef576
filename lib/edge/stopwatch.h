// Adds the time until it is destroyed to a total.
#pragma once

#include <isthmus/core/clock.h>

namespace isthmus::edge {

class Stopwatch {
 public:
  explicit Stopwatch(double& total_s) : total_s_(total_s) {}
  ~Stopwatch() { total_s_ += seconds_between(start_, clock_.now()); }
  Stopwatch(const Stopwatch&) = delete;
  Stopwatch& operator=(const Stopwatch&) = delete;

 private:
  SteadyClock clock_;
  Clock::TimePoint start_ = clock_.now();
  double& total_s_;
};

}  // namespace isthmus::edge
