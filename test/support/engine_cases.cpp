#include "support/engine_cases.h"

#include <isthmus/core/random.h>
#include <isthmus/model/adapters.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <fstream>
#include <iterator>
#include <limits>
#include <string>
#include <utility>

#include "support/catch.h"
#include "support/temp_folder.h"
#include "support/tiny_model.h"

namespace isthmus::test {
namespace {

using engine::Engine;
using engine::KvCache;
using engine::LayerWindow;
using engine::Output;
using engine::Rows;
using engine::Slice;

constexpr int32_t kCapacity = 32;
constexpr size_t kTokens = 13;  // longer than the windows of tiny_configs()

struct TinyEngine {
  std::shared_ptr<const TinyModel> model;
  std::unique_ptr<Engine> engine;

  [[nodiscard]] const model::ModelConfig& config() const { return model->config(); }
};

TinyEngine load_whole(const EngineUnderTest& test, const model::ModelConfig& config) {
  TinyEngine tiny;
  tiny.model = std::make_shared<const TinyModel>(config);
  tiny.engine = value_of(test.load(tiny.model, whole_model(config)));
  return tiny;
}

std::unique_ptr<KvCache> new_cache(Engine& engine, LayerWindow layers) {
  return value_of(engine.make_cache(layers, kCapacity));
}

LayerWindow all_layers(const model::ModelConfig& config) {
  return {0, config.layer_count};
}

/// Hidden rows as they might come over a wire.
Matrix hidden_rows(uint64_t seed, size_t rows, size_t cols) {
  Matrix hidden(rows, cols);
  for (size_t i = 0; i < rows * cols; ++i) {
    hidden.data()[i] = static_cast<float>(4 * counter_uniform(seed, i) - 2);
  }
  return hidden;
}

Matrix run(Engine& engine, const Slice& slice) {
  return std::move(value_of(engine.forward({&slice, 1})).front());
}

/// Copies `rows` behind the first `filled` rows of `all`.
void append_rows(Matrix& all, size_t& filled, const Matrix& rows) {
  REQUIRE(rows.cols() == all.cols());
  REQUIRE(filled + rows.rows() <= all.rows());
  std::copy_n(rows.data(), rows.rows() * rows.cols(), all.row(filled).data());
  filled += rows.rows();
}

size_t output_width(const Engine& engine, Output output) {
  const auto& config = engine.config();
  return static_cast<size_t>(output == Output::kLogits ? config.vocab_size : config.hidden_size);
}

/// All rows of a sequence, in chunks whose sizes `next_chunk` gives.
template <typename NextChunk>
Matrix run_chunks(Engine& engine, const Sequence& sequence, NextChunk next_chunk) {
  const auto cache = new_cache(engine, sequence.layers);
  Matrix all(sequence.size(), output_width(engine, sequence.output));
  size_t filled = 0;
  while (filled < sequence.size()) {
    const size_t count = std::min<size_t>(next_chunk(), sequence.size() - filled);
    append_rows(all, filled, run(engine, sequence.slice(*cache, filled, count)));
  }
  REQUIRE(cache->length() == static_cast<int32_t>(sequence.size()));
  return all;
}

/// All sequences together, each step taking up to six tokens of each, some none.
std::vector<Matrix> run_together(Engine& engine, const std::vector<Sequence>& sequences,
                                 uint64_t seed) {
  std::vector<std::unique_ptr<KvCache>> caches;
  std::vector<Matrix> all;
  std::vector<size_t> filled(sequences.size());
  for (const Sequence& sequence : sequences) {
    caches.push_back(new_cache(engine, sequence.layers));
    all.emplace_back(sequence.size(), output_width(engine, sequence.output));
  }
  uint64_t draws = 0;
  while (true) {
    std::vector<Slice> slices;
    std::vector<size_t> owners;
    bool done = true;
    for (size_t s = 0; s < sequences.size(); ++s) {
      const size_t left = sequences[s].size() - filled[s];
      done = done && left == 0;
      const auto wanted = static_cast<size_t>(counter_uniform(seed, draws++) * 7);
      const size_t count = std::min(wanted, left);
      if (count == 0) continue;
      slices.push_back(sequences[s].slice(*caches[s], filled[s], count));
      owners.push_back(s);
    }
    if (done) return all;
    const auto results = value_of(engine.forward(slices));
    REQUIRE(results.size() == slices.size());
    for (size_t i = 0; i < results.size(); ++i) {
      append_rows(all[owners[i]], filled[owners[i]], results[i]);
    }
  }
}

/// The whole model cut in three, each part in its own engine.
class SplitModel {
 public:
  SplitModel(const EngineUnderTest& test, const std::shared_ptr<const TinyModel>& model,
             int32_t cut, int32_t tail) {
    const int32_t layers = model->config().layer_count;
    add(test, model, {0, cut}, /*embedding=*/true, /*head=*/false);
    add(test, model, {cut, tail}, /*embedding=*/false, /*head=*/false);
    add(test, model, {tail, layers}, /*embedding=*/false, /*head=*/true);
  }

