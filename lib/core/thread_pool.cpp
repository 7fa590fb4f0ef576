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

// More than one, so that a thread that loses its core in the middle of a loop holds up less of it.
constexpr size_t kPiecesPerThread = 2;

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
      workers_.emplace_back([this] { work(); });
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
  const size_t wanted = std::min(grains, thread_count() * kPiecesPerThread);
  if (workers_.empty() || wanted == 1) {
    body(0, count);
    return;
  }
  body_ = body;
  count_ = count;
  piece_size_ = (grains + wanted - 1) / wanted * grain;
  piece_count_ = (count + piece_size_ - 1) / piece_size_;
  unfinished_.store(piece_count_, std::memory_order_relaxed);
  untaken_ = piece_count_;
  start_.notify();
  while (run_next_piece()) {
  }
  done_.wait([this] { return unfinished_ == 0; }, caller_patience_);
}

bool ThreadPool::run_next_piece() {
  size_t left = untaken_;
  do {
    if (left == 0) return false;
  } while (!untaken_.compare_exchange_weak(left, left - 1));
  // From here to the end of the piece the loop cannot end, so what it is cannot change.
  const size_t begin = (piece_count_ - left) * piece_size_;
  body_(begin, std::min(begin + piece_size_, count_));
  if (--unfinished_ == 0) done_.notify();
  return true;
}

void ThreadPool::work() {
  Patience patience;
  while (true) {
    start_.wait([this] { return untaken_ > 0 || stopping_; }, patience);
    if (stopping_) return;
    while (run_next_piece()) {
    }
  }
}

}  // namespace isthmus
