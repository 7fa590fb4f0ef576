#include <isthmus/privacy/accountant.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numbers>

namespace isthmus::privacy {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
// The sums below are off by less than this, relatively (double rounding over up to 1e6 terms).
constexpr double kRoundingMargin = 1e-9;

/// log P(Z > x) of a standard Gaussian. Past 30 the asymptotic series, whose next term is below
/// 1e-9 there.
double log_normal_tail(double x) {
  if (x < 30) return std::log(0.5 * std::erfc(x / std::numbers::sqrt2));
  const double y = 1 / (x * x);
  return -x * x / 2 - std::log(x) - 0.5 * std::log(2 * std::numbers::pi) +
         std::log1p(-y * (1 - 3 * y * (1 - 5 * y * (1 - 7 * y))));
}

/// The smallest x in [low, high] where the decreasing `f` is at most `target`, from above; `high`
/// must do.
template <typename Function>
double first_below(const Function& f, double target, double low, double high) {
  if (f(low) <= target) return low;
  for (int i = 0; i < 100 && high - low > 1e-10 * high; ++i) {
    const double middle = (low + high) / 2;
    (f(middle) <= target ? high : low) = middle;
  }
  return high;
}

/// log n! - [log(2 pi n) / 2 + n log n - n].
double stirling_error(double n) {
  if (n < 16)
    return std::lgamma(n + 1) - (0.5 * std::log(2 * std::numbers::pi * n) + n * std::log(n) - n);
  const double y = 1 / (n * n);
  return (1.0 / 12 - y * (1.0 / 360 - y * (1.0 / 1260 - y / 1680))) / n;
}

/// Log of the Binomial(n, p) probability of k. Deviations are taken around n p (Loader 2000), so
/// nothing large cancels for any n.
double log_binomial(double n, double k, double p) {
  const double q = 1 - p;
  if (k == 0) return n * std::log1p(-p);
  if (k == n) return n * std::log1p(-q);
  const auto deviance = [](double x, double mean) {
    const double u = (x - mean) / mean;
    return mean * ((1 + u) * std::log1p(u) - u);
  };
  return stirling_error(n) - stirling_error(k) - stirling_error(n - k) - deviance(k, n * p) -
         deviance(n - k, n * q) +
         0.5 * (std::log(n / k) - std::log(2 * std::numbers::pi * (n - k)));
}

}  // namespace

double gaussian_delta(double mu, double epsilon) {
  if (mu == 0) return 0;
  if (!std::isfinite(mu)) return 1;
  const double gain = log_normal_tail(epsilon / mu - mu / 2);
  const double loss = epsilon + log_normal_tail(epsilon / mu + mu / 2);
  // e^gain - e^loss, where the exponents are known to about 1e-15 of their size.
  const double doubt = 1e-14 * (1 + std::abs(epsilon) + mu * mu);
  const double difference = -std::expm1(std::min(loss - gain - doubt, 0.0));
  return std::min(1.0, std::exp(gain) * difference * (1 + kRoundingMargin));
}

double gaussian_epsilon(double mu, double delta) {
  if (!std::isfinite(mu)) return kInfinity;
  // Cut at a tail of delta: P(loss > high) <= delta for high = mu^2 / 2 + mu z, z^2 = 2
  // log(1/delta).
  const double high = mu * mu / 2 + mu * std::sqrt(-2 * std::log(delta));
  return first_below([&](double e) { return gaussian_delta(mu, e); }, delta, 0, high);
}

double gaussian_mu(double epsilon, double delta) {
  double low = 0;
  double high = 1;
  while (gaussian_delta(high, epsilon) <= delta) high *= 2;
  for (int i = 0; i < 100 && high - low > 1e-10 * high; ++i) {
    const double middle = (low + high) / 2;
    (gaussian_delta(middle, epsilon) <= delta ? low : high) = middle;
  }
  return low;
}

