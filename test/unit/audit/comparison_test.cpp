#include "comparison.h"

#include <isthmus/core/random.h>

#include <cmath>
#include <stdexcept>

#include "support/catch.h"

namespace isthmus::audit {
namespace {

Matrix matrix(size_t rows, const std::vector<float>& values) {
  Matrix result(rows, values.size() / rows);
  std::copy(values.begin(), values.end(), result.data());
  return result;
}

TEST_CASE("comparisons agree with numbers worked out by hand", "[audit][comparison]") {
  ThreadPool pool(1);
  const auto ln = [](double x) { return static_cast<float>(std::log(x)); };
  // The reference gives 1/2, 1/4, 1/4 and 1/8, 3/8, 1/2; shifting logits changes nothing.
  const ReferenceScores scores(matrix(2, {ln(2), ln(1), ln(1), ln(1) + 50, ln(3) + 50, ln(4) + 50}),
                               pool);
  // The other one gives 1/4, 1/2, 1/4 and the same as the reference.
  const Matrix other = matrix(2, {ln(1) - 7, ln(2) - 7, ln(1) - 7, ln(1), ln(3), ln(4)});
  std::vector<Prediction> predictions;
  const int32_t targets[] = {0, 1};
  scores.compare(other.view(), targets, predictions);
  REQUIRE(predictions.size() == 2);
  CHECK(predictions[0].nll_reference == Approx(std::log(2.0)));
  CHECK(predictions[0].nll == Approx(std::log(4.0)));
  CHECK(predictions[0].kl == Approx(0.25 * std::log(2.0)));  // (1/2 - 1/4) ln 2
  CHECK(predictions[0].flipped);
  CHECK(predictions[1].nll_reference == Approx(std::log(8.0 / 3)));
  CHECK(predictions[1].nll == Approx(std::log(8.0 / 3)));
  CHECK(predictions[1].kl == Approx(0).margin(1e-6));
  CHECK_FALSE(predictions[1].flipped);
}

TEST_CASE("a large vocabulary is summed as exactly as in double", "[audit][comparison]") {
  constexpr size_t kVocabulary = 50'001;
  const auto gap = GENERATE(0.001F, 1.0F);
  ThreadPool pool(2);
  Matrix reference(3, kVocabulary);
  Matrix other(3, kVocabulary);
  for (size_t i = 0; i < 3 * kVocabulary; ++i) {
    reference.data()[i] = static_cast<float>(20 * counter_uniform(1, i));
    other.data()[i] = reference.data()[i] + gap * static_cast<float>(counter_uniform(2, i) - 0.5);
  }
  std::vector<Prediction> predictions;
  const int32_t targets[] = {0, 50'000, 777};
  ReferenceScores(reference, pool).compare(std::as_const(other).view(), targets, predictions);
  for (size_t r = 0; r < 3; ++r) {
    double sums[2] = {};
    for (size_t i = 0; i < kVocabulary; ++i) {
      sums[0] += std::exp(static_cast<double>(reference.row(r)[i]));
      sums[1] += std::exp(static_cast<double>(other.row(r)[i]));
    }
    double divergence = 0;
    for (size_t i = 0; i < kVocabulary; ++i) {
      const double log_p = reference.row(r)[i] - std::log(sums[0]);
      divergence += std::exp(log_p) * (log_p - (other.row(r)[i] - std::log(sums[1])));
    }
    const auto target = static_cast<size_t>(targets[r]);
    CAPTURE(gap, r);
    CHECK(predictions[r].nll_reference ==
          Approx(std::log(sums[0]) - reference.row(r)[target]).epsilon(1e-6));
    CHECK(predictions[r].nll == Approx(std::log(sums[1]) - other.row(r)[target]).epsilon(1e-6));
    CHECK(predictions[r].kl == Approx(divergence).margin(3e-7).epsilon(1e-4));
  }
}

TEST_CASE("logits of different shapes are not compared", "[audit][comparison]") {
  ThreadPool pool(1);
  const ReferenceScores scores(Matrix(2, 3), pool);
  std::vector<Prediction> predictions;
  const int32_t targets[] = {0, 0, 0};
  const Matrix same(2, 3);
  CHECK_THROWS_AS(scores.compare(Matrix(2, 4).view(), std::span(targets, 2), predictions),
                  std::invalid_argument);
  CHECK_THROWS_AS(scores.compare(Matrix(3, 3).view(), std::span(targets, 2), predictions),
                  std::invalid_argument);
  CHECK_THROWS_AS(scores.compare(same.view(), targets, predictions), std::invalid_argument);
}

}  // namespace
}  // namespace isthmus::audit
