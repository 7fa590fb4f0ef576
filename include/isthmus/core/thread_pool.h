// A fixed set of worker threads for loops whose iterations are independent.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace isthmus {

/// Runs loops over [0, count) on `thread_count` threads, the caller's included. The caller owns the
/// pool and must not destroy it during a loop. One loop runs at a time: `parallel_for` may be
/// called from any one thread at once, and not from inside a loop body.
class ThreadPool {
 public:
  /// Runs [begin, end) of a loop. Must not throw.
  using Body = std::function<void(size_t begin, size_t end)>;

  /// More threads than this are never started.
  static constexpr size_t kMaxThreads = 256;

  /// \param thread_count 0 means one per hardware thread. Where the system refuses a thread, the
  /// pool has those that it got.
  explicit ThreadPool(size_t thread_count = 0);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  [[nodiscard]] size_t thread_count() const { return workers_.size() + 1; }

  /// Splits [0, count) into one contiguous piece per thread, pieces a multiple of `grain` long (but
  /// the last), and returns when all are done.
  void parallel_for(size_t count, size_t grain, const Body& body);

 private:
  void work(size_t index);
  void run_piece(size_t index) const;

  std::mutex mutex_;
  std::condition_variable start_;
  std::condition_variable done_;
  uint64_t generation_ = 0;  // counts loops; a worker that sees a new value has work
  size_t pending_ = 0;
  bool stopping_ = false;
  const Body* body_ = nullptr;
  size_t count_ = 0;
  size_t piece_ = 0;
  std::vector<std::thread> workers_;
};

}  // namespace isthmus
