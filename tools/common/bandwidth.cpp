#include "bandwidth.h"

#include <isthmus/core/clock.h>
#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <iterator>
#include <new>
#include <numeric>
#include <span>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace isthmus::tools {
namespace {

// In words. Fetching ahead as the kernels do: without, an EPYC (Zen 5) core reads a quarter less.
constexpr size_t kAhead = 2048;

// Several sums, so that no load waits for an addition.
uint64_t sum_plain(const uint64_t* words, size_t count) {
  uint64_t sums[8] = {};
  for (size_t i = 0; i + 8 <= count; i += 8) {
    for (size_t j = 0; j < 8; ++j) sums[j] += words[i + j];
  }
  return std::accumulate(std::begin(sums), std::end(sums), uint64_t{0});
}

#if defined(__x86_64__)
// On an AMD EPYC, 16-byte loads read a quarter less.
__attribute__((target("avx2"))) uint64_t sum_avx2(const uint64_t* words, size_t count) {
  __m256i sums[8] = {};
  for (size_t i = 0; i + 32 <= count; i += 32) {
    for (size_t j = 0; j < 8; ++j) {
      const auto* next = reinterpret_cast<const __m256i*>(words + i + 4 * j);
      if (j % 2 == 0) __builtin_prefetch(words + i + 4 * j + kAhead);
      sums[j] = _mm256_add_epi64(sums[j], _mm256_loadu_si256(next));
    }
  }
  uint64_t lanes[4];
  for (size_t j = 1; j < 8; ++j) sums[0] = _mm256_add_epi64(sums[0], sums[j]);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(lanes), sums[0]);
  return lanes[0] + lanes[1] + lanes[2] + lanes[3];
}
#endif

auto widest_sum() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2")) return sum_avx2;
#endif
  return sum_plain;
}

}  // namespace

/// Ones, on huge pages where the system gives them, as an engine's weights are.
class ReadingMatter::HugeBuffer {
 public:
  explicit HugeBuffer(size_t bytes) : bytes_(bytes) {
    data_ = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (data_ == MAP_FAILED) throw std::bad_alloc();
#ifdef MADV_HUGEPAGE
    madvise(data_, bytes, MADV_HUGEPAGE);
#endif
    std::fill_n(static_cast<uint64_t*>(data_), bytes / sizeof(uint64_t), uint64_t{1});
  }
  HugeBuffer(const HugeBuffer&) = delete;
  HugeBuffer& operator=(const HugeBuffer&) = delete;
  ~HugeBuffer() {
    munmap(data_, bytes_);
  }

  [[nodiscard]] std::span<const uint64_t> words() const {
    return {static_cast<const uint64_t*>(data_), bytes_ / sizeof(uint64_t)};
  }

 private:
  void* data_;
  size_t bytes_;
};

ReadingMatter::ReadingMatter(size_t bytes) : buffer_(std::make_unique<HugeBuffer>(bytes)) {}
ReadingMatter::ReadingMatter(ReadingMatter&&) noexcept = default;
ReadingMatter& ReadingMatter::operator=(ReadingMatter&&) noexcept = default;
ReadingMatter::~ReadingMatter() = default;

double ReadingMatter::read(ThreadPool& pool) const {
  constexpr size_t kGrain = 64;  // words; every piece is a multiple of what a sum takes at once
  const std::span<const uint64_t> words = buffer_->words();
  const auto sum = widest_sum();
  const SteadyClock clock;
  std::atomic<uint64_t> total = 0;
  const Clock::TimePoint start = clock.now();
  pool.parallel_for(words.size(), kGrain, [&](size_t begin, size_t end) {
    total += sum(words.data() + begin, end - begin);
  });
  // The total also keeps the reads from being left out.
  return total == 0 ? 0 : seconds_between(start, clock.now());
}

double read_bandwidth(ThreadPool& pool) {
  constexpr size_t kBytes = 256'000'000;
  constexpr int kPasses = 8;
  const ReadingMatter memory(kBytes);
  double best_s = memory.read(pool);
  for (int pass = 1; pass < kPasses; ++pass) best_s = std::min(best_s, memory.read(pool));
  return static_cast<double>(kBytes) / best_s;
}

}  // namespace isthmus::tools
