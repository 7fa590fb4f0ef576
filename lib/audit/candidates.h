// What an attack keeps of a row's scores.
#pragma once

#include <isthmus/audit/attack.h>

#include <cstddef>
#include <span>

namespace isthmus::audit {

/// Guesses that are kept where no language model will look at more, and that a judge looks at.
inline constexpr size_t kGuesses = 5;

/// The largest of `scores`, which token ids index, at most `count`, best first; smaller ids first
/// among equals.
[[nodiscard]] Candidates best_of(std::span<const float> scores, size_t count);

}  // namespace isthmus::audit
