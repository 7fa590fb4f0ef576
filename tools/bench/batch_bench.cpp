// How fast an engine alone decodes for many sessions at once, what a server can reach at best; and
// what passes cost by their rows and by the positions in front of these.
//
// usage: batch_bench MODEL CUT THREADS [PRECISION [SESSIONS...]]
// Decoding: one row a session and pass, behind 64 others, with logits and the choice of the
// likeliest token; rows of random tokens.
#include <isthmus/core/clock.h>
#include <isthmus/core/random.h>
#include <isthmus/core/thread_pool.h>
#include <isthmus/engine/cpu_engine.h>
#include <isthmus/engine/sampler.h>
#include <isthmus/model/model_file.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace isthmus {
namespace {

constexpr size_t kContext = 64;
constexpr size_t kRecorded = 2304;
constexpr int32_t kRepetitions = 5;
constexpr double kSecondsEach = 1.0;

Result<Matrix> recorded_rows(engine::Engine& front, int32_t cut) {
  std::vector<int32_t> tokens;
  for (uint64_t i = 0; i < kRecorded; ++i) {
    tokens.push_back(static_cast<int32_t>(counter_uniform(1, i) * front.config().vocab_size));
  }
  ISTHMUS_ASSIGN(const auto cache, front.make_cache({0, cut}, kRecorded));
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
    slices.push_back({.cache = caches.back().get(),
                      .hidden = rows.view().middle_rows(0, kContext),
                      .rows = engine::Rows::kNone});
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

/// Several sequences with caches of their own that can be run again and again from where they are.
class Sequences {
 public:
  Sequences(engine::Engine& back, const Matrix& rows, engine::LayerWindow window)
      : back_(back), rows_(rows), window_(window) {}

  /// One that holds `length` positions, has room for more as a session has, and gets `count` rows
  /// in every pass.
  Status add(size_t length, size_t count, engine::Rows wanted) {
    ISTHMUS_ASSIGN(auto cache, back_.make_cache(window_, static_cast<int32_t>(kRecorded)));
    const engine::Slice fill{.cache = cache.get(),
                             .hidden = rows_.view().middle_rows(0, length),
                             .rows = engine::Rows::kNone};
    ISTHMUS_TRY(back_.forward({&fill, 1}));
    slices_.push_back({.cache = cache.get(),
                       .hidden = rows_.view().middle_rows(0, count),
                       .output = engine::Output::kLogits,
                       .rows = wanted});
    caches_.push_back(std::move(cache));
    return {};
  }

  /// Processor seconds of one pass: the median of some.
  Result<double> pass() {
    std::vector<double> times;
    for (int32_t i = 0; i < kPasses; ++i) {
      const std::clock_t start = std::clock();
      ISTHMUS_TRY(back_.forward(slices_));
      times.push_back(static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC);
      for (const engine::Slice& slice : slices_) {
        ISTHMUS_TRY(slice.cache->truncate(slice.cache->length() -
                                          static_cast<int32_t>(slice.hidden.rows())));
      }
    }
    std::sort(times.begin(), times.end());
    return times[times.size() / 2];
  }

 private:
  static constexpr int32_t kPasses = 9;
  engine::Engine& back_;
  const Matrix& rows_;
  engine::LayerWindow window_;
  std::vector<std::unique_ptr<engine::KvCache>> caches_;
  std::vector<engine::Slice> slices_;
};

/// Processor seconds of a pass of `count` sequences with `rows` rows each, behind `behind` others.
Result<double> pass_time(engine::Engine& back, const Matrix& recorded, engine::LayerWindow window,
                         size_t count, size_t rows, size_t behind, engine::Rows wanted) {
  Sequences sequences(back, recorded, window);
  for (size_t i = 0; i < count; ++i) ISTHMUS_TRY(sequences.add(behind, rows, wanted));
  return sequences.pass();
}

Status compare_passes(engine::Engine& back, const Matrix& recorded, engine::LayerWindow window) {
  constexpr size_t kSessions = 8;
  for (const size_t behind : {64, 256, 1024, 2048}) {
    ISTHMUS_ASSIGN(const double decoding,
                   pass_time(back, recorded, window, kSessions, 1, behind, engine::Rows::kLast));
    std::printf("behind %4zu: %zu decoding sessions %5.1f ms; a prompt's", behind, kSessions,
                decoding * 1e3);
    for (const size_t rows : {8, 16, 32, 128}) {
      ISTHMUS_ASSIGN(const double time,
                     pass_time(back, recorded, window, 1, rows, behind, engine::Rows::kNone));
      std::printf(" %zu rows %5.1f ms (%.2f each)", rows, time * 1e3,
                  time * 1e3 / static_cast<double>(rows));
    }
    std::printf("\n");
    std::fflush(stdout);
  }
  return {};
}

Status run(const std::string& path, int32_t cut, size_t threads, engine::Precision precision,
           const std::vector<size_t>& counts) {
  ThreadPool pool(threads);
  ISTHMUS_ASSIGN(const auto file, model::ModelFile::open(path));
  const int32_t layers = file->config().layer_count;
  ISTHMUS_ASSIGN(const auto front,
                 engine::load_cpu_engine(file, {.layers = {{0, cut}}, .embedding = true}, pool));
  ISTHMUS_ASSIGN(const auto back,
                 engine::load_cpu_engine(file, {.layers = {{cut, layers}}, .head = true}, pool,
                                         {.precision = precision}));
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
  return compare_passes(*back, rows, {cut, layers});
}

}  // namespace
}  // namespace isthmus

int main(int argc, char** argv) {
  using isthmus::engine::Precision;
  const std::map<std::string, Precision> precisions = {
      {"exact", Precision::kExact}, {"fine", Precision::kFine}, {"fast", Precision::kFast}};
  const std::string precision = argc > 4 ? argv[4] : "fine";
  if (argc < 4 || !precisions.contains(precision)) {
    std::fprintf(stderr, "usage: batch_bench MODEL CUT THREADS [exact|fine|fast [SESSIONS...]]\n");
    return 2;
  }
  std::vector<size_t> counts;
  for (int i = 5; i < argc; ++i) counts.push_back(std::strtoul(argv[i], nullptr, 10));
  if (counts.empty()) counts = {1, 2, 4, 8, 16, 32, 64};
  const isthmus::Status status =
      isthmus::run(argv[1], std::atoi(argv[2]), std::strtoul(argv[3], nullptr, 10),
                   precisions.at(precision), counts);
  if (!status) std::fprintf(stderr, "batch_bench: error: %s\n", status.error().message.c_str());
  return status ? 0 : 1;
}
