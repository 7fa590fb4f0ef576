// Timing something again and again.
#pragma once

#include <isthmus/core/error.h>

#include <functional>
#include <vector>

namespace isthmus::tools {

/// How a time was measured and how far apart the measurements were.
struct Timing {
  double median = 0;  ///< seconds
  double spread = 0;  ///< middle half over median
};

/// The times of `repetitions` calls, each behind a pause: between two steps of a session a machine
/// waits for the network, caches cool down and threads fall asleep, so a loop without pauses
/// measures a speed that sessions never see.
[[nodiscard]] Result<Timing> time_calls(int repetitions, double pause_s,
                                        const std::function<Status()>& call);

/// The value that `share` of the sorted list lies below, by the nearest rank.
[[nodiscard]] double quantile(const std::vector<double>& sorted, double share);

}  // namespace isthmus::tools
