#include <isthmus/scheduler/pass_times.h>

#include <algorithm>
#include <bit>
#include <stdexcept>

namespace isthmus::scheduler {
namespace {

using std::chrono::nanoseconds;

constexpr double kMemory = 16;  // a new pass counts one part in so many

nanoseconds in_nanoseconds(double time) {
  return nanoseconds(static_cast<nanoseconds::rep>(time));
}

}  // namespace

void PassTimes::note(size_t sessions, nanoseconds time) {
  if (sessions == 0) throw std::invalid_argument("scheduler: a pass without sessions");
  Mean& mean = means_[std::min<size_t>(std::bit_width(sessions - 1), means_.size() - 1)];
  const double share = mean.sessions == 0 ? 1 : 1 / kMemory;
  mean.sessions += share * (static_cast<double>(sessions) - mean.sessions);
  mean.nanoseconds += share * (static_cast<double>(time.count()) - mean.nanoseconds);
}

nanoseconds PassTimes::expected(double sessions) const {
  Mean low;
  Mean high;
  for (const Mean& mean : means_) {
    if (mean.sessions == 0) continue;
    low = high;
    high = mean;
    if (high.sessions >= sessions) break;
  }
  if (high.sessions == 0) return nanoseconds(0);
  const double slope = (high.nanoseconds - low.nanoseconds) / (high.sessions - low.sessions);
  return in_nanoseconds(high.nanoseconds + slope * (sessions - high.sessions));
}

nanoseconds PassTimes::saved_together(size_t some, size_t others) const {
  const auto a = static_cast<double>(some);
  const auto b = static_cast<double>(others);
  return std::max(nanoseconds(0), expected(a) + expected(b) - expected(a + b));
}

}  // namespace isthmus::scheduler