  /// Logits of all tokens.
  Matrix step(std::span<const int32_t> tokens) {
    Slice front;
    front.cache = caches_[0].get();
    front.tokens = tokens;
    const Matrix boundary = run(*engines_[0], front);
    Slice back;
    back.cache = caches_[1].get();
    back.hidden = boundary.view();
    const Matrix returned = run(*engines_[1], back);
    Slice tail;
    tail.cache = caches_[2].get();
    tail.hidden = returned.view();
    tail.output = Output::kLogits;
    return run(*engines_[2], tail);
  }

 private:
  void add(const EngineUnderTest& test, const std::shared_ptr<const TinyModel>& model,
           LayerWindow layers, bool embedding, bool head) {
    model::Part part;
    if (layers.count() > 0) part.layers = {{layers.first, layers.end}};
    part.embedding = embedding;
    part.head = head;
    engines_.push_back(value_of(test.load(model, part)));
    caches_.push_back(new_cache(*engines_.back(), layers));
  }

  std::vector<std::unique_ptr<Engine>> engines_;
  std::vector<std::unique_ptr<KvCache>> caches_;
};

std::vector<float> read_floats(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  const std::string bytes((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  REQUIRE(!bytes.empty());
  std::vector<float> values(bytes.size() / sizeof(float));
  std::memcpy(values.data(), bytes.data(), values.size() * sizeof(float));
  return values;
}

}  // namespace

Slice Sequence::slice(KvCache& cache, size_t first, size_t count) const {
  Slice slice;
  slice.cache = &cache;
  if (tokens.empty()) {
    slice.hidden = hidden.view().middle_rows(first, count);
  } else {
    slice.tokens = std::span(tokens).subspan(first, count);
  }
  slice.output = output;
  return slice;
}

void check_close(const Matrix& actual, const Matrix& expected, double tolerance) {
  REQUIRE(actual.rows() == expected.rows());
  REQUIRE(actual.cols() == expected.cols());
  const size_t size = expected.rows() * expected.cols();
  if (size == 0) return;
  if (tolerance == 0) {
    const bool same = std::memcmp(actual.data(), expected.data(), size * sizeof(float)) == 0;
    REQUIRE(same);
    return;
  }
  const auto [low, high] = std::minmax_element(expected.data(), expected.data() + size);
  const double range = static_cast<double>(*high) - *low;
  double worst = 0;
  for (size_t i = 0; i < size; ++i) {
    const double difference = std::abs(static_cast<double>(actual.data()[i]) - expected.data()[i]);
    if (!(difference <= worst)) worst = difference;  // NaN stays
  }
  CAPTURE(worst, range);
  REQUIRE(worst <= tolerance * range);
}

std::vector<Sequence> mixed_sequences(const model::ModelConfig& config) {
  const int32_t layers = config.layer_count;
  const auto width = static_cast<size_t>(config.hidden_size);
  const auto tokens = tiny_tokens(kTokens, config.vocab_size);
  const auto hidden = [&](uint64_t seed) { return hidden_rows(seed, kTokens, width); };
  std::vector<Sequence> sequences;
  sequences.push_back({{0, layers}, tokens, {}, Output::kLogits});
  sequences.push_back({{0, 0}, tokens, {}, Output::kHidden});
  sequences.push_back({{0, 2}, {tokens.begin() + 3, tokens.end()}, {}, Output::kHidden});
  sequences.push_back({{0, layers}, {}, hidden(1), Output::kLogits});
  sequences.push_back({{1, 3}, {}, hidden(2), Output::kHidden});
  sequences.push_back({{2, layers}, {}, hidden(3), Output::kLogits});
  sequences.push_back({{2, 2}, {}, hidden(4), Output::kHidden});
  sequences.push_back({{layers, layers}, {}, hidden(5), Output::kLogits});
  sequences.push_back({{3, layers}, {}, hidden(6), Output::kHidden});
  return sequences;
}

Matrix run_alone(Engine& engine, const Sequence& sequence) {
  return run_chunks(engine, sequence, [] { return 1; });
}

void check_chunks_equal_whole(const EngineUnderTest& test) {
  for (const auto& [name, config] : tiny_configs()) {
    CAPTURE(name);
    const TinyEngine tiny = load_whole(test, config);
    const auto tokens = tiny_tokens(kTokens, config.vocab_size);
    const Sequence sequence{all_layers(config), tokens, {}, Output::kLogits};
    const Matrix expected = run_alone(*tiny.engine, sequence);
    for (size_t chunk = 2; chunk <= kTokens; ++chunk) {
      CAPTURE(chunk);
      const Matrix actual = run_chunks(*tiny.engine, sequence, [chunk] { return chunk; });
      check_close(actual, expected, test.tolerance);
    }
    for (uint64_t seed = 0; seed < 10; ++seed) {
      CAPTURE(seed);
      uint64_t draws = 0;
      const Matrix actual = run_chunks(*tiny.engine, sequence, [&] {
        return 1 + static_cast<size_t>(counter_uniform(seed, draws++) * 6);
      });
      check_close(actual, expected, test.tolerance);
    }
  }
}

void check_batch_equals_alone(const EngineUnderTest& test) {
  for (const auto& [name, config] : tiny_configs()) {
    CAPTURE(name);
    const TinyEngine tiny = load_whole(test, config);
    const auto sequences = mixed_sequences(config);
    std::vector<Matrix> expected;
    for (const Sequence& s : sequences) expected.push_back(run_alone(*tiny.engine, s));
    for (uint64_t seed = 0; seed < 10; ++seed) {
      const auto actual = run_together(*tiny.engine, sequences, seed);
      for (size_t s = 0; s < sequences.size(); ++s) {
        CAPTURE(seed, s);
        check_close(actual[s], expected[s], test.tolerance);
      }
    }
  }
}

void check_cuts_equal_whole(const EngineUnderTest& test) {
  for (const auto& [name, config] : tiny_configs()) {
    const TinyEngine tiny = load_whole(test, config);
    const auto tokens = tiny_tokens(kTokens, config.vocab_size);
    const Matrix expected =
        run_alone(*tiny.engine, {all_layers(config), tokens, {}, Output::kLogits});
    for (int32_t cut = 0; cut <= config.layer_count; ++cut) {
      for (int32_t tail = cut; tail <= config.layer_count; ++tail) {
        CAPTURE(name, cut, tail);
        SplitModel split(test, tiny.model, cut, tail);
        Matrix actual(expected.rows(), expected.cols());
        size_t filled = 0;
        for (const size_t count : {size_t{6}, size_t{4}, size_t{1}, size_t{1}, size_t{1}}) {
          append_rows(actual, filled, split.step(std::span(tokens).subspan(filled, count)));
        }
        check_close(actual, expected, test.tolerance);
      }
    }
  }
}

void check_row_selection(const EngineUnderTest& test) {
  const TinyEngine tiny = load_whole(test, tiny_configs().front().config);
  const auto tokens = tiny_tokens(kTokens, tiny.config().vocab_size);
  for (const Output output : {Output::kHidden, Output::kLogits}) {
    const Sequence sequence{all_layers(tiny.config()), tokens, {}, output};
    const Matrix expected = run_alone(*tiny.engine, sequence);
    for (const Rows rows : {Rows::kNone, Rows::kLast, Rows::kAll}) {
      const auto cache = new_cache(*tiny.engine, sequence.layers);
      Slice slice = sequence.slice(*cache, 0, kTokens);
      slice.rows = rows;
      const Matrix actual = run(*tiny.engine, slice);
      const size_t count = rows == Rows::kNone ? 0 : rows == Rows::kLast ? 1 : kTokens;
      REQUIRE(actual.rows() == count);
      REQUIRE(actual.cols() == expected.cols());
      CHECK(cache->length() == static_cast<int32_t>(kTokens));
      Matrix wanted(count, expected.cols());
      std::copy_n(expected.data() + (kTokens - count) * expected.cols(), count * expected.cols(),
                  wanted.data());
      check_close(actual, wanted, test.tolerance);
    }
  }
  CHECK(value_of(tiny.engine->forward({})).empty());
}

void check_truncate(const EngineUnderTest& test) {
  for (const auto& [name, config] : tiny_configs()) {
    CAPTURE(name);
    const TinyEngine tiny = load_whole(test, config);
    const auto tokens = tiny_tokens(kTokens, config.vocab_size);
    const Sequence sequence{all_layers(config), tokens, {}, Output::kLogits};
    const Matrix expected = run_alone(*tiny.engine, sequence);
    const auto cache = new_cache(*tiny.engine, sequence.layers);
    const auto others = tiny_tokens(2 * kTokens, config.vocab_size);
    for (size_t kept = 0; kept < kTokens; ++kept) {
      CAPTURE(kept);
      value_of(cache->truncate(0));
      Matrix actual(kTokens, expected.cols());
      size_t filled = 0;
      if (kept > 0) append_rows(actual, filled, run(*tiny.engine, sequence.slice(*cache, 0, kept)));
      Slice detour;
      detour.cache = cache.get();
      detour.tokens = std::span(others).last(kTokens);
      run(*tiny.engine, detour);
      value_of(cache->truncate(static_cast<int32_t>(kept)));
      append_rows(actual, filled, run(*tiny.engine, sequence.slice(*cache, kept, kTokens - kept)));
      check_close(actual, expected, test.tolerance);
    }
    CHECK_FAILS_WITH(cache->truncate(-1), ErrorCode::kInvalidArgument);
    CHECK_FAILS_WITH(cache->truncate(cache->length() + 1), ErrorCode::kInvalidArgument);
    CHECK(cache->length() == static_cast<int32_t>(kTokens));
  }
}

namespace {

/// Requests to refuse, each beside a sound one in the same batch.
class Refusals {
 public:
  explicit Refusals(const EngineUnderTest& test)
      : tiny_(load_whole(test, tiny_configs().front().config)),
        tokens_(tiny_tokens(3, tiny_.config().vocab_size)),
        hidden_(hidden_rows(7, 3, static_cast<size_t>(tiny_.config().hidden_size))),
        bystander_cache_(new_cache(*tiny_.engine, all_layers(tiny_.config()))) {
    bystander_.cache = bystander_cache_.get();
    bystander_.tokens = tokens_;
    run(*tiny_.engine, bystander_);
  }

  Engine& engine() { return *tiny_.engine; }
  const model::ModelConfig& config() const { return tiny_.config(); }
  std::unique_ptr<KvCache> cache(LayerWindow layers) { return new_cache(*tiny_.engine, layers); }
  const std::vector<int32_t>& tokens() const { return tokens_; }
  const Matrix& hidden() const { return hidden_; }
  const Slice& bystander() const { return bystander_; }

  /// The batch of the sound slice and `slice`, in both orders, fails and changes no cache.
  void check(const Slice& slice, ErrorCode code) {
    const int32_t length = slice.cache == nullptr ? 0 : slice.cache->length();
    for (const bool sound_first : {true, false}) {
      const std::vector<Slice> batch =
          sound_first ? std::vector{bystander_, slice} : std::vector{slice, bystander_};
      CHECK_FAILS_WITH(engine().forward(batch), code);
      CHECK(bystander_cache_->length() == 3);
      if (slice.cache != nullptr) CHECK(slice.cache->length() == length);
    }
  }

 private:
  TinyEngine tiny_;
  std::vector<int32_t> tokens_;
  Matrix hidden_;
  std::unique_ptr<KvCache> bystander_cache_;
  Slice bystander_;
};

void check_bad_inputs(Refusals& refusals) {
  const int32_t layers = refusals.config().layer_count;
  const auto whole = refusals.cache({0, layers});
  const auto back = refusals.cache({1, layers});
  Slice slice;
  INFO("no cache");
  slice.tokens = refusals.tokens();
  refusals.check(slice, ErrorCode::kInvalidArgument);
  INFO("no rows");
  slice = {.cache = whole.get()};
  refusals.check(slice, ErrorCode::kInvalidArgument);
  INFO("tokens and hidden rows");
  slice.tokens = refusals.tokens();
  slice.hidden = refusals.hidden().view();
  refusals.check(slice, ErrorCode::kInvalidArgument);
  INFO("tokens behind layer 0");
  slice = {.cache = back.get(), .tokens = refusals.tokens()};
  refusals.check(slice, ErrorCode::kInvalidArgument);
  for (const int32_t id : {-1, refusals.config().vocab_size, INT32_MAX, INT32_MIN}) {
    CAPTURE(id);
    const std::vector<int32_t> outside = {0, id};
    slice = {.cache = whole.get(), .tokens = outside};
    refusals.check(slice, ErrorCode::kInvalidArgument);
  }
  for (const int difference : {-1, 1}) {
    CAPTURE(difference);
    const Matrix odd(2, static_cast<size_t>(refusals.config().hidden_size + difference));
    slice = {.cache = back.get()};
    slice.hidden = odd.view();
    refusals.check(slice, ErrorCode::kInvalidArgument);
  }
}

}  // namespace

void check_invalid_arguments(const EngineUnderTest& test) {
  Refusals refusals(test);
  const int32_t layers = refusals.config().layer_count;
  check_bad_inputs(refusals);

  INFO("logits in front of the last layer");
  const auto front = refusals.cache({0, 2});
  Slice slice{.cache = front.get(), .tokens = refusals.tokens(), .output = Output::kLogits};
  refusals.check(slice, ErrorCode::kInvalidArgument);

  INFO("one cache twice");
  refusals.check(refusals.bystander(), ErrorCode::kInvalidArgument);

  INFO("another engine's cache");
  Refusals other(test);
  const auto foreign = other.cache({0, layers});
  slice = {.cache = foreign.get(), .tokens = refusals.tokens()};
  refusals.check(slice, ErrorCode::kInvalidArgument);

  INFO("windows and capacities");
  for (const LayerWindow window :
       {LayerWindow{-1, 1}, LayerWindow{2, 1}, LayerWindow{0, layers + 1}}) {
    CHECK_FAILS_WITH(refusals.engine().make_cache(window, 1), ErrorCode::kInvalidArgument);
  }
  for (const int32_t capacity : {0, -1, INT32_MIN}) {
    CHECK_FAILS_WITH(refusals.engine().make_cache({0, 1}, capacity), ErrorCode::kInvalidArgument);
  }

  INFO("what a part lacks");
  const auto model = std::make_shared<const TinyModel>(refusals.config());
  model::Part middle;
  middle.layers = {{1, 3}};
  const auto engine = value_of(test.load(model, middle));
  CHECK_FAILS_WITH(engine->make_cache({0, 3}, 4), ErrorCode::kInvalidArgument);
  CHECK_FAILS_WITH(engine->make_cache({1, 4}, 4), ErrorCode::kInvalidArgument);
  const auto nothing = value_of(engine->make_cache({0, 0}, 4));
  slice = {.cache = nothing.get(), .tokens = refusals.tokens()};
  CHECK_FAILS_WITH(engine->forward({&slice, 1}), ErrorCode::kInvalidArgument);
  const auto end = value_of(engine->make_cache({layers, layers}, 4));
  slice = {.cache = end.get(), .output = Output::kLogits};
  slice.hidden = refusals.hidden().view();
  CHECK_FAILS_WITH(engine->forward({&slice, 1}), ErrorCode::kInvalidArgument);
  for (const auto& range : {std::pair{-1, 1}, std::pair{0, layers + 1}, std::pair{3, 2}}) {
    model::Part outside;
    outside.layers = {range};
    CHECK_FAILS_WITH(test.load(model, outside), ErrorCode::kInvalidArgument);
  }
}

void check_not_finite(const EngineUnderTest& test) {
  Refusals refusals(test);
  const int32_t layers = refusals.config().layer_count;
  for (const LayerWindow window : {LayerWindow{1, layers}, LayerWindow{0, 0}, {layers, layers}}) {
    const auto cache = refusals.cache(window);
    for (const float bad :
         {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
          -std::numeric_limits<float>::infinity()}) {
      for (const size_t where : {size_t{0}, refusals.hidden().cols() * 3 - 1}) {
        Matrix hidden = refusals.hidden();
        hidden.data()[where] = bad;
        Slice slice{.cache = cache.get()};
        slice.hidden = hidden.view();
        refusals.check(slice, ErrorCode::kNotFinite);
      }
    }
  }
}

void check_context_full(const EngineUnderTest& test) {
  Refusals refusals(test);
  const int32_t layers = refusals.config().layer_count;
  const auto tokens = tiny_tokens(6, refusals.config().vocab_size);
  const auto cache = value_of(refusals.engine().make_cache({0, layers}, 5));
  const Slice six{.cache = cache.get(), .tokens = tokens};
  refusals.check(six, ErrorCode::kContextFull);
  const Slice five{.cache = cache.get(), .tokens = std::span(tokens).first(5)};
  const Matrix expected = run(refusals.engine(), five);
  const Slice one{.cache = cache.get(), .tokens = std::span(tokens).first(1)};
  refusals.check(one, ErrorCode::kContextFull);
  value_of(cache->truncate(4));
  const Slice last{.cache = cache.get(), .tokens = std::span(tokens).subspan(4, 1)};
  const Matrix again = run(refusals.engine(), last);
  Matrix wanted(1, expected.cols());
  std::copy_n(expected.row(4).data(), expected.cols(), wanted.data());
  check_close(again, wanted, test.tolerance);
}

void check_bad_tensors(const EngineUnderTest& test) {
  for (const auto& [name, config] : tiny_configs()) {
    if (name != "biased" && name != "everything") continue;  // the two that have all tensors
    const TinyModel sound(config);
    for (const model::Tensor& tensor : sound.tensors()) {
      CAPTURE(name, tensor.name);
      for (const bool missing : {true, false}) {
        const auto broken = std::make_shared<TinyModel>(config);
        if (missing) {
          broken->remove(tensor.name);
        } else {
          broken->reshape(tensor.name, {2, 3});
        }
        const auto loaded = test.load(broken, whole_model(config));
        REQUIRE_FALSE(loaded.has_value());
        CAPTURE(loaded.error().message);
        CHECK(loaded.error().code == (missing ? ErrorCode::kNotFound : ErrorCode::kCorrupt));
        CHECK(loaded.error().message.find(tensor.name) != std::string::npos);
        if (!missing) CHECK(loaded.error().message.find("[2, 3]") != std::string::npos);
      }
    }
  }
}

void check_adapters(const EngineUnderTest& test) {
  const auto model = std::make_shared<const TinyModel>(tiny_configs().front().config);
  auto adapters = std::make_shared<model::Adapters>();
  for (const std::string_view matrix : model::kLayerMatrices) {
    const model::Tensor& tensor = *value_of(model->find(model::layer_matrix(2, matrix)));
    (*adapters)[tensor.name] = {hidden_rows(1, 2, tensor.cols()), hidden_rows(2, tensor.rows(), 2)};
  }
  const auto adapted = value_of(model::adapt(model, adapters));
  const auto merged = std::make_shared<TinyModel>(model->config());
  for (const auto& [name, adapter] : *adapters) {
    const model::Tensor& tensor = *value_of(adapted->find(name));
    Matrix values(tensor.rows(), tensor.cols());
    value_of(model::read_rows(tensor, 0, values.view()));
    for (size_t i = 0; i < values.rows() * values.cols(); ++i)
      merged->set(name, i, values.data()[i]);
  }
  const auto tokens = tiny_tokens(kTokens, model->config().vocab_size);
  const auto logits_of = [&](const std::shared_ptr<const model::ModelFile>& file) {
    const auto engine = value_of(test.load(file, whole_model(file->config())));
    const auto cache = new_cache(*engine, all_layers(file->config()));
    return run(*engine, {.cache = cache.get(), .tokens = tokens, .output = Output::kLogits});
  };
  const Matrix logits = logits_of(adapted);
  check_close(logits, logits_of(merged), test.tolerance);
  CHECK_FALSE(std::ranges::equal(logits.view().values(), logits_of(model).view().values()));
}

void check_golden(const EngineUnderTest& test, const std::filesystem::path& data,
                  double tolerance) {
  size_t models = 0;
  for (const auto& entry : std::filesystem::directory_iterator(data)) {
    if (!entry.is_directory()) continue;
    ++models;
    CAPTURE(entry.path().filename().string());
    const TempFolder folder;
    write_tiny_folder(entry.path() / "config.json", folder.path());
    const auto model = value_of(model::ModelFile::open(folder.path()));
    const model::ModelConfig& config = model->config();
    const auto engine = value_of(test.load(model, whole_model(config)));

    const std::vector<float> golden = read_floats(entry.path() / "logits.f32");
    const auto vocab = static_cast<size_t>(config.vocab_size);
    Matrix expected(golden.size() / vocab, vocab);
    std::copy(golden.begin(), golden.end(), expected.data());
    const auto tokens = tiny_tokens(expected.rows(), config.vocab_size);
    const auto cache = new_cache(*engine, all_layers(config));
    const Slice slice{.cache = cache.get(), .tokens = tokens, .output = Output::kLogits};
    check_close(run(*engine, slice), expected, tolerance);
  }
  CHECK(models == 11);
}

}  // namespace isthmus::test
