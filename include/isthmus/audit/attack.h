// Reading tokens back from released boundary rows: what an honest but curious server can try with
// nothing but the public model. What these attacks do not read, stronger ones may.
#pragma once

#include <isthmus/audit/evaluate.h>
#include <isthmus/audit/quality.h>
#include <isthmus/codec/codec.h>
#include <isthmus/core/error.h>
#include <isthmus/core/matrix.h>
#include <isthmus/core/thread_pool.h>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace isthmus::audit {

/// What a server receives of a text, row by row, and what it was made of: known to the attacker for
/// training, and to the judge alone for testing.
struct Release {
  std::vector<std::vector<std::byte>> messages;  ///< one for each row
  Matrix rows;                                   ///< [N, D], as a server decodes them
  std::vector<int32_t> tokens;
};

/// Sends boundary rows [N, D] of `tokens` through a codec, each alone. \returns the codec's errors.
[[nodiscard]] Result<Release> release(MatrixView<const float> rows, std::span<const int32_t> tokens,
                                      const codec::BoundaryCodec& codec);

/// The model's embedding table as layer 0 sees it, [V, D].
[[nodiscard]] Result<Matrix> embedding_table(engine::Engine& engine);

/// Rows scaled to length 1.
[[nodiscard]] Matrix unit_rows(Matrix rows);

/// A token that a row may come from. Scores of different attacks do not compare.
struct Candidate {
  int32_t token = 0;
  float score = 0;
  friend bool operator==(const Candidate&, const Candidate&) = default;
};
/// What an attacker takes one row for, best first.
using Candidates = std::vector<Candidate>;

/// The five commonest tokens of a text and how often they occur, smallest ids first among equals:
/// what can be guessed without any message.
[[nodiscard]] Candidates commonest(std::span<const int32_t> tokens);

/// For each row the `count` embeddings with the largest products with it. For `embeddings` of
/// length 1 these are those at the least angle. \throws std::invalid_argument for rows of another
/// width.
[[nodiscard]] std::vector<Candidates> nearest_neighbors(MatrixView<const float> rows,
                                                        MatrixView<const float> embeddings,
                                                        size_t count, ThreadPool& pool);

/// The maximum-likelihood attack at the embedding cut, by who knows the codec with its projection
/// and its noise: for each message the `count` tokens for whose embeddings it is likeliest, scores
/// being natural logarithms relative to the best. Exact over the whole vocabulary for mechanisms of
/// at most 256 codes (binomial, rqm), else among the 256 embeddings that decode to what is nearest
/// to the row. Without a mechanism a token is sent as one thing, or (sint) as one thing on average:
/// the nearest ones are named, scores being half of squared distances. Of sint that is not the
/// likeliest: which scales and levels a token can have at all would tell more.
/// \returns the codec's errors.
[[nodiscard]] Result<std::vector<Candidates>> most_likely(const Release& release,
                                                          const codec::BoundaryCodec& codec,
                                                          MatrixView<const float> embeddings,
                                                          size_t count, ThreadPool& pool);

/// How much of a text was read.
struct Recovery {
  size_t tokens = 0;
  double top1 = 0;  ///< fraction of tokens guessed first
  double top5 = 0;  ///< fraction of tokens among the first five guesses
  /// Fraction of stretches of `kSequence` tokens guessed first; absent for fewer tokens.
  std::optional<double> exact_sequence;
  Interval top1_interval;  ///< Wilson's, 95 %, tokens taken as independent
  Interval top5_interval;

  static constexpr size_t kSequence = 16;
};

/// \throws std::invalid_argument unless there are as many guesses as tokens, and at least one.
[[nodiscard]] Recovery judge(std::span<const Candidates> guesses, std::span<const int32_t> tokens);

}  // namespace isthmus::audit
