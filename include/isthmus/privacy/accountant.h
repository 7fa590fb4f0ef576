// How much several releases tell together. Every figure is an upper bound: sums are rounded up, and
// where an exact sum is out of reach a larger one is taken.
//
// Gaussian figures follow Balle and Wang 2018 (analytic Gaussian), Renyi divergences turn into
// epsilons as in Canonne, Kamath and Steinke 2020, Proposition 12.
#pragma once

#include <isthmus/privacy/mechanism.h>
#include <cstdint>
#include <functional>
#include <span>

namespace isthmus::privacy {

/// delta(epsilon) of two unit Gaussians `mu` apart.
[[nodiscard]] double gaussian_delta(double mu, double epsilon);
/// The smallest epsilon >= 0 with gaussian_delta(mu, epsilon) <= delta, rounded up.
[[nodiscard]] double gaussian_epsilon(double mu, double delta);
/// The largest mu with gaussian_epsilon(mu, delta) <= epsilon, rounded down.
[[nodiscard]] double gaussian_mu(double epsilon, double delta);

/// delta(epsilon) of Binomial(trials, (1 + tilt) / 2) against Binomial(trials, (1 - tilt) / 2) by
/// its sum, 0 <= tilt < 1. The cost grows as the square root of `trials`, which is below 2^53.
[[nodiscard]] double binomial_delta(double trials, double tilt, double epsilon);
/// The smallest epsilon >= 0 with binomial_delta <= delta, rounded up.
[[nodiscard]] double binomial_epsilon(double trials, double tilt, double delta);

/// The epsilon at `delta` that a Renyi curve (order above 1 -> divergence) implies: the least over
/// the orders looked at. Infinite when all of them are.
[[nodiscard]] double renyi_epsilon(const std::function<double(double)>& divergence, double delta);

/// Rows released under one mechanism.
struct Release {
  const Mechanism* mechanism = nullptr;  ///< borrowed
  uint64_t rows = 0;
};

/// Epsilon at `delta` of everything together, in any order and chosen adaptively.
[[nodiscard]] double composed_epsilon(std::span<const Release> releases, double delta);

}  // namespace isthmus::privacy
