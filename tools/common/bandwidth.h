// How fast this machine reads memory.
#pragma once

#include <isthmus/core/thread_pool.h>

namespace isthmus::tools {

/// Bytes per second that the pool's threads read together: the best of several passes over 256 MB,
/// more than the caches of the machines that this is meant for hold.
[[nodiscard]] double read_bandwidth(ThreadPool& pool);

}  // namespace isthmus::tools
