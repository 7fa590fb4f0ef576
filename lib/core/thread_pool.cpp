#include <isthmus/core/thread_pool.h>

#include <algorithm>
#include <chrono>
#include <system_error>

namespace isthmus {
namespace {

// How long a thread watches before it sleeps: longer than the serial work between two loops of a
// decoded token, and long enough to see through the waking of a thread that did sleep (about 60 us
// on 2 cores of an AMD EPYC).
constexpr std::chrono::microseconds kWatch{100};
// How long it watches where watching has not paid.
constexpr std::chrono::microseconds kGlance{1};
constexpr int kMaxGlances = 127;

void pause() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

template <typename Ready>
bool watch(const Ready& ready, std::chrono::microseconds budget) {
  constexpr int kLooksPerClockRead = 16;
  const auto start = std::chrono::steady_clock::now();
  do {
    for (int i = 0; i < kLooksPerClockRead; ++i) {
      if (ready()) return true;
      pause();
    }
  } while (std::chrono::steady_clock::now() - start < budget);
  return false;
}

}  // namespace

template <typename Ready>
void ThreadPool::Signal::wait(const Ready& ready, Patience& patience) {
  if (watch(ready, patience.glances > 0 ? kGlance : kWatch)) {
    patience = {};
    return;
  }
  if (patience.glances > 0) {
    --patience.glances;
  } else {
    patience.glances = patience.next_glances;
    patience.next_glances = std::min(2 * patience.next_glances + 1, kMaxGlances);
  }
  std::unique_lock lock(mutex_);
  ++sleepers_;
  changed_.wait(lock, ready);
  --sleepers_;
}

void ThreadPool::Signal::notify() {
  // Either this sees the sleeper, or the sleeper, which counts itself before it looks again, sees
  // the change.
  if (sleepers_ == 0) return;
  { const std::scoped_lock lock(mutex_); }  // a sleeper between its look and its sleep holds it
  changed_.notify_all();
}

ThreadPool::ThreadPool(size_t thread_count) {
  if (thread_count == 0) thread_count = std::max(1U, std::thread::hardware_concurrency());
  thread_count = std::min(thread_count, kMaxThreads);
  workers_.reserve(thread_count - 1);
  for (size_t i = 1; i < thread_count; ++i) {
    try {
      workers_.emplace_back([this, i] { work(i); });
    } catch (const std::system_error&) {
      break;
    }
  }
}

ThreadPool::~ThreadPool() {
  stopping_ = true;
  start_.notify();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::parallel_for(size_t count, size_t grain, Body body) {
  if (count == 0) return;
  const size_t grains = (count + grain - 1) / grain;
  const size_t piece = (grains + thread_count() - 1) / thread_count() * grain;
  if (workers_.empty() || piece >= count) {
    body(0, count);
    return;
  }
  body_ = body;
  count_ = count;
  piece_ = piece;
  pending_.store(workers_.size(), std::memory_order_relaxed);
  ++generation_;
  start_.notify();
  run_piece(0);
  done_.wait([this] { return pending_ == 0; }, caller_patience_);
}

void ThreadPool::run_piece(size_t index) const {
  const size_t begin = std::min(index * piece_, count_);
  const size_t end = std::min(begin + piece_, count_);
  if (begin < end) body_(begin, end);
}

void ThreadPool::work(size_t index) {
  uint64_t seen = 0;
  Patience patience;
  while (true) {
    start_.wait([&] { return generation_ != seen || stopping_; }, patience);
    if (stopping_) return;
    ++seen;
    run_piece(index);
    if (--pending_ == 0) done_.notify();
  }
}

}  // namespace isthmus
