#include <isthmus/audit/sequence_attack.h>
#include <isthmus/engine/cpu_engine.h>

#include <algorithm>
#include <cmath>
#include <memory>

#include "support/catch.h"
#include "support/tiny_model.h"

namespace isthmus::audit {
namespace {

using test::value_of;

struct Fixture {
  std::shared_ptr<test::TinyModel> file =
      std::make_shared<test::TinyModel>(test::tiny_configs().front().config);
  ThreadPool pool{1};
  std::unique_ptr<engine::Engine> engine = value_of(engine::load_cpu_engine(
      file, test::whole_model(file->config()), pool, {.precision = engine::Precision::kExact}));
  int32_t vocabulary = file->config().vocab_size;
  TextWindows text{.tokens = test::tiny_tokens(24, vocabulary), .window = 8};

  /// log p of every token after `before`.
  std::vector<double> log_probabilities(const std::vector<int32_t>& before) const {
    const auto cache = value_of(engine->make_cache({0, engine->config().layer_count}, 64));
    const engine::Slice slice{.cache = cache.get(),
                              .tokens = before,
                              .output = engine::Output::kLogits,
                              .rows = engine::Rows::kLast};
    const Matrix logits = std::move(value_of(engine->forward({&slice, 1})).front());
    double sum = 0;
    for (const float logit : logits.row(0)) sum += std::exp(static_cast<double>(logit));
    std::vector<double> result;
    for (const float logit : logits.row(0))
      result.push_back(static_cast<double>(logit) - std::log(sum));
    return result;
  }

  /// The true token among others, with noise on the scores.
  std::vector<Candidates> evidence(size_t others) const {
    std::vector<Candidates> result;
    for (size_t i = 0; i < text.tokens.size(); ++i) {
      Candidates& candidates = result.emplace_back();
      for (size_t k = 0; k <= others; ++k) {
        const auto token =
            static_cast<int32_t>((text.tokens[i] + 3 * k) % static_cast<size_t>(vocabulary));
        candidates.push_back({token, static_cast<float>((i + 2 * k) % 3)});
      }
      std::ranges::stable_sort(candidates, std::greater<>(), &Candidate::score);
    }
    return result;
  }
};

TEST_CASE("predictions from context are the model's likeliest tokens", "[audit][sequence]") {
  const Fixture f;
  const auto guesses = value_of(predict_from_context(*f.engine, f.text));
  REQUIRE(guesses.size() == 24);
  CHECK(guesses[8].empty());  // a window's first
  const std::vector<int32_t> before(f.text.tokens.begin() + 8, f.text.tokens.begin() + 13);
  const auto logs = f.log_probabilities(before);
  REQUIRE(guesses[13].size() == 5);
  CHECK(guesses[13].front().token ==
        static_cast<int32_t>(std::ranges::max_element(logs) - logs.begin()));
}

TEST_CASE("a beam that keeps every reading finds the best one", "[audit][sequence]") {
  const Fixture f;
  constexpr size_t kTokens = 4;
  constexpr float kSharpness = 0.5F;
  const auto evidence = f.evidence(2);
  const auto window = std::span(evidence).first(kTokens);
  const auto read = value_of(read_with_prior(*f.engine, window, kTokens, {kSharpness, 81}));
  REQUIRE(read.size() == kTokens);
  // Every one of 3^4 readings, scored the plain way.
  double best = -1e9;
  std::vector<int32_t> best_tokens;
  for (size_t code = 0; code < 81; ++code) {
    std::vector<int32_t> tokens;
    double score = 0;
    for (size_t i = 0, rest = code; i < kTokens; ++i, rest /= 3) {
      const Candidate& c = window[i][rest % 3];
      score += static_cast<double>(kSharpness * c.score);
      if (i > 0) score += f.log_probabilities(tokens)[static_cast<size_t>(c.token)];
      tokens.push_back(c.token);
    }
    if (score <= best) continue;
    best = score;
    best_tokens = tokens;
  }
  for (size_t i = 0; i < kTokens; ++i) {
    CHECK(read[i].front().token == best_tokens[i]);
    CHECK(read[i].size() == 3);
  }
}

TEST_CASE("sharp evidence leaves the prior no say, and one reading is enough",
          "[audit][sequence]") {
  const Fixture f;
  auto evidence = f.evidence(4);
  for (size_t i = 0; i < evidence.size(); ++i) {
    for (Candidate& c : evidence[i]) c.score = c.token == f.text.tokens[i] ? 1.0F : 0.0F;
    std::ranges::stable_sort(evidence[i], std::greater<>(), &Candidate::score);
  }
  CHECK(value_of(fit_weighting(*f.engine, evidence, f.text, 2)).sharpness >= 8);
  const auto read = value_of(read_with_prior(*f.engine, evidence, f.text.window, {1000, 1}));
  for (size_t i = 0; i < read.size(); ++i) CHECK(read[i].front().token == f.text.tokens[i]);
}

TEST_CASE("the fitted weighting reads no less than the evidence alone, or than trusting the prior",
          "[audit][sequence]") {
  const Fixture f;
  auto evidence = f.evidence(4);
  for (Candidates& candidates : evidence) {
    for (size_t k = 0; k < candidates.size(); ++k)
      candidates[k].score = static_cast<float>((candidates[k].token * 7919) % 101);
    std::ranges::stable_sort(candidates, std::greater<>(), &Candidate::score);
  }
  const PriorWeighting fitted = value_of(fit_weighting(*f.engine, evidence, f.text, 2));
  const auto right = [&](const PriorWeighting& weighting) {
    const auto read = value_of(read_with_prior(*f.engine, evidence, f.text.window, weighting));
    int count = 0;
    for (size_t i = 0; i < read.size(); ++i) count += read[i].front().token == f.text.tokens[i];
    return count;
  };
  int alone = 0;
  for (size_t i = 0; i < evidence.size(); ++i)
    alone += evidence[i].front().token == f.text.tokens[i];
  CHECK(right(fitted) >= alone);
  CHECK(right(fitted) >= right({.sharpness = 0.25F, .beam = 2}));
  CHECK_FAILS_WITH(fit_weighting(*f.engine, std::span(evidence).first(3), f.text, 2),
                   ErrorCode::kInvalidArgument);
  CHECK_FAILS_WITH(read_with_prior(*f.engine, evidence, 7, {}), ErrorCode::kInvalidArgument);
  evidence[5].clear();
  CHECK_FAILS_WITH(read_with_prior(*f.engine, evidence, 8, {}), ErrorCode::kInvalidArgument);
}

TEST_CASE("trying every token reads noiseless rows at every cut", "[audit][sequence]") {
  const Fixture f;
  const int32_t cut = GENERATE(0, 1, 3);
  const SplitModel model{f.engine.get(), nullptr, cut};
  const Matrix rows = value_of(boundary_rows(model, f.text.tokens_of(1)));
  const auto found = value_of(match_exhaustively(model, rows.view(), 5));
  REQUIRE(found.size() == 5);
  for (size_t i = 0; i < found.size(); ++i) {
    CHECK(found[i].front().token == f.text.tokens[8 + i]);
    CHECK(found[i].front().score == Approx(1).margin(1e-5));
    CHECK(found[i].size() == 5);
  }
  CHECK(value_of(match_exhaustively(model, rows.view(), 99)).size() == 8);
}

}  // namespace
}  // namespace isthmus::audit
