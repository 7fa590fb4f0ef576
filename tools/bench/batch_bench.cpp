// How fast an engine alone decodes for many sessions at once: what a server can reach at best.
//
// usage: batch_bench MODEL CUT THREADS [SESSIONS...]
// One row a session and pass, behind 64 others, with logits and the choice of the likeliest token;
// rows of random tokens.
#include <isthmus/core/clock.h>
#include <isthmus/core/random.h>
#include <isthmus/core/thread_pool.h>
#include <isthmus/engine/cpu_engine.h>
#include <isthmus/engine/sampler.h>
#include <isthmus/model/model_file.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

namespace isthmus {
namespace {

constexpr int32_t kContext = 64;
constexpr int32_t kRepetitions = 5;
constexpr double kSecondsEach = 1.0;

Result<Matrix> recorded_rows(engine::Engine& front, int32_t cut) {
  std::vector<int32_t> tokens;
  for (uint64_t i = 0; i < kContext; ++i) {
    tokens.push_back(static_cast<int32_t>(counter_uniform(1, i) * front.config().vocab_size));
  }
  ISTHMUS_ASSIGN(const auto cache, front.make_cache({0, cut}, kContext));
  const engine::Slice slice{.cache = cache.get(), .tokens = tokens};
  ISTHMUS_ASSIGN(std::vector<Matrix> rows, front.forward({&slice, 1}));
  return std::move(rows.front());
}

/// Tokens a second of `count` sessions that decode together, for at least kSecondsEach.
Result<double> decode_speed(engine::Engine& back, const Matrix& rows, engine::LayerWindow window,
                            size_t count) {
  std::vector<std::unique_ptr<engine::KvCache>> caches;
  std::vector<engine::Slice> slices;
  for (size_t i = 0; i < count; ++i) {
    ISTHMUS_ASSIGN(auto cache, back.make_cache(window, kContext + 1));
    caches.push_back(std::move(cache));
    slices.push_back(
        {.cache = caches.back().get(), .hidden = rows.view(), .rows = engine::Rows::kNone});
  }
  ISTHMUS_TRY(back.forward(slices));
  for (engine::Slice& slice : slices) {
    slice.hidden = rows.view().middle_rows(0, 1);
    slice.output = engine::Output::kLogits;
    slice.rows = engine::Rows::kLast;
  }
  const SteadyClock clock;
  const Clock::TimePoint start = clock.now();
  size_t tokens = 0;
  double seconds = 0;
  for (; seconds < kSecondsEach; seconds = seconds_between(start, clock.now())) {
    ISTHMUS_ASSIGN(const std::vector<Matrix> logits, back.forward(slices));
    for (size_t i = 0; i < count; ++i) {
      ISTHMUS_TRY(engine::sample(logits[i].row(0), {}, {}, kContext));
      ISTHMUS_TRY(caches[i]->truncate(kContext));
    }
    tokens += count;
  }
  return static_cast<double>(tokens) / seconds;
}

Status run(const std::string& path, int32_t cut, size_t threads,
           const std::vector<size_t>& counts) {
  ThreadPool pool(threads);
  ISTHMUS_ASSIGN(const auto file, model::ModelFile::open(path));
  const int32_t layers = file->config().layer_count;
  ISTHMUS_ASSIGN(const auto front,
                 engine::load_cpu_engine(file, {.layers = {{0, cut}}, .embedding = true}, pool));
  ISTHMUS_ASSIGN(const auto back,
                 engine::load_cpu_engine(file, {.layers = {{cut, layers}}, .head = true}, pool));
  ISTHMUS_ASSIGN(const Matrix rows, recorded_rows(*front, cut));
  for (const size_t count : counts) {
    std::vector<double> speeds;
    for (int32_t i = 0; i < kRepetitions; ++i) {
      ISTHMUS_ASSIGN(const double speed, decode_speed(*back, rows, {cut, layers}, count));
      speeds.push_back(speed);
    }
    std::sort(speeds.begin(), speeds.end());
    std::printf("%4zu sessions: %8.1f tokens/s (%.1f to %.1f)\n", count, speeds[speeds.size() / 2],
                speeds.front(), speeds.back());
    std::fflush(stdout);
  }
  return {};
}

}  // namespace
}  // namespace isthmus

int main(int argc, char** argv) {
  if (argc < 4) {
    std::fprintf(stderr, "usage: batch_bench MODEL CUT THREADS [SESSIONS...]\n");
    return 2;
  }
  std::vector<size_t> counts;
  for (int i = 4; i < argc; ++i) counts.push_back(std::strtoul(argv[i], nullptr, 10));
  if (counts.empty()) counts = {1, 2, 4, 8, 16, 32, 64};
  const isthmus::Status status =
      isthmus::run(argv[1], std::atoi(argv[2]), std::strtoul(argv[3], nullptr, 10), counts);
  if (!status) std::fprintf(stderr, "batch_bench: error: %s\n", status.error().message.c_str());
  return status ? 0 : 1;
}
