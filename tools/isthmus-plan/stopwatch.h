// Timing something again and again.
#pragma once

#include <isthmus/core/error.h>

#include <functional>
#include <span>
#include <vector>

namespace isthmus::tools {

/// How a time was measured and how far apart the measurements were.
struct Timing {
  double median = 0;  ///< seconds
  double spread = 0;  ///< middle half over median
};

/// Times every call once a round, with `before` in front of each, untimed. Rounds, because a
/// machine is faster in one second than in the next, and what is compared later should share its
/// moods.
[[nodiscard]] Result<std::vector<Timing>> time_rounds(
    int rounds, std::span<const std::function<Status()>> calls,
    const std::function<void()>& before);

/// The value that `share` of the sorted list lies below, by the nearest rank.
[[nodiscard]] double quantile(const std::vector<double>& sorted, double share);

}  // namespace isthmus::tools
