#include <isthmus/audit/attack.h>
#include <isthmus/audit/inverter.h>
#include <isthmus/core/random.h>
#include <isthmus/engine/cpu_engine.h>

#include <cmath>
#include <memory>
#include <numeric>
#include <stdexcept>

#include "candidates.h"
#include "support/catch.h"
#include "support/tiny_model.h"

namespace isthmus::audit {
namespace {

using test::value_of;

constexpr size_t kVocabulary = 40;
constexpr size_t kWidth = 12;

// Random directions of length 1.
Matrix unit_table() {
  Matrix table(kVocabulary, kWidth);
  for (size_t r = 0; r < kVocabulary; ++r) {
    double square = 0;
    for (size_t c = 0; c < kWidth; ++c) {
      table.row(r)[c] = static_cast<float>(counter_uniform(5, r * kWidth + c) - 0.5);
      square += std::pow(table.row(r)[c], 2);
    }
    for (float& value : table.row(r)) value /= static_cast<float>(std::sqrt(square));
  }
  return table;
}

// Embeddings through an unknown linear map and a shift, channels of very different sizes.
Release hidden_release(const Matrix& table, size_t count, uint64_t seed, double noise) {
  Release release{.rows = Matrix(count, kWidth)};
  for (size_t r = 0; r < count; ++r) {
    const auto token = static_cast<size_t>(counter_uniform(seed, r) * kVocabulary);
    release.tokens.push_back(static_cast<int32_t>(token));
    for (size_t c = 0; c < kWidth; ++c) {
      double sum = 3;
      for (size_t k = 0; k < kWidth; ++k)
        sum += (counter_uniform(7, c * kWidth + k) - 0.5) * table.row(token)[k];
      sum += noise * (counter_uniform(seed + 1, r * kWidth + c) - 0.5);
      release.rows.row(r)[c] = static_cast<float>(sum * std::pow(10.0, c % 4));
    }
  }
  return release;
}

TEST_CASE("the nearest neighbour of a scaled embedding is its token", "[audit][attack]") {
  const Matrix table = unit_table();
  Matrix rows = table;
  for (size_t r = 0; r < rows.rows(); ++r) {
    for (float& value : rows.row(r)) value *= static_cast<float>(r + 1);
  }
  ThreadPool pool(GENERATE(1, 2));
  const auto guesses = nearest_neighbors(std::as_const(rows).view(), table.view(), 5, pool);
  for (size_t r = 0; r < kVocabulary; ++r) {
    REQUIRE(guesses[r].size() == 5);
    CHECK(guesses[r].front().token == static_cast<int32_t>(r));
    // Best first, and all different.
    for (size_t i = 1; i < guesses[r].size(); ++i) {
      const auto cosine = [&](int32_t id) {
        double sum = 0;
        for (size_t c = 0; c < kWidth; ++c) sum += table.row(r)[c] * table.row(id)[c];
        return sum;
      };
      CHECK(cosine(guesses[r][i - 1].token) > cosine(guesses[r][i].token));
    }
  }
  CHECK_THROWS_AS(nearest_neighbors(Matrix(1, 3).view(), table.view(), 5, pool),
                  std::invalid_argument);
}

TEST_CASE("a ridge inverter undoes an unknown linear map, and noise stops it", "[audit][attack]") {
  const Matrix table = unit_table();
  ThreadPool pool(1);
  const auto recovery = [&](double noise) {
    const Release train = hidden_release(table, 500, 100, noise);
    const Release test = hidden_release(table, 200, 200, noise);
    const auto inverter = value_of(RidgeInverter::fit(train, table.view()));
    const Matrix guessed = inverter.invert(test.rows.view());
    return judge(nearest_neighbors(guessed.view(), table.view(), 5, pool), test.tokens);
  };
  const Recovery clean = recovery(0);
  CHECK(clean.top1 == 1);
  CHECK(clean.exact_sequence == 1);
  const Recovery noisy = recovery(3);
  CHECK(noisy.top1 < 0.5);
  CHECK(noisy.top5 > noisy.top1);
}

TEST_CASE("without a map, the nearest neighbour alone reads nothing of it", "[audit][attack]") {
  const Matrix table = unit_table();
  ThreadPool pool(1);
  const Release test = hidden_release(table, 200, 200, 0);
  CHECK(judge(nearest_neighbors(test.rows.view(), table.view(), 5, pool), test.tokens).top1 < 0.2);
}

TEST_CASE("an inverter needs rows, and tokens of the table", "[audit][attack]") {
  const Matrix table = unit_table();
  CHECK_FAILS_WITH(RidgeInverter::fit(hidden_release(table, 9, 1, 0), table.view()),
                   ErrorCode::kInvalidArgument);
  Release train = hidden_release(table, 20, 1, 0);
  train.tokens[3] = kVocabulary;
  CHECK_FAILS_WITH(RidgeInverter::fit(train, table.view()), ErrorCode::kInvalidArgument);
}

TEST_CASE("the best of some scores come in order, small ids first among equals",
          "[audit][attack]") {
  const float scores[] = {1, 3, 2, 3, 0, 2};
  CHECK(best_of(scores, 4) == Candidates{{1, 3}, {3, 3}, {2, 2}, {5, 2}});
  CHECK(best_of(std::span(scores, 2), 4) == Candidates{{1, 3}, {0, 1}});
}

TEST_CASE("the commonest tokens come in order", "[audit][attack]") {
  const int32_t tokens[] = {4, 9, 4, 1, 4, 9, 2, 3, 0, 1};
  CHECK(commonest(tokens) == Candidates{{4, 3}, {1, 2}, {9, 2}, {0, 1}, {2, 1}});
  CHECK(commonest(std::span(tokens, 2)) == Candidates{{4, 1}, {9, 1}});
}

TEST_CASE("recovery is counted as by hand", "[audit][attack]") {
  std::vector<int32_t> tokens(40, 7);
  std::vector<Candidates> guesses(40, {{7, 0}, {1, 0}});
  guesses[20] = {{1, 0}, {2, 0}, {3, 0}, {4, 0}, {7, 0}, {5, 0}};
  guesses[35] = {{1, 0}, {2, 0}, {3, 0}, {4, 0}, {5, 0}, {7, 0}};
  const Recovery recovery = judge(guesses, tokens);
  CHECK(recovery.tokens == 40);
  CHECK(recovery.top1 == Approx(38.0 / 40));
  CHECK(recovery.top5 == Approx(39.0 / 40));
  CHECK(recovery.exact_sequence ==
        Approx(1.0 / 2));  // the second of two whole stretches has a miss
  CHECK(recovery.top1_interval.low == Approx(0.8350).margin(1e-4));
  CHECK(recovery.top1_interval.high == Approx(0.9862).margin(1e-4));
  const Recovery few = judge(std::span(guesses).first(15), std::span(tokens).first(15));
  CHECK(few.top1 == 1);
  CHECK_FALSE(few.exact_sequence);
  CHECK_THROWS_AS(judge({}, {}), std::invalid_argument);
  CHECK_THROWS_AS(judge(guesses, std::span(tokens).first(39)), std::invalid_argument);
}

TEST_CASE("an untouched embedding is read by its nearest neighbour", "[audit][attack]") {
  const auto file = std::make_shared<test::TinyModel>(test::tiny_configs().front().config);
  ThreadPool pool(1);
  const auto engine = value_of(engine::load_cpu_engine(
      file, test::whole_model(file->config()), pool, {.precision = engine::Precision::kExact}));
  const auto codec = value_of(codec::BoundaryCodec::make(
      value_of(codec::CodecSpec::parse("bf16")), static_cast<size_t>(file->config().hidden_size)));
  const TextWindows text{.tokens = test::tiny_tokens(24, file->config().vocab_size), .window = 12};
  const Matrix table = value_of(embedding_table(*engine));
  CHECK(table.rows() == static_cast<size_t>(file->config().vocab_size));
  const Matrix rows = value_of(boundary_rows({engine.get(), nullptr, 0}, text));
  const Release released = value_of(release(rows.view(), text.tokens, codec));
  CHECK(released.messages.size() == 24);
  const Matrix directions = unit_rows(table);
  CHECK(judge(nearest_neighbors(released.rows.view(), directions.view(), 5, pool), text.tokens)
            .top1 == 1);
}

TEST_CASE("a neural inverter reads what no linear map can", "[audit][attack]") {
  // Each row is its own embedding, shuffled by the one before it: channels change sign by the
  // direction of the last row's first number.
  const Matrix table = unit_table();
  ThreadPool pool(1);
  constexpr size_t kWindow = 50;
  const auto make = [&](size_t count, uint64_t seed) {
    Release release{.rows = Matrix(count, kWidth)};
    for (size_t r = 0; r < count; ++r) {
      const auto token = static_cast<size_t>(counter_uniform(seed, r) * kVocabulary);
      release.tokens.push_back(static_cast<int32_t>(token));
      const bool turned =
          r % kWindow > 0 && table.row(static_cast<size_t>(release.tokens[r - 1]))[0] > 0;
      for (size_t c = 0; c < kWidth; ++c)
        release.rows.row(r)[c] = table.row(token)[c] * (turned && c % 2 == 1 ? -1.0F : 1.0F);
    }
    return release;
  };
  const Release train = make(4000, 1);
  const Release test = make(500, 2);
  const auto top1 = [&](const Matrix& guessed) {
    return judge(nearest_neighbors(guessed.view(), table.view(), 5, pool), test.tokens).top1;
  };
  const auto ridge = value_of(RidgeInverter::fit(train, table.view()));
  const auto neural = value_of(NeuralInverter::fit(train, kWindow, table.view(), pool));
  const double linear = top1(ridge.invert(test.rows.view()));
  const double learnt = top1(neural.invert(test.rows.view()));
  CAPTURE(linear, learnt);
  CHECK(linear < 0.8);
  CHECK(learnt > linear + 0.1);
  CHECK_FAILS_WITH(NeuralInverter::fit(test, 101, table.view(), pool), ErrorCode::kInvalidArgument);
}

TEST_CASE("who knows the noise reads at least as much as the nearest neighbour",
          "[audit][attack]") {
  const Matrix table = unit_table();
  ThreadPool pool(1);
  Release text{.rows = Matrix(300, kWidth)};
  for (size_t r = 0; r < text.rows.rows(); ++r) {
    text.tokens.push_back(static_cast<int32_t>(counter_uniform(3, r) * kVocabulary));
    std::ranges::copy(table.row(static_cast<size_t>(text.tokens.back())), text.rows.row(r).data());
  }
  SystemRandom random;
  const auto read = [&](const std::string& spec) {
    const auto codec = value_of(codec::BoundaryCodec::make(value_of(codec::CodecSpec::parse(spec)),
                                                           kWidth, {.random = &random}));
    const Release noised = value_of(release(text.rows.view(), text.tokens, codec));
    const auto likely = value_of(most_likely(noised, codec, table.view(), 5, pool));
    CHECK(likely.front().front().score == 0);
    CHECK(likely.front().back().score <= 0);
    const double nearest =
        judge(nearest_neighbors(noised.rows.view(), table.view(), 5, pool), text.tokens).top1;
    const double known = judge(likely, text.tokens).top1;
    CAPTURE(spec, nearest, known);
    CHECK(known > nearest - 0.05);
    return known;
  };
  // Hardly any noise, and much: 40 tokens at random are 2.5 %.
  CHECK(read("clip:max=1|binomial:8:mu=3000") == 1);
  CHECK(read("rotate|clip:l2=1|dgauss:mu=60") == 1);
  CHECK(read("clip:max=1|rqm:5:keep=0.9:range=1.1") > 0.9);
  CHECK(read("clip:l2=1|dgauss:mu=0.1") < 0.15);
  CHECK(read("clip:max=1|binomial:4:mu=1") < 0.15);
  // However few bits there are: every token is sent as one thing.
  CHECK(read("int2") == 1);
}

TEST_CASE("random rounding is compared with what it is on average", "[audit][attack]") {
  const std::string spec = GENERATE("sint1", "split:1|clip:max=0.3|sint2|rans");
  const Matrix table = unit_table();
  SystemRandom random;
  const auto codec = value_of(codec::BoundaryCodec::make(value_of(codec::CodecSpec::parse(spec)),
                                                         kWidth, {.random = &random}));
  std::vector<int32_t> tokens(kVocabulary);
  std::iota(tokens.begin(), tokens.end(), 0);
  Matrix means(kVocabulary, kWidth);
  constexpr int kDraws = 5000;
  for (int i = 0; i < kDraws; ++i) {
    const Release drawn = value_of(release(table.view(), tokens, codec));
    for (size_t k = 0; k < kVocabulary * kWidth; ++k)
      means.data()[k] += drawn.rows.data()[k] / kDraws;
  }
  const Matrix expected = value_of(codec.expectations(table.view()));
  for (size_t k = 0; k < kVocabulary * kWidth; ++k)
    CHECK(expected.data()[k] == Approx(means.data()[k]).margin(0.05));

  ThreadPool pool(1);
  const Release text = value_of(release(table.view(), tokens, codec));
  const auto named = value_of(most_likely(text, codec, table.view(), kVocabulary, pool));
  for (size_t r = 0; r < kVocabulary; ++r) {
    const auto half_square = [&](int32_t token) {
      double sum = 0;
      for (size_t c = 0; c < kWidth; ++c)
        sum += std::pow(text.rows.row(r)[c] - expected.row(static_cast<size_t>(token))[c], 2) / 2;
      return sum;
    };
    const double least = half_square(named[r].front().token);
    for (const Candidate& c : named[r])
      CHECK(c.score == Approx(least - half_square(c.token)).margin(1e-4));
  }
}

TEST_CASE("behind a projection likelihoods are the sums written out", "[audit][attack]") {
  constexpr size_t kDims = 5;
  constexpr double kClip = 0.4;
  constexpr double kMu = 25;
  constexpr int kTrials = 7;
  const Matrix table = unit_table();
  Matrix encoder(kDims, kWidth);
  Matrix decoder(kWidth, kDims);
  for (size_t i = 0; i < kDims * kWidth; ++i) {
    encoder.data()[i] = static_cast<float>(counter_uniform(11, i) - 0.5);
    decoder.data()[i] = static_cast<float>(counter_uniform(12, i) - 0.5);
  }
  SystemRandom random;
  const auto codec = value_of(codec::BoundaryCodec::make(
      value_of(
          codec::CodecSpec::parse("proj:5:00000000000000ab|clip:max=0.4|binomial:3:mu=25|rans")),
      kWidth,
      {.projection = std::make_shared<const codec::Projection>(
           value_of(codec::Projection::make(0xab, encoder, decoder))),
       .random = &random}));
  std::vector<int32_t> tokens;
  Matrix rows(600, kWidth);  // more than are asked about at once
  for (size_t r = 0; r < rows.rows(); ++r) {
    tokens.push_back(static_cast<int32_t>(r % kVocabulary));
    std::ranges::copy(table.row(r % kVocabulary), rows.row(r).data());
  }
  const Release noised = value_of(release(rows.view(), tokens, codec));
  ThreadPool pool(2);
  const auto likely = value_of(most_likely(noised, codec, table.view(), kVocabulary, pool));
  // The counts, from the messages as one decodes them without the projection.
  const auto behind = value_of(codec::BoundaryCodec::make(
      value_of(codec::CodecSpec::parse("clip:max=0.4|binomial:3:mu=25|rans")), kDims));
  const double scale = kClip * std::sqrt(4.0 * kTrials * kDims / (kMu * kMu) + 1);
  const auto log_likelihood = [&](size_t token, MatrixView<const float> latents) {
    double sum = 0;
    for (size_t i = 0; i < kDims; ++i) {
      double value = 0;
      for (size_t c = 0; c < kWidth; ++c) value += double{encoder.row(i)[c]} * table.row(token)[c];
      const double p = 0.5 + std::clamp(value, -kClip, kClip) / (2 * scale);
      const double count = std::round((latents.row(0)[i] / scale + 1) * kTrials / 2);
      sum += count * std::log(p) + (kTrials - count) * std::log(1 - p);
    }
    return sum;
  };
  for (size_t r : {0, 1, 39, 511, 512, 599}) {
    Matrix latents(1, kDims);
    value_of(behind.decode_into(noised.messages[r], latents.view()));
    REQUIRE(likely[r].size() == kVocabulary);
    const auto best = static_cast<size_t>(likely[r].front().token);
    for (const Candidate& c : likely[r]) {
      const double expected =
          log_likelihood(static_cast<size_t>(c.token), std::as_const(latents).view()) -
          log_likelihood(best, std::as_const(latents).view());
      CHECK(c.score == Approx(expected).margin(1e-4));
      CHECK(c.score <= 0);
    }
  }
  CHECK(judge(likely, tokens).top1 > 0.5);
}

}  // namespace
}  // namespace isthmus::audit
