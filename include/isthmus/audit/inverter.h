// Attackers that learn from released rows of known text how to estimate embeddings, for
// `nearest_neighbors`.
#pragma once

#include <isthmus/audit/attack.h>
#include <isthmus/core/error.h>
#include <isthmus/core/matrix.h>
#include <isthmus/core/thread_pool.h>
#include <cstddef>
#include <memory>
#include <vector>

namespace isthmus::audit {

/// Ridge regression from released rows to the unit embeddings of their tokens, channels scaled to
/// unit variance. The penalty is the one, of a grid, with the least error on the last fifth of the
/// training rows; the fit then uses all. Immutable and cheap to copy.
class RidgeInverter {
 public:
  /// \returns kInvalidArgument for fewer than 10 rows, or tokens outside the table.
  [[nodiscard]] static Result<RidgeInverter> fit(const Release& train,
                                                 MatrixView<const float> embeddings);
  /// Estimated embeddings of rows of the training rows' width.
  [[nodiscard]] Matrix invert(MatrixView<const float> rows) const;

 private:
  struct Impl;
  explicit RidgeInverter(std::shared_ptr<const Impl> impl);
  std::shared_ptr<const Impl> impl_;
};

/// A network with one hidden layer that sees a row and its two neighbours, added to a ridge
/// inverter. Trained on sampled softmax over the vocabulary until the tokens read in the last fifth
/// of the training windows are no longer more; the weights that read most of them are kept.
class NeuralInverter {
 public:
  /// \param window rows that belong together, as in TextWindows
  /// \returns kInvalidArgument for fewer than 5 windows, and as RidgeInverter::fit.
  [[nodiscard]] static Result<NeuralInverter> fit(const Release& train, size_t window,
                                                  MatrixView<const float> embeddings,
                                                  ThreadPool& pool);
  /// Estimated embeddings of whole windows of rows, scaled so that products with unit embeddings
  /// are logits.
  [[nodiscard]] Matrix invert(MatrixView<const float> rows) const;
  /// How training went: the fraction of tokens read in the last fifth of the training windows
  /// before training, as the ridge inverter reads them, and after each epoch.
  [[nodiscard]] const std::vector<double>& history() const;

 private:
  struct Impl;
  explicit NeuralInverter(std::shared_ptr<const Impl> impl);
  std::shared_ptr<const Impl> impl_;
};

}  // namespace isthmus::audit
