#include <isthmus/audit/quality.h>

#include <cmath>
#include <numeric>
#include <stdexcept>
#include <utility>
#include <vector>

#include "support/catch.h"

namespace isthmus::audit {
namespace {

// Three windows of two predictions whose mean NLL differs by 0.1, 0.2 and 0.6.
PredictionLog three_windows() {
  PredictionLog log{.per_window = 2};
  log.predictions = {{1, 1.0, 0.5, false}, {2, 2.2, 0.1, true},  {3, 3.3, 0.0, false},
                     {1, 1.1, 0.2, false}, {0, 1.2, 0.4, false}, {1, 1.0, 0.0, true}};
  return log;
}

TEST_CASE("a log's summary agrees with numbers worked out by hand", "[audit][quality]") {
  const Quality quality = summarize(three_windows());
  CHECK(quality.predictions == 6);
  CHECK(quality.perplexity_reference == Approx(std::exp(8.0 / 6)));
  CHECK(quality.perplexity == Approx(std::exp(9.8 / 6)));
  CHECK(quality.kl_nats == Approx(0.2));
  CHECK(quality.top1_flips == Approx(1.0 / 3));
  CHECK(quality.change == Approx(std::exp(0.3) - 1));
  // The differences' standard deviation is sqrt(0.07); t with 2 degrees of freedom is 4.303.
  const double half = 4.303 * std::sqrt(0.07 / 3);
  REQUIRE(quality.change_interval);
  CHECK(quality.change_interval->low == Approx(std::exp(0.3 - half) - 1));
  CHECK(quality.change_interval->high == Approx(std::exp(0.3 + half) - 1));
}

TEST_CASE("one window has no interval, and a log that is no windows no summary",
          "[audit][quality]") {
  PredictionLog log = three_windows();
  log.per_window = 6;
  CHECK_FALSE(summarize(log).change_interval);
  log.per_window = 4;
  CHECK_THROWS_AS(summarize(log), std::invalid_argument);
  CHECK_THROWS_AS(summarize({}), std::invalid_argument);
}

TEST_CASE("the mean over cuts averages changes, and windows are not counted twice",
          "[audit][quality]") {
  const PredictionLog log = three_windows();
  const PredictionLog* twice[] = {&log, &log};
  const MeanChange mean = mean_change(twice);
  const double half = 4.303 * std::sqrt(0.07 / 3) * std::exp(0.3);
  CHECK(mean.change == Approx(std::exp(0.3) - 1));
  REQUIRE(mean.interval);
  CHECK(mean.interval->low == Approx(mean.change - half));
  CHECK(mean.interval->high == Approx(mean.change + half));

  // A second cut whose windows move the other way takes the spread away.
  PredictionLog opposite = log;
  for (Prediction& p : opposite.predictions)
    p.nll = p.nll_reference + 0.6 - (p.nll - p.nll_reference);
  const PredictionLog* both[] = {&log, &opposite};
  CHECK(mean_change(both).change == Approx(std::exp(0.3) - 1));
  CHECK(mean_change(both).interval->high - mean_change(both).interval->low ==
        Approx(0).margin(1e-12));

  PredictionLog shorter = log;
  shorter.predictions.resize(4);
  const PredictionLog* different[] = {&log, &shorter};
  CHECK_THROWS_AS(mean_change(different), std::invalid_argument);
  CHECK_THROWS_AS(mean_change({}), std::invalid_argument);
}

TEST_CASE("texts overlap when a window of one stands in the other, wherever", "[audit][quality]") {
  const size_t window = GENERATE(2, 40);
  const auto text_of = [&](int32_t first, size_t count) {
    TextWindows text{.tokens = std::vector<int32_t>(count), .window = window};
    std::iota(text.tokens.begin(), text.tokens.end(), first);
    return text;
  };
  const TextWindows text = text_of(1, 80);
  CHECK(overlap(text, text));
  CHECK(overlap(text, text_of(-20, 80)));       // the first window, elsewhere
  CHECK(overlap(text, text_of(41, 80)));        // the second
  CHECK_FALSE(overlap(text, text_of(62, 80)));  // not enough to tell
  CHECK_FALSE(overlap(text, text_of(-20, 50)));
  CHECK_FALSE(overlap(text, text_of(0, 0)));
  CHECK_FALSE(overlap(text_of(0, 0), text));
}

TEST_CASE("Student's t past the table stays close to published values", "[audit][quality]") {
  // 61 windows that differ by +1 and -1 in turn, but for one that does not differ.
  PredictionLog log{.per_window = 1};
  log.predictions.push_back({});
  for (int i = 0; i < 60; ++i) log.predictions.push_back({.nll = i % 2 == 0 ? 1e-3 : -1e-3});
  const auto interval = summarize(log).change_interval;
  REQUIRE(interval);
  const double error = 1e-3 / std::sqrt(61.0);  // the sample's deviation is 1e-3 exactly
  CHECK(interval->high == Approx(2.000 * error).epsilon(0.003));
}

}  // namespace
}  // namespace isthmus::audit
