#include "bandwidth.h"

#include <isthmus/core/clock.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <vector>

namespace isthmus::tools {
namespace {

// A cache line; the compiler turns loads of it into the widest that the target has. Even the 16
// bytes of plain x86-64 are enough: AVX2 and AVX-512 loads measured the same on an AMD EPYC.
using Line = uint64_t __attribute__((vector_size(64)));

// Four independent sums, so that no load waits for an addition.
uint64_t sum_of(const Line* lines, size_t count) {
  Line sums[4] = {};
  for (size_t i = 0; i + 4 <= count; i += 4) {
    for (size_t j = 0; j < 4; ++j) sums[j] += lines[i + j];
  }
  const Line all = (sums[0] + sums[1]) + (sums[2] + sums[3]);
  uint64_t sum = 0;
  for (int i = 0; i < 8; ++i) sum += all[i];
  return sum;
}

}  // namespace

double read_bandwidth(ThreadPool& pool) {
  constexpr size_t kBytes = 256'000'000;
  constexpr int kPasses = 7;
  const std::vector<Line> lines(kBytes / sizeof(Line), Line{1, 1, 1, 1, 1, 1, 1, 1});
  const SteadyClock clock;
  double best_s = 0;
  std::atomic<uint64_t> total = 0;  // keeps the reads from being left out
  for (int pass = 0; pass < kPasses; ++pass) {
    const Clock::TimePoint start = clock.now();
    pool.parallel_for(lines.size(), 64, [&](size_t begin, size_t end) {
      total += sum_of(lines.data() + begin, end - begin);
    });
    const double elapsed_s = seconds_between(start, clock.now());
    best_s = pass == 0 ? elapsed_s : std::min(best_s, elapsed_s);
  }
  // Each pass adds every word once, so a wrong total means that something was not read.
  const bool read_all = total == static_cast<uint64_t>(kPasses) * lines.size() * 8;
  return read_all ? static_cast<double>(kBytes) / best_s : 0;
}

}  // namespace isthmus::tools
