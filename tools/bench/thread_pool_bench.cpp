// What a parallel loop costs beside its work: prints one line of JSON per case.
//
// usage: thread_pool_bench
//
// Each case runs `pools` pools at the same time, each with `threads` threads and its own caller,
// and reports the median over rounds of the microseconds one loop takes, when a thread's piece of
// it takes `work_us` and the caller goes on for `gap_us` on its own between two loops.
#include <isthmus/core/thread_pool.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <thread>
#include <vector>

namespace {

using isthmus::ThreadPool;
using SteadyTime = std::chrono::steady_clock::time_point;

struct Case {
  size_t pools;
  size_t threads;
  double work_us;
  double gap_us;
};

double microseconds_since(SteadyTime start) {
  return std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - start)
      .count();
}

// A number of additions, not a span of time: a thread that waits for a core does not get on.
void work(double iterations) {
  volatile uint64_t sum = 0;
  for (auto i = static_cast<uint64_t>(iterations); i > 0; --i) sum = sum + i;
}

double measure_iterations_per_us() {
  constexpr double kIterations = 20e6;
  const SteadyTime start = std::chrono::steady_clock::now();
  work(kIterations);
  return kIterations / microseconds_since(start);
}

double loop_us(const Case& c, double iterations_per_us, double round_us) {
  ThreadPool pool(c.threads);
  const auto body = [&](size_t begin, size_t end) {
    if (begin < end) work(c.work_us * iterations_per_us);
  };
  constexpr int kRounds = 9;
  std::vector<double> rounds;
  for (int round = 0; round < kRounds; ++round) {
    size_t loops = 0;
    const SteadyTime start = std::chrono::steady_clock::now();
    double elapsed = 0;
    for (; elapsed < round_us; elapsed = microseconds_since(start)) {
      for (int i = 0; i < 16; ++i, ++loops) {
        pool.parallel_for(c.threads, 1, body);
        work(c.gap_us * iterations_per_us);
      }
    }
    rounds.push_back(elapsed / static_cast<double>(loops));
  }
  std::sort(rounds.begin(), rounds.end());
  return rounds[rounds.size() / 2];
}

void run(const Case& c, double iterations_per_us) {
  constexpr double kRoundUs = 100e3;
  std::vector<double> results(c.pools);
  std::vector<std::thread> callers;
  callers.reserve(c.pools);
  for (double& result : results) {
    callers.emplace_back(
        [&c, &result, iterations_per_us] { result = loop_us(c, iterations_per_us, kRoundUs); });
  }
  for (std::thread& caller : callers) caller.join();
  std::printf(
      "{\"pools\": %zu, \"threads\": %zu, \"work_us\": %.0f, \"gap_us\": %.0f, "
      "\"loop_us\": %.2f}\n",
      c.pools, c.threads, c.work_us, c.gap_us, *std::max_element(results.begin(), results.end()));
}

}  // namespace

int main() {
  const double iterations_per_us = measure_iterations_per_us();
  const Case cases[] = {{1, 2, 0, 0},  {1, 2, 20, 0},   {1, 2, 20, 10}, {1, 2, 20, 200},
                        {2, 2, 20, 0}, {2, 2, 20, 200}, {1, 4, 20, 0},  {2, 4, 20, 0}};
  for (const Case& c : cases) run(c, iterations_per_us);
  return 0;
}
