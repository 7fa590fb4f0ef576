#include <isthmus/core/random.h>
#include <isthmus/engine/sampler.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "support/catch.h"

namespace isthmus::engine {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

int32_t pick(const std::vector<float>& logits, const SamplingOptions& options, int64_t position = 0,
             const std::vector<int32_t>& generated = {}) {
  return test::value_of(sample(logits, options, generated, position));
}

/// How often each id is drawn at positions 0 .. draws - 1.
std::vector<int> histogram(const std::vector<float>& logits, const SamplingOptions& options,
                           int draws) {
  std::vector<int> counts(logits.size());
  for (int position = 0; position < draws; ++position) {
    ++counts[static_cast<size_t>(pick(logits, options, position))];
  }
  return counts;
}

std::vector<float> log_of(const std::vector<double>& probabilities) {
  std::vector<float> logits;
  for (const double p : probabilities) logits.push_back(static_cast<float>(std::log(p)));
  return logits;
}

TEST_CASE("greedy takes the largest logit, and the smallest id among equals", "[sampler]") {
  CHECK(pick({1, 3, 2}, {}) == 1);
  CHECK(pick({1, 3, 3, 2}, {}) == 1);
  CHECK(pick({-kInfinity, -5, -kInfinity}, {}) == 1);
  CHECK(pick({0}, {}) == 0);
}

TEST_CASE("every place of a long row is looked at", "[sampler]") {
  const size_t size = GENERATE(15, 16, 17, 64, 67);
  for (size_t place = 0; place < size; ++place) {
    CAPTURE(size, place);
    std::vector<float> logits(size, -2);
    logits[place] = -1;
    CHECK(pick(logits, {}) == static_cast<int32_t>(place));
    for (const float bad : {kNaN, kInfinity}) {
      logits[place] = bad;
      CHECK_FAILS_WITH(sample(logits, {}, {}, 0), ErrorCode::kNotFinite);
    }
  }
}

TEST_CASE("the repetition penalty divides positive and multiplies negative logits once",
          "[sampler]") {
  const SamplingOptions options{.repetition_penalty = 2};
  CHECK(pick({4, 3}, options, 0, {}) == 0);
  CHECK(pick({4, 3}, options, 0, {0}) == 1);
  CHECK(pick({7, 3}, options, 0, {0, 0, 0}) == 0);  // once, however often it occurred
  CHECK(pick({-1, -1.5}, options, 0, {0}) == 1);
  CHECK(pick({-1, -2.5}, options, 0, {0}) == 0);
}

TEST_CASE("drawn frequencies are the softmax at every temperature", "[sampler]") {
  // 20,000 draws: a frequency is off by more than 0.02 with probability below 1e-8 (Hoeffding).
  const float temperature = GENERATE(0.5F, 1.0F, 2.0F);
  const std::vector<float> logits = {0, 1, -1, 2, -kInfinity};
  double total = 0;
  for (const float logit : logits) total += std::exp(logit / temperature);
  const auto counts = histogram(logits, {.temperature = temperature, .seed = 5}, 20000);
  for (size_t i = 0; i < logits.size(); ++i) {
    CAPTURE(temperature, i);
    CHECK(std::abs(counts[i] / 20000.0 - std::exp(logits[i] / temperature) / total) < 0.02);
  }
  CHECK(counts[4] == 0);
}

/// Logits of a large vocabulary, with the spread of a language model's.
std::vector<float> many_logits(uint64_t seed) {
  std::vector<float> logits(5000);
  for (size_t i = 0; i < logits.size(); ++i) {
    const double u = counter_uniform(seed, i);
    logits[i] = static_cast<float>(3 * std::log(u / (1 - u)));
  }
  return logits;
}

TEST_CASE("who is turned away early would not have come first", "[sampler]") {
  for (uint64_t seed = 0; seed < 50; ++seed) {
    const std::vector<float> logits = many_logits(seed);
    const CounterRandom random(CounterRandom(seed).bits(7));
    std::vector<double> leads;
    for (size_t i = 0; i < logits.size(); ++i) {
      const double v = (static_cast<double>(random.bits(i) >> 12U) + 0.5) * 0x1p-52;
      leads.push_back(logits[i] / 0.8 - std::log(-std::log1p(-v)));
    }
    const auto first = std::max_element(leads.begin(), leads.end()) - leads.begin();
    CHECK(pick(logits, {.temperature = 0.8F, .seed = seed}, 7) == first);
  }
}

TEST_CASE("of logits that differ a little the same token is drawn, but for twice the difference",
          "[sampler]") {
  constexpr int kDraws = 2000;
  int other = 0;
  double bound = 0;
  for (uint64_t draw = 0; draw < kDraws; ++draw) {
    std::vector<float> logits = many_logits(draw % 20);
    std::vector<float> rounded = logits;
    for (size_t i = 0; i < rounded.size(); ++i)
      rounded[i] += static_cast<float>(0.3 * (counter_uniform(1000 + draw, i) - 0.5));
    const auto position = static_cast<int64_t>(draw);
    other +=
        pick(logits, {.temperature = 1}, position) != pick(rounded, {.temperature = 1}, position);
    double total = 0;
    double rounded_total = 0;
    for (size_t i = 0; i < logits.size(); ++i) {
      total += std::exp(logits[i]);
      rounded_total += std::exp(rounded[i]);
    }
    double distance = 0;
    for (size_t i = 0; i < logits.size(); ++i)
      distance += std::abs(std::exp(logits[i]) / total - std::exp(rounded[i]) / rounded_total) / 2;
    bound += 2 * distance / (1 + distance);
  }
  CAPTURE(other, bound);
  CHECK(other > 0);
  CHECK(other < bound + 5 * std::sqrt(bound));  // five standard deviations
  CHECK(bound < 0.2 * kDraws);
}

TEST_CASE("top p keeps the fewest that have the share, whatever weighs next to nothing",
          "[sampler]") {
  for (const float p : {0.1F, 0.5F, 0.9F, 0.99F}) {
    const std::vector<float> logits = many_logits(3);
    std::vector<size_t> order(logits.size());
    std::iota(order.begin(), order.end(), size_t{0});
    std::ranges::sort(order, [&](size_t a, size_t b) { return logits[a] > logits[b]; });
    double total = 0;
    for (const float logit : logits) total += std::exp(logit);
    std::vector<bool> kept(logits.size());
    double sum = 0;
    for (size_t i = 0; sum < p * total; ++i) {
      kept[order[i]] = true;
      sum += std::exp(logits[order[i]]);
    }
    const auto counts = histogram(logits, {.temperature = 1, .top_p = p}, 3000);
    for (size_t i = 0; i < logits.size(); ++i) {
      CAPTURE(p, i);
      if (!kept[i]) REQUIRE(counts[i] == 0);
      if (kept[i] && std::exp(logits[i]) > 0.01 * total) REQUIRE(counts[i] > 0);
    }
  }
}

TEST_CASE("a draw depends on seed and position alone", "[sampler]") {
  std::vector<float> logits(100);
  for (size_t i = 0; i < logits.size(); ++i) logits[i] = static_cast<float>(i % 7);
  const SamplingOptions options{.temperature = 1, .seed = 11};
  SamplingOptions other = options;
  other.seed = 12;
  int same = 0;
  for (int64_t position = 0; position < 100; ++position) {
    const int32_t id = pick(logits, options, position);
    CHECK(pick(logits, options, position) == id);
    same += pick(logits, other, position) == id;
  }
  CHECK(same < 50);
  const auto counts = histogram(logits, options, 100);
  CHECK(*std::max_element(counts.begin(), counts.end()) < 50);
}

TEST_CASE("each filter keeps exactly the tokens it should", "[sampler]") {
  struct Case {
    const char* name;
    SamplingOptions options;
    std::vector<bool> kept;
  };
  const std::vector<float> logits = log_of({0.1, 0.4, 0.15, 0.25, 0.1});
  const auto [name, options, kept] = GENERATE(values<Case>({
      {"all", {.temperature = 1}, {true, true, true, true, true}},
      {"top 1", {.temperature = 1, .top_k = 1}, {false, true, false, false, false}},
      {"top 3", {.temperature = 1, .top_k = 3}, {false, true, true, true, false}},
      {"top 4, smallest id of equals",
       {.temperature = 1, .top_k = 4},
       {true, true, true, true, false}},
      {"top 9", {.temperature = 1, .top_k = 9}, {true, true, true, true, true}},
      {"top p 0.3", {.temperature = 1, .top_p = 0.3F}, {false, true, false, false, false}},
      {"top p 0.6", {.temperature = 1, .top_p = 0.6F}, {false, true, false, true, false}},
      {"top p 0.85", {.temperature = 1, .top_p = 0.85F}, {true, true, true, true, false}},
      {"top p of what top k left",
       {.temperature = 1, .top_k = 3, .top_p = 0.8F},
       {false, true, false, true, false}},
      {"min p 0.5", {.temperature = 1, .min_p = 0.5F}, {false, true, false, true, false}},
      {"min p 1", {.temperature = 1, .min_p = 1}, {false, true, false, false, false}},
      {"min p after temperature",
       {.temperature = 2, .min_p = 0.55F},
       {false, true, true, true, false}},
  }));
  const auto counts = histogram(logits, options, 2000);
  for (size_t i = 0; i < kept.size(); ++i) {
    CAPTURE(name, i);
    CHECK((counts[i] > 0) == kept[i]);
  }
}

TEST_CASE("kept tokens keep their relative frequencies", "[sampler]") {
  const auto counts = histogram(log_of({0.1, 0.4, 0.15, 0.25, 0.1}),
                                {.temperature = 1, .top_k = 2, .seed = 3}, 20000);
  CHECK(std::abs(counts[1] / 20000.0 - 0.4 / 0.65) < 0.02);
}

TEST_CASE("very low temperatures are greedy, not undefined", "[sampler]") {
  CHECK(pick({1, 2, 1.5F}, {.temperature = 1e-30F}) == 1);
  CHECK(pick({-1e38F, 1e38F}, {.temperature = 1e-38F}) == 1);
}

TEST_CASE("logits that are not numbers are refused", "[sampler]") {
  for (const float temperature : {0.0F, 1.0F}) {
    const SamplingOptions options{.temperature = temperature};
    for (const std::vector<float>& logits :
         {std::vector<float>{}, {kNaN, 1}, {1, kNaN}, {kInfinity, 1}, {-kInfinity, -kInfinity}}) {
      CHECK_FAILS_WITH(sample(logits, options, {}, 0), ErrorCode::kNotFinite);
    }
  }
}

TEST_CASE("options outside their ranges are refused by name", "[sampler]") {
  const auto refused = [](SamplingOptions options, const char* field) {
    CAPTURE(field);
    const Status status = options.validate();
    REQUIRE_FALSE(status.has_value());
    CHECK(status.error().code == ErrorCode::kInvalidArgument);
    CHECK(status.error().message.find(field) != std::string::npos);
    CHECK_FAILS_WITH(sample(std::vector<float>{1}, options, {}, 0), ErrorCode::kInvalidArgument);
  };
  for (const float bad : {-0.1F, 100.5F, kNaN, kInfinity}) {
    refused({.temperature = bad}, "temperature");
  }
  refused({.top_k = -1}, "top_k");
  for (const float bad : {0.0F, -1.0F, 1.1F, kNaN}) refused({.top_p = bad}, "top_p");
  for (const float bad : {-0.1F, 1.1F, kNaN}) refused({.min_p = bad}, "min_p");
  for (const float bad : {0.9F, 10.5F, kNaN, kInfinity}) {
    refused({.repetition_penalty = bad}, "repetition_penalty");
  }
  const std::vector<float> logits = {1, 2};
  for (const int32_t id : {-1, 2}) {
    CHECK_FAILS_WITH(sample(logits, {}, std::vector<int32_t>{id}, 0), ErrorCode::kInvalidArgument);
  }
  CHECK(SamplingOptions{}.validate().has_value());
  CHECK(SamplingOptions{
      .temperature = 100, .top_k = 5, .top_p = 1, .min_p = 1, .repetition_penalty = 10}
            .validate()
            .has_value());
}

}  // namespace
}  // namespace isthmus::engine
