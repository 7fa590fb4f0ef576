// Attackers that run the public model: one knows what text is likely, one tries every token.
#pragma once

#include <isthmus/audit/attack.h>
#include <isthmus/audit/quality.h>
#include <isthmus/core/error.h>
#include <isthmus/engine/engine.h>
#include <cstddef>
#include <span>
#include <vector>

namespace isthmus::audit {

/// The five tokens that the language model finds likeliest after all true earlier ones of a window:
/// what can be guessed of a token without its message by somebody who knows all before it. Nothing
/// for a window's first token. \returns the engine's errors.
[[nodiscard]] Result<std::vector<Candidates>> predict_from_context(engine::Engine& model,
                                                                   const TextWindows& text);

/// How an attack's scores and a language model's logarithms of probability add up.
struct PriorWeighting {
  float sharpness = 1;  ///< of the scores; 1 when those are logarithms of likelihoods
  size_t beam = 4;      ///< readings that are kept in mind
};

/// The weighting that reads most of a text that the attacker knows: first the sharpness, a power of
/// two from 1/4 to 1,024, under which scores and prior together give true tokens the most
/// probability; then, because a prior that follows the attacker's own mistakes deserves less trust
/// than one that is told the truth, the best of reading with it, with 4 and 16 times as much, and
/// with the evidence alone. \returns the engine's errors; kInvalidArgument for evidence of another
/// length or a token without any.
[[nodiscard]] Result<PriorWeighting> fit_weighting(engine::Engine& model,
                                                   std::span<const Candidates> evidence,
                                                   const TextWindows& text, size_t beam);

/// Reads windows of evidence with a language model as the prior: a beam search for the tokens with
/// the largest sum of sharpness * score + log p(token | those before). The rest of each result is
/// what else is likely after the best reading's earlier tokens.
/// \returns the engine's errors; kInvalidArgument when the evidence is no whole windows.
[[nodiscard]] Result<std::vector<Candidates>> read_with_prior(engine::Engine& model,
                                                              std::span<const Candidates> evidence,
                                                              size_t window,
                                                              const PriorWeighting& weighting);

/// Exhaustive causal matching: runs the public front on every token of the vocabulary after the
/// tokens found so far, and takes the one whose boundary row is at the least angle to the released
/// one. Reads the first `count` rows of one window; costs V tokens of the front for each.
/// \returns the engine's errors.
[[nodiscard]] Result<std::vector<Candidates>> match_exhaustively(const SplitModel& model,
                                                                 MatrixView<const float> rows,
                                                                 size_t count);

}  // namespace isthmus::audit
