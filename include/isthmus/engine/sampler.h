// Choosing the next token from logits. The choice depends on nothing but logits, options, the ids
// generated so far and the position, so the device and the server choose alike, and a repeated step
// repeats the choice.
#pragma once

#include <isthmus/core/error.h>
#include <cstdint>
#include <span>

namespace isthmus::engine {

/// How the next token is chosen. The filters apply in this order: repetition penalty, temperature,
/// top-k, top-p, min-p.
struct SamplingOptions {
  float temperature = 0;  ///< 0: greedy (the smallest id among equals); otherwise in (0, 100]
  int32_t top_k = 0;      ///< keep the k likeliest; 0: all
  float top_p = 1;        ///< keep the smallest set with at least this probability, in (0, 1]
  float min_p = 0;  ///< keep tokens at least this fraction as likely as the likeliest, in [0, 1]
  float repetition_penalty =
      1;  ///< in [1, 10]; divides positive and multiplies negative logits (Keskar et al. 2019,
          ///< section 4.1) of the ids generated so far; the prompt is not read
  uint64_t seed = 0;

  /// \returns kInvalidArgument naming the field and its value.
  [[nodiscard]] Status validate() const;
  friend bool operator==(const SamplingOptions&, const SamplingOptions&) = default;
};

/// Chooses one id from `logits` [V]. `generated` are the ids generated so far in this reply;
/// `position` is the position in the conversation that the chosen token will have: random numbers
/// are keyed by (seed, position, id). Minus infinity rules a token out.
/// \returns kInvalidArgument for options that do not validate or a generated id outside [0, V);
/// kNotFinite when a logit is NaN or plus infinity, or none is finite.
[[nodiscard]] Result<int32_t> sample(std::span<const float> logits, const SamplingOptions& options,
                                     std::span<const int32_t> generated, int64_t position);

}  // namespace isthmus::engine
