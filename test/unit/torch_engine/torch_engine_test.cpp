// The cases that every engine passes, on libtorch. libtorch orders sums as it likes, so rows agree
// to rounding where CpuEngine's agree to the bit.
#include <isthmus/core/thread_pool.h>
#include <isthmus/engine/cpu_engine.h>
#include <isthmus/torch_engine/torch_engine.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "support/catch.h"
#include "support/engine_cases.h"
#include "support/tiny_model.h"

namespace isthmus::torch_engine {
namespace {

constexpr double kFloatTolerance = 1e-5;   // of the range of a result
constexpr double kGoldenTolerance = 1e-4;  // the one that CpuEngine keeps as well

test::EngineUnderTest torch_under_test(const TorchOptions& options, double tolerance) {
  return {
      .load = [options](const std::shared_ptr<const model::ModelFile>& file,
                        const model::Part& part) { return load_torch_engine(file, part, options); },
      .tolerance = tolerance};
}

test::EngineUnderTest on_cpu() {
  // One thread: the products are tiny, and libtorch's threads spin while they wait for each other.
  return torch_under_test({.threads = 1}, kFloatTolerance);
}

std::shared_ptr<const test::TinyModel> tiny_model() {
  return std::make_shared<const test::TinyModel>(test::tiny_configs().front().config);
}

bool all_finite(const Matrix& rows) {
  return std::all_of(rows.data(), rows.data() + rows.rows() * rows.cols(),
                     [](float x) { return std::isfinite(x); });
}

/// Whether this machine has a CUDA device that libtorch can use; says so when it has none.
bool has_cuda() {
  const auto model = tiny_model();
  const auto loaded =
      load_torch_engine(model, test::whole_model(model->config()), {.device = "cuda"});
  if (loaded || loaded.error().code != ErrorCode::kNoDevice) return true;
  WARN("no device: " << loaded.error().message);
  return false;
}

}  // namespace

TEST_CASE("libtorch gives the same rows for a prompt whole and in chunks", "[torch]") {
  test::check_chunks_equal_whole(on_cpu());
}

TEST_CASE("libtorch gives the same rows alone and in a ragged batch", "[torch]") {
  test::check_batch_equals_alone(on_cpu());
}

TEST_CASE("libtorch's front, back and tail give the whole for every cut", "[torch]") {
  test::check_cuts_equal_whole(on_cpu());
}

TEST_CASE("libtorch gives back the rows asked for", "[torch]") {
  test::check_row_selection(on_cpu());
}

TEST_CASE("libtorch goes on from a truncated cache", "[torch]") {
  test::check_truncate(on_cpu());
}

TEST_CASE("libtorch refuses requests that make no sense and changes nothing", "[torch]") {
  test::check_invalid_arguments(on_cpu());
}

TEST_CASE("libtorch refuses rows that are not finite and changes nothing", "[torch]") {
  test::check_not_finite(on_cpu());
}

TEST_CASE("libtorch reports a full cache and changes nothing", "[torch]") {
  test::check_context_full(on_cpu());
}

TEST_CASE("libtorch's loader names missing and misshapen tensors", "[torch]") {
  test::check_bad_tensors(on_cpu());
}

TEST_CASE("libtorch computes with adapters", "[torch][adapters]") {
  test::check_adapters(on_cpu());
}

TEST_CASE("libtorch agrees with Hugging Face transformers on tiny models", "[torch][golden]") {
  test::check_golden(on_cpu(), ISTHMUS_TEST_DATA "/engine", kGoldenTolerance);
}

TEST_CASE("bf16 and fp16 agree with float to their precision", "[torch]") {
  // A few roundings a layer, each of 2^-9 or 2^-12 of a number.
  const auto [precision, tolerance] =
      GENERATE(table<std::string, double>({{"bf16", 0.03}, {"fp16", 0.004}}));
  for (const auto& [name, config] : test::tiny_configs()) {
    CAPTURE(precision, name);
    const auto model = std::make_shared<const test::TinyModel>(config);
    const auto part = test::whole_model(config);
    const auto exact = test::value_of(load_torch_engine(model, part, {.threads = 1}));
    const auto rounded = test::value_of(load_torch_engine(model, part, {.precision = precision}));
    CHECK(rounded->info().precision == precision);
    const auto sequence = test::mixed_sequences(config).front();
    test::check_close(test::run_alone(*rounded, sequence), test::run_alone(*exact, sequence),
                      tolerance);
  }
}

TEST_CASE("a result that overflows fp16 comes back as it is, and fits bf16", "[torch]") {
  auto config = test::tiny_configs().front().config;
  config.norm_weight_offset = 1e5;  // behind a norm, numbers are of this size
  const auto model = std::make_shared<const test::TinyModel>(config);
  const auto sequence = test::mixed_sequences(config).front();
  const auto fits = [&](const char* precision) {
    const auto engine = test::value_of(
        load_torch_engine(model, test::whole_model(config), {.precision = precision}));
    const auto cache = test::value_of(engine->make_cache(sequence.layers, 64));
    const auto slice = sequence.slice(*cache, 0, sequence.size());
    const auto result = test::value_of(engine->forward({&slice, 1}));
    CHECK(cache->length() == static_cast<int32_t>(sequence.size()));
    return all_finite(result.front());
  };
  CHECK_FALSE(fits("fp16"));
  CHECK(fits("bf16"));
}

TEST_CASE("a sequence that overflows fp16 leaves the others of its batch", "[torch]") {
  const model::ModelConfig config = test::tiny_configs().front().config;
  const auto model = std::make_shared<test::TinyModel>(config);
  constexpr int32_t kExtreme = 3;
  model->set("token_embd.weight", kExtreme * static_cast<size_t>(config.hidden_size), 1e6F);
  const auto engine = test::value_of(
      load_torch_engine(model, test::whole_model(config), {.precision = "fp16", .threads = 1}));
  const auto make_sequence = [&](std::vector<int32_t> tokens) {
    return test::Sequence{{0, config.layer_count}, std::move(tokens), {}, engine::Output::kLogits};
  };
  const test::Sequence bad = make_sequence({kExtreme, 1});
  const test::Sequence good = make_sequence({1, 2});
  const auto bad_cache = test::value_of(engine->make_cache(bad.layers, 8));
  const auto good_cache = test::value_of(engine->make_cache(good.layers, 8));
  const std::vector<engine::Slice> batch = {bad.slice(*bad_cache, 0, 2),
                                            good.slice(*good_cache, 0, 2)};
  const std::vector<Matrix> rows = test::value_of(engine->forward(batch));
  CHECK_FALSE(all_finite(rows[0]));
  test::check_close(rows[1], test::run_alone(*engine, good), 0.004);
}

TEST_CASE("a cache that outgrows its first room keeps what it holds", "[torch]") {
  const auto model = tiny_model();
  const model::ModelConfig& config = model->config();
  const auto engine = test::value_of(load_torch_engine(model, test::whole_model(config)));
  const auto tokens = test::tiny_tokens(700, config.vocab_size);
  std::vector<Matrix> lasts;
  for (const size_t chunk : {size_t{700}, size_t{90}}) {
    const auto cache = test::value_of(engine->make_cache({0, config.layer_count}, 700));
    Matrix last;
    for (size_t first = 0; first < tokens.size(); first += chunk) {
      const engine::Slice slice{
          .cache = cache.get(),
          .tokens = std::span(tokens).subspan(first, std::min(chunk, tokens.size() - first)),
          .output = engine::Output::kLogits,
          .rows = engine::Rows::kLast};
      last = std::move(test::value_of(engine->forward({&slice, 1})).front());
    }
    lasts.push_back(std::move(last));
  }
  test::check_close(lasts[1], lasts[0], kFloatTolerance);
}

TEST_CASE("a libtorch engine reports progress and says what it is", "[torch]") {
  const auto model = tiny_model();
  model::Part part;
  part.layers = {{1, 3}};
  part.head = true;
  std::vector<double> seen;
  const auto engine = test::value_of(load_torch_engine(
      model, part, {.threads = 2}, [&](double fraction) { seen.push_back(fraction); }));
  CHECK(std::is_sorted(seen.begin(), seen.end()));
  REQUIRE_FALSE(seen.empty());
  CHECK(seen.back() == 1);
  CHECK(engine->info().device == "cpu");
  CHECK(engine->info().precision == "fp32");
  CHECK_FALSE(engine->batch_invariant());
  CHECK(engine->part().layers == part.layers);
}

TEST_CASE("a libtorch engine says what weights and positions take", "[torch]") {
  const auto [precision, element] =
      GENERATE(table<std::string, size_t>({{"fp32", 4}, {"bf16", 2}, {"fp16", 2}}));
  for (const auto& [name, config] : test::tiny_configs()) {
    CAPTURE(precision, name);
    const auto model = std::make_shared<const test::TinyModel>(config);
    const auto engine = test::value_of(
        load_torch_engine(model, test::whole_model(config), {.precision = precision}));
    const auto heads = static_cast<size_t>(config.kv_head_count * config.head_size);
    CHECK(engine->info().kv_bytes_per_token_and_layer == 2 * heads * element);
    uint64_t bytes = 0;
    for (const model::Tensor& tensor : model->tensors()) {
      const bool is_norm = tensor.name.find("norm") != std::string::npos;
      bytes += tensor.rows() * tensor.cols() * (is_norm ? sizeof(float) : element);
    }
    CHECK(engine->info().weight_bytes == bytes);
  }
}

TEST_CASE("unknown devices, precisions and thread counts are refused", "[torch]") {
  const auto model = tiny_model();
  const auto load = [&](const TorchOptions& options) {
    return load_torch_engine(model, test::whole_model(model->config()), options);
  };
  for (const char* device :
       {"", "gpu", "cuda:", "cuda:x", "cuda:-1", "cuda:1x", "cuda:9999999999"}) {
    CAPTURE(device);
    CHECK_FAILS_WITH(load({.device = device}), ErrorCode::kInvalidArgument);
  }
  CHECK_FAILS_WITH(load({.precision = "int4"}), ErrorCode::kInvalidArgument);
  CHECK_FAILS_WITH(load({.threads = -1}), ErrorCode::kInvalidArgument);
}

TEST_CASE("a CUDA device that is not there is one clear error", "[torch]") {
  const auto model = tiny_model();
  const auto loaded =
      load_torch_engine(model, test::whole_model(model->config()), {.device = "cuda:99"});
  REQUIRE_FALSE(loaded.has_value());
  CHECK(loaded.error().code == ErrorCode::kNoDevice);
  CHECK(loaded.error().message.starts_with("torch: no device 'cuda:99': "));
  CHECK(loaded.error().message.find('\n') == std::string::npos);
}

#ifdef ISTHMUS_TEST_MODEL
TEST_CASE("libtorch agrees with CpuEngine on SmolLM2", "[torch][model]") {
  const auto file = test::value_of(model::ModelFile::open(ISTHMUS_TEST_MODEL));
  const model::ModelConfig& config = file->config();
  const test::Sequence sequence{{0, config.layer_count},
                                test::tiny_tokens(40, config.vocab_size),
                                {},
                                engine::Output::kLogits};
  const auto forward = [&](engine::Engine& engine) {
    const auto cache = test::value_of(engine.make_cache(sequence.layers, 40));
    const auto slice = sequence.slice(*cache, 0, sequence.size());
    return std::move(test::value_of(engine.forward({&slice, 1})).front());
  };
  ThreadPool pool;
  const auto part = test::whole_model(config);
  const auto cpu = test::value_of(
      engine::load_cpu_engine(file, part, pool, {.precision = engine::Precision::kExact}));
  const auto torch = test::value_of(load_torch_engine(file, part));
  test::check_close(forward(*torch), forward(*cpu), kFloatTolerance);
}
#endif

// The same on a device, as a CTest entry of its own ("torch_engine_cuda"): hidden from the run
// above.

TEST_CASE("a CUDA device gives the rows that it should in float", "[.cuda]") {
  if (!has_cuda()) return;
  const auto cuda = torch_under_test({.device = "cuda", .precision = "fp32"}, 1e-4);
  test::check_chunks_equal_whole(cuda);
  test::check_batch_equals_alone(cuda);
  test::check_cuts_equal_whole(cuda);
  test::check_row_selection(cuda);
  test::check_truncate(cuda);
  test::check_invalid_arguments(cuda);
  test::check_not_finite(cuda);
  test::check_context_full(cuda);
  test::check_bad_tensors(cuda);
  test::check_golden(cuda, ISTHMUS_TEST_DATA "/engine", 2e-4);
}

TEST_CASE("a CUDA device in bf16 and fp16 agrees with float to its precision", "[.cuda]") {
  if (!has_cuda()) return;
  const auto [precision, tolerance] =
      GENERATE(table<std::string, double>({{"bf16", 0.03}, {"fp16", 0.004}}));
  for (const auto& [name, config] : test::tiny_configs()) {
    CAPTURE(precision, name);
    const auto model = std::make_shared<const test::TinyModel>(config);
    const auto part = test::whole_model(config);
    const auto exact = test::value_of(load_torch_engine(model, part));
    const auto device =
        test::value_of(load_torch_engine(model, part, {.device = "cuda", .precision = precision}));
    CHECK(device->info().device == "cuda:0");
    const auto sequence = test::mixed_sequences(config).front();
    test::check_close(test::run_alone(*device, sequence), test::run_alone(*exact, sequence),
                      tolerance);
  }
}

}  // namespace isthmus::torch_engine
