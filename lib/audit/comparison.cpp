#include "comparison.h"

#include <Eigen/Core>
#include <algorithm>
#include <cmath>
#include <stdexcept>

namespace isthmus::audit {
namespace {

using Row = Eigen::Map<const Eigen::ArrayXf>;

Row as_array(std::span<const float> values) {
  return {values.data(), static_cast<Eigen::Index>(values.size())};
}

// Sums in float are exact enough for so many terms at a time, and in double for the rest.
template <typename Expression>
double sum(const Expression& terms) {
  constexpr Eigen::Index kTerms = 512;
  double total = 0;
  for (Eigen::Index first = 0; first < terms.size(); first += kTerms) {
    total += terms.segment(first, std::min(kTerms, terms.size() - first)).sum();
  }
  return total;
}

Normalizer normalizer_of(std::span<const float> row) {
  const float largest = *std::max_element(row.begin(), row.end());
  return {.largest = largest, .log_sum = std::log(sum((as_array(row) - largest).exp()))};
}

int32_t likeliest(std::span<const float> row) {
  return static_cast<int32_t>(std::max_element(row.begin(), row.end()) - row.begin());
}

}  // namespace

ReferenceScores::ReferenceScores(Matrix logits, ThreadPool& pool)
    : logits_(std::move(logits)),
      probabilities_(logits_.rows(), logits_.cols()),
      normalizers_(logits_.rows()),
      likeliest_(logits_.rows()),
      pool_(pool) {
  pool_.parallel_for(logits_.rows(), 1, [this](size_t begin, size_t end) {
    for (size_t r = begin; r < end; ++r) {
      const auto row = std::as_const(logits_).row(r);
      const Normalizer n = normalizer_of(row);
      normalizers_[r] = n;
      likeliest_[r] = likeliest(row);
      Eigen::Map<Eigen::ArrayXf>(probabilities_.row(r).data(),
                                 static_cast<Eigen::Index>(row.size())) =
          (as_array(row) - n.largest).exp() * static_cast<float>(std::exp(-n.log_sum));
    }
  });
}

void ReferenceScores::compare(MatrixView<const float> logits, std::span<const int32_t> targets,
                              std::vector<Prediction>& out) const {
  if (logits.rows() != logits_.rows() || logits.cols() != logits_.cols() ||
      targets.size() > logits.rows()) {
    throw std::invalid_argument("audit: logits of different shapes are compared");
  }
  const size_t first = out.size();
  out.resize(first + targets.size());
  pool_.parallel_for(targets.size(), 1, [&](size_t begin, size_t end) {
    for (size_t r = begin; r < end; ++r) {
      const auto reference = logits_.row(r);
      const auto row = logits.row(r);
      const auto target = static_cast<size_t>(targets[r]);
      const Normalizer& n_reference = normalizers_[r];
      const Normalizer n = normalizer_of(row);
      // sum p (log p - log q), largest logits put at 0 so that constant shifts cannot cost digits.
      const double divergence =
          sum(as_array(probabilities_.row(r)) *
              ((as_array(reference) - n_reference.largest) - (as_array(row) - n.largest))) +
          n.log_sum - n_reference.log_sum;
      out[first + r] = {.nll_reference = n_reference.nll(reference[target]),
                        .nll = n.nll(row[target]),
                        .kl = std::max(divergence, 0.0),  // below 0 by rounding only
                        .flipped = likeliest(row) != likeliest_[r]};
    }
  });
}

}  // namespace isthmus::audit
