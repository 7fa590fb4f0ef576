#include <isthmus/core/thread_pool.h>
#include <isthmus/engine/cpu_engine.h>
#include <isthmus/kernels/dispatch.h>
#include <isthmus/model/adapters.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

#include "support/catch.h"
#include "support/engine_cases.h"
#include "support/environment.h"
#include "support/tiny_model.h"

namespace isthmus::engine {
namespace {

constexpr CpuEngineOptions kExact = {.precision = Precision::kExact};
const std::vector<CpuEngineOptions> kAllOptions = {
    kExact,
    {.precision = Precision::kFine},
    {.precision = Precision::kFast,
     .kv_bits = KvBits::k8,
     .weights = {.ranges = {{{1, 3}, 4}}, .head_bits = 4}}};

/// Loads engines on a pool of its own. The instruction set is the one of the environment.
class CpuUnderTest {
 public:
  explicit CpuUnderTest(size_t threads, CpuEngineOptions options = {})
      : pool_(threads), options_(std::move(options)) {}

  test::EngineUnderTest get() {
    return {
        .load =
            [this](const std::shared_ptr<const model::ModelFile>& file, const model::Part& part) {
              return load_cpu_engine(file, part, pool_, options_);
            },
        .tolerance = 0};
  }

 private:
  ThreadPool pool_;
  CpuEngineOptions options_;
};

/// Runs a shared case at every precision, on the instruction set of the environment.
void check_precisions(void (*check)(const test::EngineUnderTest&), size_t threads) {
  for (const CpuEngineOptions& options : kAllOptions) {
    CAPTURE(threads, static_cast<int>(options.precision), static_cast<int>(options.kv_bits));
    CpuUnderTest cpu(threads, options);
    check(cpu.get());
  }
}

/// The same for every instruction set of this machine.
void check_everywhere(void (*check)(const test::EngineUnderTest&), size_t threads) {
  for (const kernels::KernelTable* table : kernels::available_kernels()) {
    CAPTURE(table->name);
    const test::ScopedVariable isa("ISTHMUS_CPU_ISA", table->name);
    check_precisions(check, threads);
  }
}

TEST_CASE("a prompt gives the same bits whole and in chunks", "[engine][cpu]") {
  check_everywhere(test::check_chunks_equal_whole, GENERATE(1, 2, 3));
}

TEST_CASE("a sequence gives the same bits alone and in a ragged batch", "[engine][cpu]") {
  check_everywhere(test::check_batch_equals_alone, GENERATE(1, 2, 3));
}

TEST_CASE("front, back and tail give the bits of the whole for every cut", "[engine][cpu]") {
  // Thousands of engines: other instruction sets give the same bits, as other tests say.
  check_precisions(test::check_cuts_equal_whole, GENERATE(1, 2));
}

TEST_CASE("the rows asked for come back", "[engine][cpu]") {
  check_everywhere(test::check_row_selection, 2);
}

TEST_CASE("a truncated cache gives the same bits again", "[engine][cpu]") {
  check_everywhere(test::check_truncate, 2);
}

TEST_CASE("requests that make no sense are refused and change nothing", "[engine][cpu]") {
  CpuUnderTest cpu(2);
  test::check_invalid_arguments(cpu.get());
}

TEST_CASE("rows that are not finite are refused and change nothing", "[engine][cpu]") {
  CpuUnderTest cpu(2);
  test::check_not_finite(cpu.get());
}

TEST_CASE("a full cache is an error and changes nothing", "[engine][cpu]") {
  CpuUnderTest cpu(2);
  test::check_context_full(cpu.get());
}

TEST_CASE("missing and misshapen tensors are named", "[engine][cpu]") {
  CpuUnderTest cpu(2);
  test::check_bad_tensors(cpu.get());
}

TEST_CASE("adapters change the weights that are computed with", "[engine][cpu][adapters]") {
  for (const Precision precision : {Precision::kExact, Precision::kFine, Precision::kFast}) {
    CpuUnderTest cpu(2, {.precision = precision});
    test::check_adapters(cpu.get());
  }
}

TEST_CASE("four bits are not enough for an adapted matrix", "[engine][cpu][adapters]") {
  const auto model = std::make_shared<test::TinyModel>(test::tiny_configs().front().config);
  const std::string name = model::layer_matrix(1, "ffn_gate");
  const model::Tensor& tensor = *test::value_of(model->find(name));
  auto adapters = std::make_shared<model::Adapters>();
  (*adapters)[name] = {Matrix(1, tensor.cols()), Matrix(tensor.rows(), 1)};
  const auto adapted = test::value_of(model::adapt(model, adapters));
  ThreadPool pool(1);
  const auto bytes = [&](const std::shared_ptr<const model::ModelFile>& file, int32_t bits) {
    const auto engine = test::value_of(load_cpu_engine(file, {.layers = {{1, 2}}}, pool,
                                                       {.weights = {.ranges = {{{0, 4}, bits}}}}));
    return engine->info().weight_bytes;
  };
  CHECK(bytes(adapted, 4) > bytes(model, 4));
  CHECK(bytes(adapted, 4) < bytes(model, 8));
  CHECK(bytes(adapted, 8) == bytes(model, 8));
}

TEST_CASE("tiny models agree with Hugging Face transformers", "[engine][cpu][golden]") {
  CpuUnderTest cpu(2, kExact);
  test::check_golden(cpu.get(), ISTHMUS_TEST_DATA "/engine", 1e-4);
}

TEST_CASE("tiny models in bytes stay near Hugging Face transformers", "[engine][cpu][golden]") {
  // Rounding costs a few hundredths of the range of the logits: these models are narrow.
  CpuUnderTest cpu(2, {.precision = Precision::kFast});
  test::check_golden(cpu.get(), ISTHMUS_TEST_DATA "/engine", 0.1);
}

TEST_CASE("instruction sets and thread counts leave no trace in the bits", "[engine][cpu]") {
  const CpuEngineOptions options = GENERATE(from_range(kAllOptions));
  for (const auto& [name, config] : test::tiny_configs()) {
    const auto model = std::make_shared<const test::TinyModel>(config);
    std::vector<Matrix> expected;
    for (const kernels::KernelTable* table : kernels::available_kernels()) {
      for (const size_t threads : {size_t{1}, size_t{2}, size_t{3}, size_t{8}}) {
        CAPTURE(name, table->name, threads);
        const test::ScopedVariable isa("ISTHMUS_CPU_ISA", table->name);
        CpuUnderTest cpu(threads, options);
        const auto engine = test::value_of(cpu.get().load(model, test::whole_model(config)));
        std::vector<Matrix> actual;
        for (const auto& sequence : test::mixed_sequences(config)) {
          actual.push_back(test::run_alone(*engine, sequence));
        }
        if (expected.empty()) expected = actual;
        for (size_t i = 0; i < expected.size(); ++i) {
          test::check_close(actual[i], expected[i], /*tolerance=*/0);
        }
      }
    }
  }
}

TEST_CASE("a prompt longer than one pass gives the bits of its chunks", "[engine][cpu]") {
  const auto config = test::tiny_configs().front().config;
  const auto model = std::make_shared<const test::TinyModel>(config);
  CpuUnderTest cpu(2);
  const auto engine = test::value_of(cpu.get().load(model, test::whole_model(config)));
  const auto tokens = test::tiny_tokens(600, config.vocab_size);
  std::vector<Matrix> lasts;
  for (const size_t chunk : {size_t{600}, size_t{7}}) {
    const auto cache = test::value_of(engine->make_cache({0, config.layer_count}, 600));
    Matrix last;
    for (size_t first = 0; first < tokens.size(); first += chunk) {
      const size_t count = std::min(chunk, tokens.size() - first);
      const Slice slice{.cache = cache.get(),
                        .tokens = std::span(tokens).subspan(first, count),
                        .output = Output::kLogits,
                        .rows = Rows::kLast};
      last = std::move(test::value_of(engine->forward({&slice, 1})).front());
    }
    lasts.push_back(std::move(last));
  }
  test::check_close(lasts[1], lasts[0], /*tolerance=*/0);
}

TEST_CASE("both orders of rotated pairs are the same model with its rows reordered",
          "[engine][cpu]") {
  // A head whose only pair is (0, 1) is the same in both orders.
  auto config = test::tiny_configs().front().config;
  config.head_size = 2;
  config.rope_global = {1};
  std::vector<Matrix> results;
  for (const auto pairs : {model::RopePairs::kAdjacent, model::RopePairs::kHalfApart}) {
    config.rope_pairs = pairs;
    const auto model = std::make_shared<const test::TinyModel>(config);
    CpuUnderTest cpu(1);
    const auto engine = test::value_of(cpu.get().load(model, test::whole_model(config)));
    results.push_back(test::run_alone(*engine, test::mixed_sequences(config).front()));
  }
  test::check_close(results[1], results[0], /*tolerance=*/0);
}

TEST_CASE("loading reports progress up to 1 and what the engine is", "[engine][cpu]") {
  const auto config = test::tiny_configs().front().config;
  const auto model = std::make_shared<const test::TinyModel>(config);
  ThreadPool pool(2);
  model::Part part;
  part.layers = {{1, 3}};
  part.head = true;
  std::vector<double> seen;
  const auto engine = test::value_of(
      load_cpu_engine(model, part, pool, {}, [&](double fraction) { seen.push_back(fraction); }));
  CHECK(std::is_sorted(seen.begin(), seen.end()));
  REQUIRE_FALSE(seen.empty());
  CHECK(seen.back() == 1);
  CHECK(engine->info().device == "cpu");
  CHECK(engine->info().precision == "fine");
  CHECK(engine->info().weight_bytes > 0);
  const auto exact = test::value_of(load_cpu_engine(model, part, pool, kExact));
  CHECK(exact->info().precision == "exact");
  CHECK(exact->info().kv_bytes_per_token_and_layer > engine->info().kv_bytes_per_token_and_layer);
  CHECK(engine->batch_invariant());
  CHECK(engine->part().layers == part.layers);
}

TEST_CASE("a number that is not finite in a norm is named at load", "[engine][cpu]") {
  const auto config = test::tiny_configs().front().config;
  for (const CpuEngineOptions& options : kAllOptions) {
    auto model = std::make_shared<test::TinyModel>(config);
    model->set("blk.1.attn_norm.weight", 5, NAN);
    ThreadPool pool(2);
    const auto loaded = load_cpu_engine(model, test::whole_model(config), pool, options);
    CHECK_FAILS_WITH(loaded, ErrorCode::kNotFinite);
    CHECK(loaded.error().message.find("blk.1.attn_norm.weight") != std::string::npos);
  }
}

TEST_CASE("a cache outlives its engine without being taken for another's", "[engine][cpu]") {
  const auto config = test::tiny_configs().front().config;
  const auto model = std::make_shared<const test::TinyModel>(config);
  CpuUnderTest cpu(1);
  std::unique_ptr<KvCache> cache;
  for (int i = 0; i < 20; ++i) {  // an allocator likes to give the same address again
    const auto engine = test::value_of(cpu.get().load(model, test::whole_model(config)));
    const auto tokens = test::tiny_tokens(1, config.vocab_size);
    const Slice slice{.cache = cache.get(), .tokens = tokens, .rows = Rows::kNone};
    if (cache) CHECK_FAILS_WITH(engine->forward({&slice, 1}), ErrorCode::kInvalidArgument);
    cache = test::value_of(engine->make_cache({0, config.layer_count}, 8));
  }
}

TEST_CASE("a policy rounds the layers it names", "[engine][cpu]") {
  const auto config = test::tiny_configs().front().config;
  const auto model = std::make_shared<const test::TinyModel>(config);
  ThreadPool pool(1);
  const auto bytes = [&](const WeightPolicy& policy) {
    return test::value_of(
               load_cpu_engine(model, test::whole_model(config), pool, {.weights = policy}))
        ->info()
        .weight_bytes;
  };
  const auto eight = bytes({});
  const auto front = bytes({.ranges = {{{0, 2}, 4}}});
  const auto layers = bytes({.ranges = {{{0, config.layer_count}, 4}}});
  const auto all = bytes({.ranges = {{{0, config.layer_count}, 4}}, .head_bits = 4});
  CHECK(front < eight);
  CHECK(eight - layers == (eight - front) * static_cast<uint64_t>(config.layer_count) / 2);
  CHECK(all < layers);
  CHECK(WeightPolicy{.ranges = {{{0, 4}, 8}, {{1, 2}, 4}}}.bits(1) == 4);
  CHECK(WeightPolicy{.ranges = {{{0, 4}, 4}}}.bits(4) == 8);
  for (const int32_t bits : {0, 3, 16, -4}) {
    CHECK_FAILS_WITH(WeightPolicy{.head_bits = bits}.validate(), ErrorCode::kInvalidArgument);
    CHECK_FAILS_WITH(load_cpu_engine(model, test::whole_model(config), pool,
                                     {.weights = {.ranges = {{{0, 1}, bits}}}}),
                     ErrorCode::kInvalidArgument);
  }
}

TEST_CASE("an unknown instruction set is an error at load", "[engine][cpu]") {
  const test::ScopedVariable isa("ISTHMUS_CPU_ISA", "sse9");
  const auto config = test::tiny_configs().front().config;
  ThreadPool pool(1);
  CHECK_FAILS_WITH(load_cpu_engine(std::make_shared<const test::TinyModel>(config),
                                   test::whole_model(config), pool),
                   ErrorCode::kUnsupported);
}

/// Bytes of this process that are in memory.
size_t resident_bytes() {
  std::ifstream statm("/proc/self/statm");
  size_t total_pages = 0;
  size_t resident_pages = 0;
  statm >> total_pages >> resident_pages;
  return resident_pages * static_cast<size_t>(sysconf(_SC_PAGESIZE));
}

TEST_CASE("a cache takes memory as it grows, not when it is made", "[engine][cpu]") {
  const auto config = test::tiny_configs().front().config;
  const auto model = std::make_shared<const test::TinyModel>(config);
  CpuUnderTest cpu(1);
  const auto engine = test::value_of(cpu.get().load(model, test::whole_model(config)));
  const auto layer_bytes = engine->info().kv_bytes_per_token_and_layer;
  const auto positions = static_cast<int32_t>((1 << 30) / (4 * layer_bytes));  // in positions
  const size_t before = resident_bytes();
  const auto cache = test::value_of(engine->make_cache({0, 4}, positions));
  const auto tokens = test::tiny_tokens(20, config.vocab_size);
  const Slice slice{.cache = cache.get(), .tokens = tokens, .rows = Rows::kNone};
  test::value_of(engine->forward({&slice, 1}));
  CHECK(cache->capacity() == positions);
  CHECK(resident_bytes() - before < (1 << 26));
}

TEST_CASE("a cache that fits no address space is out of memory", "[engine][cpu]") {
  auto config = test::tiny_configs().front().config;
  config.head_size = 1 << 11;
  config.rope_global.resize(1 << 10);
  const auto model = std::make_shared<const test::TinyModel>(config);
  CpuUnderTest cpu(1);
  const auto engine = test::value_of(cpu.get().load(model, test::whole_model(config)));
  // 4 layers * 2 * 4,096 halves * 2^31 positions are 2^47 bytes, all that a process can address.
  CHECK_FAILS_WITH(engine->make_cache({0, 4}, INT32_MAX), ErrorCode::kOutOfMemory);
}

TEST_CASE("a soft cap near zero makes attention uniform, a huge one changes nothing",
          "[engine][cpu]") {
  const auto logits = [](float scale, float cap) {
    auto config = test::tiny_configs().front().config;
    config.attention_scale = scale;
    config.attention_softcap = cap;
    const auto model = std::make_shared<const test::TinyModel>(config);
    CpuUnderTest cpu(1, kExact);
    const auto engine = test::value_of(cpu.get().load(model, test::whole_model(config)));
    return test::run_alone(*engine, test::mixed_sequences(config).front());
  };
  test::check_close(logits(0.2F, 1e-5F), logits(0, 0), /*tolerance=*/1e-4);
  test::check_close(logits(0.2F, 1e4F), logits(0.2F, 0), /*tolerance=*/1e-4);
}

}  // namespace
}  // namespace isthmus::engine
