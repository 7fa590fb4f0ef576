#include "stopwatch.h"

#include <isthmus/core/clock.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <thread>

namespace isthmus::tools {

double quantile(const std::vector<double>& sorted, double share) {
  const auto rank = static_cast<size_t>(std::ceil(share * static_cast<double>(sorted.size())));
  return sorted[std::clamp<size_t>(rank, 1, sorted.size()) - 1];
}

Result<Timing> time_calls(int repetitions, double pause_s, const std::function<Status()>& call) {
  const SteadyClock clock;
  std::vector<double> times;
  for (int i = 0; i < repetitions; ++i) {
    if (pause_s > 0) std::this_thread::sleep_for(std::chrono::duration<double>(pause_s));
    const Clock::TimePoint start = clock.now();
    ISTHMUS_TRY(call());
    times.push_back(seconds_between(start, clock.now()));
  }
  std::sort(times.begin(), times.end());
  const double median = quantile(times, 0.5);
  const double middle = quantile(times, 0.75) - quantile(times, 0.25);
  return Timing{.median = median, .spread = median > 0 ? middle / median : 0};
}

}  // namespace isthmus::tools
