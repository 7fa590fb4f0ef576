// SmolLM2-135M-Instruct against Hugging Face transformers in fp32 (tools/refgen/models.py), and its
// cuts against itself.
#include <isthmus/core/thread_pool.h>
#include <isthmus/engine/cpu_engine.h>
#include <isthmus/engine/sampler.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "support/catch.h"
#include "support/engine_cases.h"
#include "support/tiny_model.h"

namespace isthmus::engine {
namespace {

struct Case {
  std::vector<int32_t> ids;
  std::vector<int32_t> greedy;
  std::vector<int32_t> top;   // the ten likeliest next ids
  std::vector<float> logits;  // of every stride-th next id
};

struct Golden {
  size_t logit_stride = 0;
  std::vector<Case> cases;
};

std::string read_file(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::string bytes((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  REQUIRE(!bytes.empty());
  return bytes;
}

Golden read_golden() {
  const std::string stem = ISTHMUS_TEST_DATA "/engine/smollm2";
  const auto json = nlohmann::json::parse(read_file(stem + ".json"));
  const std::string floats = read_file(stem + ".f32");
  Golden golden;
  golden.logit_stride = json.at("logit_stride");
  const size_t bytes_per_case = floats.size() / json.at("cases").size();
  for (const auto& entry : json.at("cases")) {
    Case c{entry.at("ids"), entry.at("greedy"), entry.at("top"), {}};
    c.logits.resize(bytes_per_case / sizeof(float));
    std::memcpy(c.logits.data(), floats.data() + golden.cases.size() * bytes_per_case,
                bytes_per_case);
    golden.cases.push_back(std::move(c));
  }
  return golden;
}

/// The engine, loaded once for all tests of this binary.
Engine& engine() {
  static ThreadPool pool;
  static const auto file = test::value_of(model::ModelFile::open(ISTHMUS_TEST_MODEL));
  static const auto engine = test::value_of(load_cpu_engine(
      file, test::whole_model(file->config()), pool, {.precision = Precision::kExact}));
  return *engine;
}

Matrix last_logits(KvCache& cache, std::span<const int32_t> tokens) {
  const Slice slice{
      .cache = &cache, .tokens = tokens, .output = Output::kLogits, .rows = Rows::kLast};
  return std::move(test::value_of(engine().forward({&slice, 1})).front());
}

std::vector<int32_t> likeliest(std::span<const float> logits, size_t count) {
  std::vector<int32_t> ids(logits.size());
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<int32_t>(i);
  std::partial_sort(ids.begin(), ids.begin() + static_cast<std::ptrdiff_t>(count), ids.end(),
                    [&](int32_t a, int32_t b) {
                      return logits[static_cast<size_t>(a)] > logits[static_cast<size_t>(b)];
                    });
  ids.resize(count);
  return ids;
}

TEST_CASE("SmolLM2's logits and greedy replies are those of transformers", "[engine][model]") {
  const Golden golden = read_golden();
  REQUIRE(golden.cases.size() == 8);
  double worst = 0;
  for (const Case& c : golden.cases) {
    CAPTURE(c.ids);
    const auto cache = test::value_of(engine().make_cache({0, engine().config().layer_count}, 256));
    Matrix logits = last_logits(*cache, c.ids);
    REQUIRE(logits.cols() > (c.logits.size() - 1) * golden.logit_stride);
    for (size_t i = 0; i < c.logits.size(); ++i) {
      const double difference = logits.row(0)[i * golden.logit_stride] - c.logits[i];
      worst = std::max(worst, std::abs(difference));
    }
    CHECK(likeliest(logits.row(0), c.top.size()) == c.top);
    std::vector<int32_t> reply;
    while (reply.size() < c.greedy.size()) {
      reply.push_back(test::value_of(sample(logits.row(0), {}, {}, cache->length())));
      logits = last_logits(*cache, {&reply.back(), 1});
    }
    CHECK(reply == c.greedy);
  }
  CAPTURE(worst);
  CHECK(worst < 1e-3);
}

/// Squared error of an engine's logits behind each golden prompt, relative to their size.
std::vector<double> logit_errors(Engine& engine) {
  const Golden golden = read_golden();
  std::vector<double> errors;
  for (const Case& c : golden.cases) {
    const auto cache = test::value_of(engine.make_cache({0, engine.config().layer_count}, 256));
    const Slice slice{
        .cache = cache.get(), .tokens = c.ids, .output = Output::kLogits, .rows = Rows::kLast};
    const auto logits = std::move(test::value_of(engine.forward({&slice, 1})).front());
    double squares = 0;
    double error = 0;
    for (size_t i = 0; i < c.logits.size(); ++i) {
      const double expected = c.logits[i];
      const double difference = logits.row(0)[i * golden.logit_stride] - expected;
      squares += expected * expected;
      error += difference * difference;
    }
    errors.push_back(error / squares);
  }
  return errors;
}

TEST_CASE("SmolLM2's packed weights take no more memory than its file, and keep its logits",
          "[engine][model]") {
  ThreadPool pool;
  const auto file = test::value_of(model::ModelFile::open(ISTHMUS_TEST_MODEL));
  size_t stored = 0;
  for (const model::Tensor& tensor : file->tensors()) stored += tensor.data.size();
  const auto check = [&](Precision precision, double bound) {
    const auto engine = test::value_of(
        load_cpu_engine(file, test::whole_model(file->config()), pool, {.precision = precision}));
    CAPTURE(engine->info().precision);
    CHECK(static_cast<double>(engine->info().weight_bytes) < 1.01 * static_cast<double>(stored));
    for (const double error : logit_errors(*engine)) CHECK(error < bound);
  };
  check(Precision::kFine, 1e-4);
  check(Precision::kFast, 5e-2);  // one byte of an activation is little for this model
}

TEST_CASE("SmolLM2 cut anywhere gives the bits of the whole", "[engine][model]") {
  const Case c = read_golden().cases.front();
  const int32_t layers = engine().config().layer_count;
  const auto whole = test::value_of(engine().make_cache({0, layers}, 64));
  const Matrix expected = last_logits(*whole, c.ids);
  for (int32_t cut = 0; cut <= layers; ++cut) {
    for (const int32_t tail : {cut, std::max(cut, layers - 2), layers}) {
      CAPTURE(cut, tail);
      const auto front = test::value_of(engine().make_cache({0, cut}, 64));
      const auto back = test::value_of(engine().make_cache({cut, tail}, 64));
      const auto end = test::value_of(engine().make_cache({tail, layers}, 64));
      const Slice first{.cache = front.get(), .tokens = c.ids};
      const auto boundary = test::value_of(engine().forward({&first, 1}));
      Slice second{.cache = back.get()};
      second.hidden = boundary.front().view();
      const auto returned = test::value_of(engine().forward({&second, 1}));
      Slice third{.cache = end.get(), .output = Output::kLogits, .rows = Rows::kLast};
      third.hidden = returned.front().view();
      const auto logits = test::value_of(engine().forward({&third, 1}));
      test::check_close(logits.front(), expected, /*tolerance=*/0);
    }
  }
}

}  // namespace
}  // namespace isthmus::engine
