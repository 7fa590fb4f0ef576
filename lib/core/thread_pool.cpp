#include <isthmus/core/thread_pool.h>

#include <algorithm>
#include <system_error>

namespace isthmus {

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
  {
    const std::scoped_lock lock(mutex_);
    stopping_ = true;
  }
  start_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::parallel_for(size_t count, size_t grain, const Body& body) {
  if (count == 0) return;
  const size_t grains = (count + grain - 1) / grain;
  const size_t piece = (grains + thread_count() - 1) / thread_count() * grain;
  if (workers_.empty() || piece >= count) {
    body(0, count);
    return;
  }
  {
    const std::scoped_lock lock(mutex_);
    body_ = &body;
    count_ = count;
    piece_ = piece;
    pending_ = workers_.size();
    ++generation_;
  }
  start_.notify_all();
  run_piece(0);
  std::unique_lock lock(mutex_);
  done_.wait(lock, [this] { return pending_ == 0; });
}

void ThreadPool::run_piece(size_t index) const {
  const size_t begin = std::min(index * piece_, count_);
  const size_t end = std::min(begin + piece_, count_);
  if (begin < end) (*body_)(begin, end);
}

void ThreadPool::work(size_t index) {
  uint64_t seen = 0;
  while (true) {
    {
      std::unique_lock lock(mutex_);
      start_.wait(lock, [&] { return stopping_ || generation_ != seen; });
      if (stopping_) return;
      seen = generation_;
    }
    run_piece(index);
    {
      const std::scoped_lock lock(mutex_);
      --pending_;
    }
    done_.notify_one();
  }
}

}  // namespace isthmus
