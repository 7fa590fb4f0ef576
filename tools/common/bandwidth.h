// How fast this machine reads memory.
#pragma once

#include <isthmus/core/thread_pool.h>

#include <cstddef>
#include <memory>

namespace isthmus::tools {

/// Memory to read from end to end. When there is more of it than the caches hold, reading it leaves
/// nothing else in them.
class ReadingMatter {
 public:
  /// Memory on huge pages where the system gives them. \throws std::bad_alloc
  explicit ReadingMatter(size_t bytes);
  ReadingMatter(ReadingMatter&&) noexcept;
  ReadingMatter& operator=(ReadingMatter&&) noexcept;
  ~ReadingMatter();

  /// All threads of the pool read a share. \returns seconds.
  double read(ThreadPool& pool) const;

 private:
  class HugeBuffer;
  std::unique_ptr<HugeBuffer> buffer_;
};

/// Bytes per second that the pool's threads read together: the best of several passes over 256 MB,
/// more than the caches of the machines that this is meant for hold.
[[nodiscard]] double read_bandwidth(ThreadPool& pool);

}  // namespace isthmus::tools
