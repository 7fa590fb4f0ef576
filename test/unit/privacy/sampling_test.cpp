// Drawn codes against distributions worked out here, by other means than the library's. Seeds are
// fixed, so a test gives the same answer every time; the stated chances are those with which a
// right sampler would miss for a seed never tried. The last case shows that the same check fails
// when the noise is halved.
#include <isthmus/privacy/mechanism.h>

#include <cmath>
#include <map>

#include "noise_stream.h"
#include "support/catch.h"
#include "support/seeded_random.h"

namespace isthmus::privacy {
namespace {

using Distribution = std::map<int32_t, double>;

constexpr size_t kWidth = 64;
constexpr size_t kRows = 6000;
constexpr double kDraws = static_cast<double>(kWidth * kRows);

std::unique_ptr<Mechanism> mechanism(const std::string& text) {
  return test::value_of(
      make_mechanism(test::value_of(MechanismSpec::parse(text)), kWidth, {.coordinate = 1}));
}

/// Codes of `kRows` rows with the same number everywhere, all of them alike and independent.
Distribution drawn(const Mechanism& m, float value, uint64_t seed) {
  test::SeededRandom random(seed);
  const std::vector<float> row(kWidth, value);
  std::vector<int32_t> codes(kWidth);
  Distribution out;
  for (size_t i = 0; i < kRows; ++i) {
    REQUIRE(m.randomize(row, random, codes));
    for (const int32_t code : codes) out[code] += 1 / kDraws;
  }
  return out;
}

/// Largest difference of the two distribution functions.
double distance(const Distribution& a, const Distribution& b) {
  std::map<int32_t, double> difference = a;
  for (const auto& [code, p] : b) difference[code] -= p;
  double sum = 0;
  double largest = 0;
  for (const auto& [code, d] : difference) largest = std::max(largest, std::abs(sum += d));
  return largest;
}

/// Dvoretzky, Kiefer, Wolfowitz: a right sampler is further off with a chance below 1e-9.
const double kDistance = std::sqrt(std::log(2 / 1e-9) / (2 * kDraws));

struct Moments {
  double mean = 0;
  double variance = 0;
  double fourth = 0;  // central
};

/// Of the estimates.
Moments moments_of(const Mechanism& m, const Distribution& distribution) {
  const auto estimate = [&](int32_t code) {
    std::vector<float> row(kWidth);
    REQUIRE(m.estimate(std::vector<int32_t>(kWidth, code), row));
    return static_cast<double>(row[0]);
  };
  Moments out;
  for (const auto& [code, p] : distribution) out.mean += p * estimate(code);
  for (const auto& [code, p] : distribution) {
    const double square = std::pow(estimate(code) - out.mean, 2);
    out.variance += p * square;
    out.fourth += p * square * square;
  }
  return out;
}

Distribution binomial(unsigned bits, double mu, double value) {
  const double trials = (1U << bits) - 1;
  const double scale = std::sqrt(4 * trials * kWidth / (mu * mu) + 1);
  const double p = 0.5 + value / (2 * scale);
  Distribution out;
  for (int k = 0; k <= trials; ++k)
    out[k] = std::exp(std::lgamma(trials + 1) - std::lgamma(k + 1) - std::lgamma(trials - k + 1) +
                      k * std::log(p) + (trials - k) * std::log1p(-p));
  return out;
}

/// `sigma` and `step` as the mechanism should have derived them: the estimate of code 1 is a step,
/// and the noise is the first power of two of steps that calibrates mu.
Distribution discrete_gaussian(const Mechanism& m, double mu, double value) {
  std::vector<float> row(kWidth);
  REQUIRE(m.estimate(std::vector<int32_t>(kWidth, 1), row));
  const double step = row[0];
  const double needed = 2 * std::sqrt(static_cast<double>(kWidth)) / mu;
  double sigma = 1;
  while (sigma * step < needed) sigma *= 2;
  CHECK(sigma * step < 1.06 * needed);  // what the lattice costs
  const double below = std::floor(value / step);
  const double up = value / step - below;
  const auto reach = static_cast<int>(11 * sigma);
  double total = 0;
  for (int k = -reach; k <= reach; ++k) total += std::exp(-0.5 * k * k / (sigma * sigma));
  Distribution out;
  for (int k = -reach; k <= reach; ++k) {
    const double p = std::exp(-0.5 * k * k / (sigma * sigma)) / total;
    out[static_cast<int32_t>(below) + k] += (1 - up) * p;
    out[static_cast<int32_t>(below) + k + 1] += up * p;
  }
  return out;
}

/// By running through every set of kept levels.
Distribution rqm(unsigned bits, double keep, double range, double value) {
  const int last = (1 << bits) - 1;
  const auto level = [&](int i) { return range * (2.0 * i / last - 1); };
  Distribution out;
  for (unsigned kept = 0; kept < 1U << (last - 1); ++kept) {
    int left = 0;
    int right = last;
    double chance = 1;
    for (int i = last - 1; i >= 1; --i) {
      const bool has = (kept >> (i - 1)) % 2 == 1;
      chance *= has ? keep : 1 - keep;
      if (has && level(i) > value) right = i;
    }
    for (int i = 1; i < last; ++i)
      if ((kept >> (i - 1)) % 2 == 1 && level(i) <= value) left = i;
    const double up = (value - level(left)) / (level(right) - level(left));
    out[left] += chance * (1 - up);
    out[right] += chance * up;
  }
  return out;
}

struct Case {
  std::string text;
  std::function<Distribution(const Mechanism&, double)> theory;
};

std::vector<Case> cases() {
  return {
      {"binomial:1:mu=5", [](const Mechanism&, double v) { return binomial(1, 5, v); }},
      {"binomial:4:mu=20", [](const Mechanism&, double v) { return binomial(4, 20, v); }},
      {"binomial:8:mu=50", [](const Mechanism&, double v) { return binomial(8, 50, v); }},
      {"dgauss:mu=5", [](const Mechanism& m, double v) { return discrete_gaussian(m, 5, v); }},
      {"dgauss:mu=40", [](const Mechanism& m, double v) { return discrete_gaussian(m, 40, v); }},
      {"rqm:2:range=1.5", [](const Mechanism&, double v) { return rqm(2, 0.5, 1.5, v); }},
      {"rqm:4:keep=0.25:range=3", [](const Mechanism&, double v) { return rqm(4, 0.25, 3, v); }},
  };
}

TEST_CASE("codes are distributed as the theory says", "[privacy][sampling]") {
  for (const Case& c : cases()) {
    for (const float value : {0.0F, 1.0F, -0.37F}) {
      const auto m = mechanism(c.text);
      CAPTURE(c.text, value);
      CHECK(distance(drawn(*m, value, 1), c.theory(*m, value)) < kDistance);
    }
  }
}

// 7 standard deviations: for the normal limit a chance below 3e-12 each.
TEST_CASE("estimates are unbiased and vary as the theory says", "[privacy][sampling]") {
  for (const Case& c : cases()) {
    for (const float value : {0.0F, 1.0F, -0.37F}) {
      const auto m = mechanism(c.text);
      const Moments is = moments_of(*m, drawn(*m, value, 2));
      const Moments should = moments_of(*m, c.theory(*m, value));
      CAPTURE(c.text, value, is.mean, is.variance, should.variance);
      CHECK(std::abs(should.mean - value) < 1e-5 * std::sqrt(should.variance));
      CHECK(std::abs(is.mean - value) < 7 * std::sqrt(should.variance / kDraws));
      const double spread = std::sqrt((should.fourth - should.variance * should.variance) / kDraws);
      // With two codes of equal chance the spread is 0 and the error of the mean remains.
      CHECK(std::abs(is.variance - should.variance) < 7 * spread + 49 * should.variance / kDraws);
    }
  }
}

TEST_CASE("the binomial's variance is the closed form", "[privacy][sampling]") {
  // 4 d c^2 / mu^2 + (c^2 - v^2) / R.
  const auto m = mechanism("binomial:4:mu=20");
  for (const double value : {0.0, 1.0, -0.37})
    CHECK(moments_of(*m, binomial(4, 20, value)).variance ==
          Approx(4.0 * kWidth / 400 + (1 - value * value) / 15).epsilon(1e-6));
}

TEST_CASE("the distribution given for entropy coding is the one drawn", "[privacy][sampling]") {
  for (const Case& c : cases()) {
    const auto m = mechanism(c.text);
    CAPTURE(c.text);
    const auto p = m->zero_distribution();
    const Distribution theory = c.theory(*m, 0);
    for (size_t i = 0; i < p.size(); ++i) {
      const auto found = theory.find(m->code_range().first + static_cast<int32_t>(i));
      if (found != theory.end()) CHECK(std::abs(p[i] - found->second) < 1e-12);
    }
  }
}

TEST_CASE("coordinates of a row are drawn independently", "[privacy][sampling]") {
  // The sum of a row's estimates varies as the sum of the variances: shared randomness would show.
  for (const Case& c : cases()) {
    const auto m = mechanism(c.text);
    const double variance = moments_of(*m, c.theory(*m, 0)).variance * kWidth;
    test::SeededRandom random(3);
    const std::vector<float> row(kWidth, 0);
    std::vector<int32_t> codes(kWidth);
    std::vector<float> estimate(kWidth);
    double squares = 0;
    for (size_t i = 0; i < kRows; ++i) {
      REQUIRE(m->randomize(row, random, codes));
      REQUIRE(m->estimate(codes, estimate));
      double sum = 0;
      for (const float v : estimate) sum += v;
      squares += sum * sum / kRows;
    }
    CAPTURE(c.text, variance, squares);
    CHECK(std::abs(squares - variance) < 7 * variance * std::sqrt(2.0 / kRows));
  }
}

TEST_CASE("halved noise is found out by the same checks", "[privacy][sampling]") {
  // Twice the mu is half the standard deviation; for rqm half the range.
  const std::vector<std::pair<std::string, Distribution>> halved{
      {"binomial:1:mu=10", binomial(1, 5, 1)},
      {"binomial:4:mu=40", binomial(4, 20, 1)},
      {"rqm:4:keep=0.25:range=1.5", rqm(4, 0.25, 3, 1)},
  };
  for (const auto& [text, theory] : halved) {
    const auto m = mechanism(text);
    CAPTURE(text);
    CHECK(distance(drawn(*m, 1, 1), theory) > 2 * kDistance);
  }
  // Codes count steps, which halve with the noise, so here the variance of the estimate tells.
  const Moments is =
      moments_of(*mechanism("dgauss:mu=10"), drawn(*mechanism("dgauss:mu=10"), 1, 1));
  const auto right = mechanism("dgauss:mu=5");
  const Moments should = moments_of(*right, discrete_gaussian(*right, 5, 1));
  const double spread = std::sqrt((should.fourth - should.variance * should.variance) / kDraws);
  CHECK(std::abs(is.variance - should.variance) > 100 * spread);
}

TEST_CASE("a uniform number is below any bound with equal chances", "[privacy][sampling]") {
  test::SeededRandom random(4);
  NoiseStream noise(random);
  for (const uint64_t bound : {1, 2, 3, 7, 256, 257}) {
    std::vector<double> counts(bound);
    constexpr int kTries = 100000;
    for (int i = 0; i < kTries; ++i) counts.at(noise.below(bound)) += 1;
    for (const double count : counts) {
      const double mean = kTries / static_cast<double>(bound);
      CHECK(std::abs(count - mean) <= 7 * std::sqrt(mean * (1 - 1 / static_cast<double>(bound))));
    }
  }
  CHECK(noise.below(uint64_t{1} << 63) < uint64_t{1} << 63);
}

TEST_CASE("exponential coins come up as often as they should", "[privacy][sampling]") {
  test::SeededRandom random(5);
  NoiseStream noise(random);
  constexpr int kTries = 200000;
  for (const auto& [numerator, denominator] :
       std::vector<std::pair<uint64_t, uint64_t>>{{0, 1}, {1, 8}, {1, 1}, {5, 2}, {3, 1}}) {
    int heads = 0;
    for (int i = 0; i < kTries; ++i)
      heads += noise.exponential_coin(numerator, denominator) ? 1 : 0;
    const double p = std::exp(-static_cast<double>(numerator) / static_cast<double>(denominator));
    CHECK(std::abs(heads - kTries * p) <= 7 * std::sqrt(kTries * p * (1 - p)));
  }
}

TEST_CASE("every number of trials is drawn for every coordinate", "[privacy][sampling]") {
  test::SeededRandom random(6);
  NoiseStream noise(random);
  for (const unsigned trials : {1, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 255}) {
    for (const size_t width : {1, 2, 3, 7, 8, 9, 37}) {
      CAPTURE(trials, width);
      // None below 0; below 2^32 - 1 all but one in 2^32; between them the mean.
      std::vector<uint32_t> thresholds(width, 0);
      std::vector<int32_t> counts(width, -1);
      noise.binomial(trials, thresholds, counts);
      CHECK(counts == std::vector<int32_t>(width, 0));
      thresholds.assign(width, 0xffffffffU);
      noise.binomial(trials, thresholds, counts);
      CHECK(counts == std::vector<int32_t>(width, static_cast<int32_t>(trials)));
      // Neighbours do not share a threshold: only the odd ones succeed.
      for (size_t i = 0; i < width; ++i) thresholds[i] = i % 2 == 1 ? 0xffffffffU : 0;
      noise.binomial(trials, thresholds, counts);
      for (size_t i = 0; i < width; ++i)
        CHECK(counts[i] == (i % 2 == 1 ? static_cast<int32_t>(trials) : 0));
    }
  }
}

TEST_CASE("codes are drawn as often as their log-probabilities say", "[privacy][sampling]") {
  const auto m = mechanism(
      GENERATE("binomial:1:mu=30", "binomial:3:mu=60", "dgauss:mu=40", "rqm:3:keep=0.4:range=2"));
  CAPTURE(m->spec().to_string());
  const float value = GENERATE(-1.0F, 0.0F, 0.37F);
  const std::vector<float> row(kWidth, value);
  const CodeRange range = m->code_range();
  Distribution stated;
  double total = 0;
  for (int32_t code = range.first; code <= range.last; ++code) {
    const double log =
        test::value_of(m->log_probabilities(row, std::vector<int32_t>(kWidth, code))).at(0) /
        kWidth;
    total += stated[code] = std::exp(log);
  }
  CHECK(total == Approx(1).margin(1e-9));
  CHECK(distance(stated, drawn(*m, value, 77)) < kDistance);
  CHECK_FAILS_WITH(m->log_probabilities(row, std::vector<int32_t>(kWidth, range.last + 1)),
                   ErrorCode::kCorrupt);
  CHECK_FAILS_WITH(m->log_probabilities(row, std::vector<int32_t>(2 * kWidth - 1)),
                   ErrorCode::kInvalidArgument);
  CHECK_FAILS_WITH(
      m->log_probabilities(std::vector<float>(kWidth, NAN), std::vector<int32_t>(kWidth)),
      ErrorCode::kNotFinite);
}

}  // namespace
}  // namespace isthmus::privacy
