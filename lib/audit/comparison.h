// Two models' scores for the same next tokens.
#pragma once

#include <isthmus/audit/quality.h>
#include <isthmus/core/matrix.h>
#include <isthmus/core/thread_pool.h>

#include <cstdint>
#include <span>
#include <vector>

namespace isthmus::audit {

/// What turns logits into probabilities: e^(logit - largest - log_sum).
struct Normalizer {
  float largest = 0;
  double log_sum = 0;

  [[nodiscard]] double nll(float logit) const {
    return log_sum - (static_cast<double>(logit) - static_cast<double>(largest));
  }
};

/// Logits [T, V] of the reference, and what every comparison with them needs.
class ReferenceScores {
 public:
  ReferenceScores(Matrix logits, ThreadPool& pool);

  /// Compares `logits` [T, V] row by row; row i predicts targets[i]. Rows behind the last target
  /// predict nothing. \throws std::invalid_argument for another shape.
  void compare(MatrixView<const float> logits, std::span<const int32_t> targets,
               std::vector<Prediction>& out) const;

 private:
  Matrix logits_;
  Matrix probabilities_;
  std::vector<Normalizer> normalizers_;
  std::vector<int32_t> likeliest_;
  ThreadPool& pool_;
};

}  // namespace isthmus::audit