double binomial_delta(double trials, double tilt, double epsilon) {
  if (trials == 0 || tilt <= 0) return 0;
  // The loss at k is (2k - trials) * step, so delta is the sum of P(k) (1 - e^(epsilon - loss))
  // over the k above a cut: only positive terms, nothing cancels.
  const double p = (1 + tilt) / 2;
  const double odds = (1 + tilt) / (1 - tilt);
  const double step = std::log1p(tilt) - std::log1p(-tilt);
  const double cut = std::max(0.0, std::floor((epsilon / step + trials) / 2));
  if (cut > trials) return 0;
  const auto gain = [&](double k) {
    return -std::expm1(std::min(0.0, epsilon - (2 * k - trials) * step));
  };

  // From the most likely k above the cut both ways. What remains past the last term is less than a
  // geometric series of the ratio there; it is added as a whole.
  const double middle = std::clamp(std::floor((trials + 1) * p), cut, trials);
  const double top = std::exp(log_binomial(trials, middle, p));
  constexpr double kNegligible = 1e-14;
  double sum = top * gain(middle);
  double probability = top;
  for (double k = middle; k < trials; ++k) {
    const double ratio = (trials - k) / (k + 1) * odds;
    const double rest = ratio < 1 ? probability * ratio / (1 - ratio) : 1;
    if (rest <= kNegligible * sum || rest < 1e-300) {
      sum += rest;
      break;
    }
    probability *= ratio;
    sum += probability * gain(k + 1);
  }
  probability = top;
  for (double k = middle; k > cut; --k) {
    const double ratio = k / (trials - k + 1) / odds;
    const double rest = ratio < 1 ? probability * ratio / (1 - ratio) : 1;
    if (rest <= kNegligible * sum || rest < 1e-300) {
      sum += rest;
      break;
    }
    probability *= ratio;
    sum += probability * gain(k - 1);
  }
  return std::min(1.0, sum * (1 + kRoundingMargin));
}

double binomial_epsilon(double trials, double tilt, double delta) {
  if (trials == 0 || tilt <= 0) return 0;
  if (tilt >= 1) return kInfinity;
  const double most = trials * (std::log1p(tilt) - std::log1p(-tilt));
  // Hoeffding on the loss brackets the answer, so that no sum starts far from it.
  const double mean = tilt * most;
  const double high = std::min(most, mean + most * std::sqrt(-2 * std::log(delta) / trials));
  return first_below([&](double e) { return binomial_delta(trials, tilt, e); }, delta, 0, high);
}

double renyi_epsilon(const std::function<double(double)>& divergence, double delta) {
  // Orders 1 + e^(j / 4) on a fixed grid from 1.001 to 8100, so that a costly curve can be kept.
  // Every order gives a valid epsilon: a search that misses the best one errs upwards only.
  constexpr int kFirst = -28;
  constexpr int kLast = 36;
  double least = kInfinity;
  int best = kFirst;
  const auto look_at = [&](int j) {
    if (j < kFirst || j > kLast) return;
    const double order = 1 + std::exp(j / 4.0);
    const double d = divergence(order) + std::log1p(-1 / order) -
                     (std::log(delta) + std::log(order)) / (order - 1);
    const double epsilon = std::max(0.0, d * (1 + kRoundingMargin));
    if (epsilon >= least) return;
    least = epsilon;
    best = j;
  };
  for (int j = kFirst; j <= kLast; j += 4) look_at(j);
  for (const int step : {2, 1}) {
    const int middle = best;
    look_at(middle - step);
    look_at(middle + step);
  }
  return least;
}

double composed_epsilon(std::span<const Release> releases, double delta) {
  size_t used = 0;
  const Release* last = nullptr;
  for (const Release& release : releases) {
    if (release.rows == 0) continue;
    ++used;
    last = &release;
  }
  if (used == 0) return 0;
  // One mechanism alone knows a tighter figure than its Renyi curve.
  if (used == 1) return last->mechanism->epsilon(last->rows, delta);
  return renyi_epsilon(
      [&](double order) {
        double total = 0;
        for (const Release& release : releases)
          if (release.rows > 0)
            total += static_cast<double>(release.rows) * release.mechanism->renyi(order);
        return total;
      },
      delta);
}

}  // namespace isthmus::privacy
