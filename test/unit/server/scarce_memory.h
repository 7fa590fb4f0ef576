// Memory that runs out when a test says so.
#pragma once

#include <cstddef>

namespace isthmus::test {

/// While one lives, one of this thread's allocations by `new` fails: of those with at least `least`
/// bytes the one at `index`, counted from 0. At most one at a time.
class ScarceMemory {
 public:
  ScarceMemory(size_t least, size_t index);
  ~ScarceMemory();
  ScarceMemory(const ScarceMemory&) = delete;
  ScarceMemory& operator=(const ScarceMemory&) = delete;

  /// Whether it has failed by now.
  [[nodiscard]] bool has_failed() const;
};

}  // namespace isthmus::test
