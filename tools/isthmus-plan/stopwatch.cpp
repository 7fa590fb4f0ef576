#include "stopwatch.h"

#include <isthmus/core/clock.h>

#include <algorithm>
#include <cmath>

namespace isthmus::tools {

double quantile(const std::vector<double>& sorted, double share) {
  const auto rank = static_cast<size_t>(std::ceil(share * static_cast<double>(sorted.size())));
  return sorted[std::clamp<size_t>(rank, 1, sorted.size()) - 1];
}

Result<std::vector<Timing>> time_rounds(int rounds, std::span<const std::function<Status()>> calls,
                                        const std::function<void()>& before) {
  const SteadyClock clock;
  std::vector<std::vector<double>> times(calls.size());
  for (int round = 0; round < rounds; ++round) {
    for (size_t i = 0; i < calls.size(); ++i) {
      before();
      const Clock::TimePoint start = clock.now();
      ISTHMUS_TRY(calls[i]());
      times[i].push_back(seconds_between(start, clock.now()));
    }
  }
  std::vector<Timing> timings;
  for (std::vector<double>& list : times) {
    std::sort(list.begin(), list.end());
    const double median = quantile(list, 0.5);
    const double middle = quantile(list, 0.75) - quantile(list, 0.25);
    timings.push_back({.median = median, .spread = median > 0 ? middle / median : 0});
  }
  return timings;
}

}  // namespace isthmus::tools
