// A fixed set of worker threads for loops whose iterations are independent.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <thread>
#include <type_traits>
#include <vector>

namespace isthmus {

/// Runs loops over [0, count) on `thread_count` threads, the caller's included. Cheap enough for
/// loops of a few microseconds: workers that have just finished a loop watch for the next one for a
/// moment before they sleep, and the caller watches for the end of its loop.
///
/// Thread rule: a pool serves one caller at a time. Any thread may call `parallel_for`, but no two
/// at once, and no loop body may. Engines that run at the same time have a pool each. The caller
/// owns the pool and must not destroy it during a loop.
class ThreadPool {
 public:
  /// Refers to a callable that runs [begin, end) of a loop and does not throw. Borrows it for the
  /// call it is an argument of.
  class Body {
   public:
    template <typename F,
              typename = std::enable_if_t<std::is_invocable_v<const F&, size_t, size_t> &&
                                          !std::is_same_v<std::decay_t<F>, Body>>>
    Body(const F& callable)  // NOLINT(google-explicit-constructor): a lambda is the usual argument
        : callable_(&callable), run_([](const void* f, size_t begin, size_t end) {
            (*static_cast<const F*>(f))(begin, end);
          }) {}
    void operator()(size_t begin, size_t end) const { run_(callable_, begin, end); }

   private:
    friend class ThreadPool;
    Body() = default;
    const void* callable_ = nullptr;
    void (*run_)(const void*, size_t, size_t) = nullptr;
  };

  /// More threads than this are never started.
  static constexpr size_t kMaxThreads = 256;

  /// \param thread_count 0 means one per hardware thread. Where the system refuses a thread, the
  /// pool has those that it got.
  explicit ThreadPool(size_t thread_count = 0);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  [[nodiscard]] size_t thread_count() const { return workers_.size() + 1; }

  /// Splits [0, count) into contiguous pieces, a multiple of `grain` long (but the last), which the
  /// threads take one after the other, and returns when all are done. A thread that has no core
  /// just now holds nobody up, but for a piece it has begun. `grain` is at least 1.
  void parallel_for(size_t count, size_t grain, Body body);

 private:
  static constexpr size_t kCacheLine = 64;

  /// What one thread has learnt about watching. In vain, it takes time from whoever has the cores
  /// (there are more threads than cores, or another program runs): then a thread only glances in a
  /// growing number of waits before it tries again.
  struct Patience {
    int glances = 0;  ///< waits left in which to only glance
    int next_glances =
        0;  ///< as many follow the next time in vain; not the first, which is idleness
  };

  /// Lets threads wait for a change of an atomic: watching it first, then asleep.
  class Signal {
   public:
    /// Returns once `ready()`, which reads atomics in sequentially consistent order.
    template <typename Ready>
    void wait(const Ready& ready, Patience& patience);
    /// Called after a change, made in sequentially consistent order, that makes waiters ready.
    /// Takes the lock only when somebody sleeps.
    void notify();

   private:
    std::atomic<int> sleepers_ = 0;
    std::mutex mutex_;
    std::condition_variable changed_;
  };

  void work();
  bool run_next_piece();

  // The loop. Written by the caller when nobody has a piece, read by who has one.
  Body body_;
  size_t count_ = 0;
  size_t piece_size_ = 0;
  size_t piece_count_ = 0;
  alignas(kCacheLine) std::atomic<size_t> untaken_ = 0;     // pieces; 0 between two loops
  alignas(kCacheLine) std::atomic<size_t> unfinished_ = 0;  // pieces

  alignas(kCacheLine) std::atomic<bool> stopping_ = false;
  Patience caller_patience_;
  Signal start_;
  Signal done_;
  std::vector<std::thread> workers_;
};

}  // namespace isthmus
