#include <isthmus/core/clock.h>
#include <isthmus/core/error.h>
#include <isthmus/core/matrix.h>
#include <isthmus/core/random.h>
#include <isthmus/core/thread_pool.h>

#include <array>
#include <atomic>
#include <chrono>
#include <set>
#include <thread>
#include <vector>

#include "support/catch.h"

namespace isthmus {
namespace {

Status passes_on(Result<int> input, int& seen) {
  ISTHMUS_ASSIGN(seen, std::move(input));
  return {};
}

TEST_CASE("a failed Result is passed on with its code and message", "[core][error]") {
  int seen = 0;
  CHECK(passes_on(7, seen).has_value());
  CHECK(seen == 7);
  const Status failed = passes_on(fail(ErrorCode::kCorrupt, "gguf: bad magic"), seen);
  REQUIRE_FALSE(failed.has_value());
  CHECK(failed.error().code == ErrorCode::kCorrupt);
  CHECK(failed.error().message == "gguf: bad magic");
}

TEST_CASE("codes have names, and unknown numbers do not crash", "[core][error]") {
  CHECK(to_string(ErrorCode::kKeyRefused) == "KeyRefused");
  CHECK(to_string(static_cast<ErrorCode>(12345)) == "Unknown");
}

TEST_CASE("a parallel loop visits every index once", "[core][thread_pool]") {
  const auto threads = GENERATE(1, 2, 3, 7);
  const auto count = GENERATE(0, 1, 2, 15, 16, 17, 1000);
  const auto grain = GENERATE(1, 4, 16);
  CAPTURE(threads, count, grain);
  ThreadPool pool(static_cast<size_t>(threads));
  std::vector<std::atomic<int>> visits(static_cast<size_t>(count));
  std::atomic<bool> misaligned = false;  // Catch's assertions are for one thread
  for (int round = 0; round < 3; ++round) {
    pool.parallel_for(visits.size(), static_cast<size_t>(grain), [&](size_t begin, size_t end) {
      if (begin % static_cast<size_t>(grain) != 0) misaligned = true;
      for (size_t i = begin; i < end; ++i) ++visits[i];
    });
  }
  CHECK_FALSE(misaligned);
  for (const auto& visit : visits) REQUIRE(visit == 3);
}

TEST_CASE("loops far apart, right behind each other and on many pools at once all finish",
          "[core][thread_pool]") {
  // More threads than this machine has cores for, so that some sleep and some watch.
  std::vector<std::thread> callers;
  callers.reserve(3);
  std::atomic<int> visits = 0;
  for (int caller = 0; caller < 3; ++caller) {
    callers.emplace_back([&visits] {
      ThreadPool pool(3);
      for (int loop = 0; loop < 300; ++loop) {
        if (loop % 100 == 99) std::this_thread::sleep_for(std::chrono::milliseconds(2));
        pool.parallel_for(
            3, 1, [&](size_t begin, size_t end) { visits += static_cast<int>(end - begin); });
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  CHECK(visits == 3 * 300 * 3);
}

TEST_CASE("a thread that is held up holds up only the piece it has begun", "[core][thread_pool]") {
  ThreadPool pool(2);
  std::atomic<int> others = 0;
  bool others_finished = false;
  pool.parallel_for(4, 1, [&](size_t begin, size_t) {
    if (begin > 0) {
      ++others;
      return;
    }
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (others < 3 && std::chrono::steady_clock::now() < deadline) std::this_thread::yield();
    others_finished = others == 3;
  });
  CHECK(others_finished);
}

TEST_CASE("what a loop wrote is there when it returns, without atomics", "[core][thread_pool]") {
  ThreadPool pool(2);
  std::vector<int> values(64, 0);
  for (int loop = 1; loop <= 2000; ++loop) {
    pool.parallel_for(values.size(), 1, [&](size_t begin, size_t end) {
      for (size_t i = begin; i < end; ++i) values[i] += loop;
    });
    values.front() += values.back();  // read and written between two loops
    values.front() -= values.back();
  }
  CHECK(values == std::vector<int>(64, 2000 * 2001 / 2));
}

TEST_CASE("a pool never has more threads than its limit", "[core][thread_pool]") {
  const ThreadPool pool(SIZE_MAX);
  CHECK(pool.thread_count() <= ThreadPool::kMaxThreads);
  CHECK(ThreadPool().thread_count() >= 1);
}

TEST_CASE("counter_uniform is a function of seed and position, in [0, 1), spread evenly",
          "[core][random]") {
  CHECK(counter_uniform(1, 2) == counter_uniform(1, 2));
  CHECK(counter_uniform(1, 2) != counter_uniform(2, 1));
  // 100,000 draws into 10 bins: chi-square with 9 degrees of freedom stays under 27.9 with
  // probability 0.999; the numbers are fixed, so this either always passes or never.
  std::array<int, 10> bins{};
  for (uint64_t i = 0; i < 100'000; ++i) {
    const double u = counter_uniform(42, i);
    REQUIRE(u >= 0);
    REQUIRE(u < 1);
    ++bins[static_cast<size_t>(u * 10)];
  }
  double chi_square = 0;
  for (const int n : bins) chi_square += (n - 10'000.0) * (n - 10'000.0) / 10'000.0;
  CHECK(chi_square < 27.9);
}

TEST_CASE("system randomness does not repeat itself", "[core][random]") {
  SystemRandom random;
  std::set<uint64_t> seen;
  for (int i = 0; i < 1000; ++i) seen.insert(random.next_u64());
  CHECK(seen.size() == 1000);
}

TEST_CASE("matrix views share storage and check row ranges", "[core][matrix]") {
  Matrix m(3, 2);
  m.view().row(1)[1] = 5;
  const MatrixView<const float> view = m.view();
  CHECK(view.middle_rows(1, 2).row(0)[1] == 5);
  CHECK_THROWS_AS(view.middle_rows(2, 2), std::out_of_range);
  CHECK_THROWS_AS(view.middle_rows(4, 0), std::out_of_range);
}

}  // namespace
}  // namespace isthmus
