// Reading tokens back from released boundary rows: what an honest but curious server can try with
// nothing but the public model. What these attacks do not read, stronger ones may.
#pragma once

#include <isthmus/audit/evaluate.h>
#include <isthmus/audit/quality.h>
#include <isthmus/codec/codec.h>
#include <isthmus/core/error.h>
#include <isthmus/core/matrix.h>
#include <isthmus/core/thread_pool.h>
#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

namespace isthmus::audit {

/// Rows as a server decodes them, [N, D], and the tokens they were made of. Known to the attacker
/// for training, and to the judge alone for testing.
struct Release {
  Matrix rows;
  std::vector<int32_t> tokens;
};

/// Sends every row of a text through a codec, alone. \returns the engine's and the codec's errors.
[[nodiscard]] Result<Release> release(const SplitModel& model, const TextWindows& text,
                                      const codec::BoundaryCodec& codec);

/// The model's embedding table as layer 0 sees it, [V, D], rows scaled to length 1.
[[nodiscard]] Result<Matrix> unit_embeddings(engine::Engine& engine);

/// The likeliest tokens for one row, best first.
using Guesses = std::array<int32_t, 5>;

/// The five commonest tokens of a text, smallest ids first among equals: what can be guessed
/// without any message. \throws std::invalid_argument for fewer than five different tokens.
[[nodiscard]] Guesses commonest(std::span<const int32_t> tokens);

/// For each row the embeddings at the least angle. `embeddings` are of length 1. \throws
/// std::invalid_argument for rows of another width, or fewer than 5 embeddings.
[[nodiscard]] std::vector<Guesses> nearest_neighbors(MatrixView<const float> rows,
                                                     MatrixView<const float> embeddings,
                                                     ThreadPool& pool);

/// Ridge regression from released rows to the unit embeddings of their tokens, channels scaled to
/// unit variance. The penalty is the one, of a grid, with the least error on the last fifth of the
/// training rows; the fit then uses all.
class RidgeInverter {
 public:
  /// \returns kInvalidArgument for fewer than 10 rows, or tokens outside the table.
  [[nodiscard]] static Result<RidgeInverter> fit(const Release& train,
                                                 MatrixView<const float> embeddings);
  RidgeInverter(RidgeInverter&&) noexcept;
  RidgeInverter& operator=(RidgeInverter&&) noexcept;
  ~RidgeInverter();

  /// Estimated embeddings of rows of the training rows' width; for `nearest_neighbors`.
  [[nodiscard]] Matrix invert(MatrixView<const float> rows) const;

 private:
  struct Impl;
  explicit RidgeInverter(std::unique_ptr<const Impl> impl);
  std::unique_ptr<const Impl> impl_;
};

/// How much of a text was read.
struct Recovery {
  size_t tokens = 0;
  double top1 = 0;            ///< fraction of tokens guessed first
  double top5 = 0;            ///< fraction of tokens among the five guesses
  double exact_sequence = 0;  ///< fraction of stretches of `kSequence` tokens guessed first
  Interval top1_interval;     ///< Wilson's, 95 %, tokens taken as independent
  Interval top5_interval;

  static constexpr size_t kSequence = 16;
};

/// \throws std::invalid_argument unless there are as many guesses as tokens, and at least one.
[[nodiscard]] Recovery judge(std::span<const Guesses> guesses, std::span<const int32_t> tokens);

}  // namespace isthmus::audit
