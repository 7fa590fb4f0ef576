// Composition of one worst pair of output distributions with itself, by its privacy loss
// distribution (Koskela, Jaelkoe, Honkela 2020; the rounding is that of Doroshenko, Ghazi, Kamath,
// Kumar, Manurangsi 2022). Private.
#pragma once

#include <span>

namespace isthmus::privacy {

/// Two distributions over the same outcomes, every probability above 0.
struct OutputPair {
  std::span<const double> upper;
  std::span<const double> lower;
};

/// The largest sum(max(0, upper - gamma lower)): delta at epsilon = log(gamma).
[[nodiscard]] double hockey_stick(const OutputPair& pair, double gamma);

/// Whether `pair` tells at least as much as `other` at every epsilon of either sign, up to 1e-15 of
/// delta. Then so do any number of draws from it, adaptively chosen.
[[nodiscard]] bool dominates(const OutputPair& pair, const OutputPair& other);

/// An epsilon at `delta` of `count` independent draws, rounded up; the tests find it within 0.3 %
/// of exact sums. Infinite where the rounding errors of the transform could reach `delta`: they are
/// counted as about 1e-13 times `count`.
[[nodiscard]] double repeated_epsilon(const OutputPair& pair, double count, double delta);

}  // namespace isthmus::privacy
