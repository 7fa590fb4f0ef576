#include <isthmus/audit/evaluate.h>
#include <isthmus/engine/cpu_engine.h>

#include <cmath>
#include <cstring>
#include <memory>

#include "support/catch.h"
#include "support/tiny_model.h"

namespace isthmus::audit {
namespace {

using test::value_of;

struct Fixture {
  Fixture() {
    text.window = 9;
    text.tokens = test::tiny_tokens(3 * text.window, file->config().vocab_size);
    context.progress = [this](double fraction) { told.push_back(fraction); };
  }

  std::unique_ptr<engine::Engine> load(const engine::CpuEngineOptions& options) {
    return value_of(
        engine::load_cpu_engine(file, test::whole_model(file->config()), pool, options));
  }

  codec::BoundaryCodec codec(const std::string& spec) const {
    return value_of(codec::BoundaryCodec::make(value_of(codec::CodecSpec::parse(spec)),
                                               static_cast<size_t>(file->config().hidden_size)));
  }

  std::shared_ptr<test::TinyModel> file =
      std::make_shared<test::TinyModel>(test::tiny_configs().front().config);
  ThreadPool pool{1};
  SteadyClock clock;
  TextWindows text;
  std::vector<double> told;
  EvaluationContext context{&pool, &clock, {}};
};

// Logits of one window by the whole model at once.
Matrix whole_logits(engine::Engine& engine, std::span<const int32_t> tokens) {
  const auto cache = value_of(engine.make_cache({0, engine.config().layer_count}, 64));
  const engine::Slice slice{
      .cache = cache.get(), .tokens = tokens, .output = engine::Output::kLogits};
  return std::move(value_of(engine.forward({&slice, 1})).front());
}

double nll_of(std::span<const float> logits, int32_t target) {
  double total = 0;
  for (const float logit : logits) total += std::exp(static_cast<double>(logit));
  return std::log(total) - logits[static_cast<size_t>(target)];
}

TEST_CASE("an exact boundary changes nothing, at every cut", "[audit][evaluate]") {
  Fixture f;
  const auto engine = f.load({.precision = engine::Precision::kExact});
  const int32_t cut = GENERATE(range(0, 5));
  CAPTURE(cut);
  const auto plain = f.codec("f32");
  const codec::BoundaryCodec* codecs[] = {&plain};
  const auto results =
      value_of(evaluate_codecs({engine.get(), engine.get(), cut}, f.text, codecs, f.context));
  REQUIRE(results.size() == 1);
  const PredictionLog& log = results[0].log;
  CHECK(log.windows() == 3);
  CHECK(log.per_window == 8);
  for (size_t w = 0; w < 3; ++w) {
    const auto tokens = f.text.tokens_of(w);
    const Matrix logits = whole_logits(*engine, tokens);
    for (size_t i = 0; i < 8; ++i) {
      const Prediction& p = log.predictions[w * 8 + i];
      CAPTURE(w, i);
      CHECK(p.nll_reference == Approx(nll_of(logits.row(i), tokens[i + 1])).epsilon(1e-5));
      CHECK(p.nll == p.nll_reference);
      CHECK(p.kl < 1e-6);
      CHECK_FALSE(p.flipped);
    }
  }
  CHECK(results[0].bits_per_coordinate == 32);
  CHECK(results[0].bits_per_coordinate_prompt == 32);
  CHECK(f.told == std::vector<double>{0, 1.0 / 3, 2.0 / 3});
}

TEST_CASE("a codec's quality is that of the rows it decodes, its size that of its bytes",
          "[audit][evaluate]") {
  Fixture f;
  const auto engine = f.load({.precision = engine::Precision::kExact});
  const SplitModel model{engine.get(), engine.get(), 2};
  const auto coarse = f.codec("rotate|int2|rans");
  const auto fine = f.codec("f16");
  const codec::BoundaryCodec* codecs[] = {&coarse, &fine};
  const auto results = value_of(evaluate_codecs(model, f.text, codecs, f.context));

  size_t bytes = 0;
  size_t bytes_prompt = 0;
  for (size_t w = 0; w < f.text.count(); ++w) {
    const auto tokens = f.text.tokens_of(w);
    const Matrix rows = value_of(boundary_rows(model, tokens));
    const auto message = value_of(coarse.encode(rows.view()));
    bytes_prompt += message.size();
    for (size_t r = 0; r < rows.rows(); ++r)
      bytes += value_of(coarse.encode(rows.view().middle_rows(r, 1))).size();
    Matrix decoded(rows.rows(), rows.cols());
    REQUIRE(coarse.decode_into(message, decoded.view()));
    const auto cache = value_of(engine->make_cache({2, 4}, 64));
    const engine::Slice slice{.cache = cache.get(),
                              .hidden = std::as_const(decoded).view(),
                              .output = engine::Output::kLogits};
    const Matrix logits = std::move(value_of(engine->forward({&slice, 1})).front());
    for (size_t i = 0; i < 8; ++i) {
      CHECK(results[0].log.predictions[w * 8 + i].nll ==
            Approx(nll_of(logits.row(i), tokens[i + 1])).epsilon(1e-5));
    }
  }
  const double coordinates = 27.0 * 60;
  CHECK(results[0].bits_per_coordinate == Approx(8.0 * static_cast<double>(bytes) / coordinates));
  CHECK(results[0].bits_per_coordinate_prompt ==
        Approx(8.0 * static_cast<double>(bytes_prompt) / coordinates));
  CHECK(results[1].bits_per_coordinate == Approx(16 + 32.0 / 60));
  CHECK(results[0].encode_us_per_token > 0);
  CHECK(results[0].decode_us_per_token > 0);
  CHECK(summarize(results[0].log).kl_nats > 100 * summarize(results[1].log).kl_nats);
}

TEST_CASE("models are compared with the reference over the same tokens", "[audit][evaluate]") {
  Fixture f;
  const auto exact = f.load({.precision = engine::Precision::kExact});
  const auto fast = f.load({.precision = engine::Precision::kFast});
  const SplitModel models[] = {{exact.get(), exact.get(), 3}, {fast.get(), fast.get(), 1}};
  const auto logs =
      value_of(evaluate_models({exact.get(), exact.get(), 0}, models, f.text, f.context));
  REQUIRE(logs.size() == 2);
  CHECK(summarize(logs[0]).change == 0);
  CHECK(summarize(logs[0]).kl_nats < 1e-6);
  CHECK(summarize(logs[1]).kl_nats > 1e-6);
  const auto tokens = f.text.tokens_of(1);
  const Matrix logits = whole_logits(*fast, tokens);
  for (size_t i = 0; i < 8; ++i) {
    CHECK(logs[1].predictions[8 + i].nll ==
          Approx(nll_of(logits.row(i), tokens[i + 1])).epsilon(1e-5));
  }
}

TEST_CASE("a codec of another width, a cut outside the model and foreign tokens are refused",
          "[audit][evaluate]") {
  Fixture f;
  const auto engine = f.load({.precision = engine::Precision::kExact});
  const auto wide = value_of(codec::BoundaryCodec::make({}, 61));
  const auto right = f.codec("f32");
  const codec::BoundaryCodec* codecs[] = {&right, &wide};
  const SplitModel model{engine.get(), engine.get(), 1};
  CHECK_FAILS_WITH(evaluate_codecs(model, f.text, codecs, f.context), ErrorCode::kInvalidArgument);
  CHECK_FAILS_WITH(
      evaluate_codecs({engine.get(), engine.get(), 5}, f.text, std::span(codecs, 1), f.context),
      ErrorCode::kInvalidArgument);
  f.text.tokens[10] = f.file->config().vocab_size;
  CHECK_FAILS_WITH(evaluate_codecs(model, f.text, std::span(codecs, 1), f.context),
                   ErrorCode::kInvalidArgument);
}

TEST_CASE("windows are whole, and the tokenizer adds nothing", "[audit][quality]") {
  text::TokenizerSpec spec;
  spec.kind = text::TokenizerKind::kByteBpe;
  spec.pre_tokenizer = "gpt2";
  spec.pieces = {"a", "b", "<s>"};
  spec.kinds = {text::TokenKind::kNormal, text::TokenKind::kNormal, text::TokenKind::kControl};
  spec.bos = 2;
  spec.add_bos = true;
  const auto tokenizer = value_of(text::Tokenizer::make(spec));
  const TextWindows windows = value_of(make_windows("abbabba", tokenizer, 3, 100));
  CHECK(windows.tokens == std::vector<int32_t>{0, 1, 1, 0, 1, 1});
  CHECK(windows.count() == 2);
  CHECK(value_of(make_windows("abbabba", tokenizer, 3, 5)).count() == 1);
  CHECK_FAILS_WITH(make_windows("ab", tokenizer, 3, 100), ErrorCode::kInvalidArgument);
  CHECK_FAILS_WITH(make_windows("abba", tokenizer, 3, 2), ErrorCode::kInvalidArgument);
  CHECK_FAILS_WITH(make_windows("abba", tokenizer, 1, 100), ErrorCode::kInvalidArgument);
}

}  // namespace
}  // namespace isthmus::audit
