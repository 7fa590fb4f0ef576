// Discrete Gaussian on a lattice. The row is divided by the lattice's step, every coordinate is
// rounded up or down at random (unbiased), and an exact discrete Gaussian of parameter sigma (in
// steps, a power of two) is added.
//
// Sensitivity. Rounding can lengthen a row. The rounding is drawn again until the norm is at most
// B, so two rounded rows are at most 2 B apart whatever happened; B^2 = r^2 + d/4 + K (r +
// sqrt(d)/2) for a row of norm r is missed with a chance below 2^-40 (Kairouz, Liu, Steinke 2021,
// Prop. 22), so the bias this causes is far below one step. The step is the coarsest with B at most
// 5 % above r.
//
// Privacy. Take continuous noise N(0, s^2), s^2 = sigma^2 - 2, and round y to an integer n with
// probability proportional to exp(-(n - y)^2 / 4), which commutes with integer shifts. The product
// of the two Gaussians is one in y times one of variance sigma^2 in n, and the normalising sums
// over integers vary by less than theta = 2.1 exp(-4 pi^2) < 2e-17 (Poisson summation). So for
// every integer shift the result is the discrete Gaussian within a factor of 1 +- 2 theta per
// coordinate: the discrete Gaussian is a post-processing of a continuous one that is 2 B / s = mu
// apart, up to e^+-(2 theta d rows), which is charged. mu composes over rows as sqrt(rows) mu.
#include <isthmus/privacy/accountant.h>

#include <algorithm>
#include <cmath>

#include "noise_stream.h"
#include "row_mechanism.h"

namespace isthmus::privacy {
namespace {

constexpr double kRoundingVariance = 2;            // r^2 in sigma^2 = s^2 + r^2
constexpr double kSqrtTwoPi = 2.5066282746310002;  // sums over integers equal integrals (theta)
constexpr double kTheta = 2e-17;
constexpr double kMissFactor = 7.4468;  // sqrt(2 log 2^40)
constexpr int64_t kReach = 12;          // codes end this many sigma past the largest point

struct Lattice {
  uint64_t sigma = 0;       // in steps
  double largest_norm = 0;  // B, in steps
  double row_norm = 0;      // r, in steps
};

class DiscreteGaussian final : public RowMechanism {
 public:
  DiscreteGaussian(const Setup& setup, const Lattice& lattice)
      : RowMechanism(setup), lattice_(lattice), step_(setup.row_norm() / lattice.row_norm) {
    const double reach = std::min(setup.clip.coordinate, setup.row_norm()) / step_;
    last_ = static_cast<int64_t>(reach) + 1 + kReach * static_cast<int64_t>(lattice.sigma);
  }

  [[nodiscard]] CodeRange code_range() const override {
    return {static_cast<int32_t>(-last_), static_cast<int32_t>(last_)};
  }

  [[nodiscard]] std::vector<double> zero_distribution() const override {
    // exp(-k^2 / 2 sigma^2) by w(k) = w(k - 1) g^(2k - 1); g by its series, of a tiny argument.
    const double x =
        0.5 / (static_cast<double>(lattice_.sigma) * static_cast<double>(lattice_.sigma));
    const double g = 1 - x * (1 - x / 2 * (1 - x / 3 * (1 - x / 4 * (1 - x / 5 * (1 - x / 6)))));
    std::vector<double> out(static_cast<size_t>(2 * last_ + 1));
    const auto centre = static_cast<size_t>(last_);
    out[centre] = 1;
    double total = 1;
    double factor = g;
    for (size_t k = 1; k <= centre; ++k) {
      out[centre + k] = out[centre - k] = out[centre + k - 1] * factor;
      total += 2 * out[centre + k];
      factor *= g * g;
    }
    for (double& probability : out) probability /= total;
    return out;
  }

  [[nodiscard]] double epsilon(uint64_t rows, double delta) const override {
    if (rows == 0) return 0;
    const double slack = 2 * kTheta * static_cast<double>(width()) * static_cast<double>(rows);
    return gaussian_epsilon(std::sqrt(static_cast<double>(rows)) * spec().mu,
                            delta * std::exp(-slack)) +
           2 * slack;
  }

  [[nodiscard]] double renyi(double order) const override {
    // For the discrete Gaussian itself the Gaussian's formula is a bound (CKS 2020, Prop. 5).
    const double distance = 2 * lattice_.largest_norm / static_cast<double>(lattice_.sigma);
    return order * distance * distance / 2 * (1 + 1e-12);
  }

 protected:
  void draw(std::span<const double> clipped, RandomSource& random,
            std::span<int32_t> codes) const override {
    NoiseStream noise(random);
    round_to_lattice(clipped, noise, codes);
    for (int32_t& code : codes) {
      const int64_t noisy = code + noise.discrete_gaussian(lattice_.sigma);
      code = static_cast<int32_t>(std::clamp(noisy, -last_, last_));
    }
  }

  [[nodiscard]] double log_probability(double clipped, int32_t code) const override {
    const double point = clipped / step_;
    const double below = std::floor(point);
    const double up = point - below;
    const auto sigma = static_cast<double>(lattice_.sigma);
    // Relative to the lower point: exp(-(n - 1)^2 / 2 s^2) is exp(-n^2 / 2 s^2) exp((2 n - 1) / 2
    // s^2).
    const double n = (code - below) / sigma;
    const double ratio = std::exp((2 * n - 1 / sigma) / (2 * sigma));
    return std::log(1 - up + up * ratio) - n * n / 2 - std::log(sigma * kSqrtTwoPi);
  }

  [[nodiscard]] float decode(int32_t code) const override {
    return static_cast<float>(code * step_);
  }

  [[nodiscard]] std::string description() const override {
    return "discrete Gaussian, mu = " + number_text(spec().mu) + ", standard deviation " +
           rounded_text(step_ * static_cast<double>(lattice_.sigma)) + " in " +
           std::to_string(lattice_.sigma) + " steps; rounding to the lattice counted";
  }

  [[nodiscard]] std::string composition() const override {
    return "Gaussian, mu * sqrt(rows); adaptive";
  }

  [[nodiscard]] bool uses_norm() const override { return true; }

 private:
  void round_to_lattice(std::span<const double> clipped, NoiseStream& noise,
                        std::span<int32_t> points) const {
    const double limit = lattice_.largest_norm * lattice_.largest_norm;
    constexpr int kTries = 16;  // all miss with a chance below 2^-640
    for (int attempt = 0; attempt <= kTries; ++attempt) {
      double squares = 0;
      for (size_t i = 0; i < clipped.size(); ++i) {
        const double point = clipped[i] / step_;
        const double below = std::floor(point);
        const auto threshold = static_cast<uint64_t>((point - below) * 0x1.0p32);
        const bool up = noise.next(4) < threshold;
        // The last attempt cuts towards zero, which never lengthens a row.
        const double rounded = attempt < kTries ? below + (up ? 1 : 0) : std::trunc(point);
        squares += rounded * rounded;
        points[i] = static_cast<int32_t>(rounded);
      }
      if (squares <= limit) return;
    }
  }

  Lattice lattice_;
  double step_;
  int64_t last_ = 0;
};

Lattice lattice_for(double mu, double width, uint64_t sigma) {
  const double s =
      std::sqrt(static_cast<double>(sigma) * static_cast<double>(sigma) - kRoundingVariance);
  Lattice lattice{sigma, mu * s / 2, 0};
  // Solves B^2 = r^2 + K r + rest for r.
  const double rest = width / 4 + kMissFactor * std::sqrt(width) / 2;
  const double inside = lattice.largest_norm * lattice.largest_norm - rest;
  if (inside > 0)
    lattice.row_norm = (std::sqrt(kMissFactor * kMissFactor + 4 * inside) - kMissFactor) / 2;
  return lattice;
}

}  // namespace

Result<std::unique_ptr<Mechanism>> make_discrete_gaussian(const Setup& setup) {
  if (!std::isfinite(setup.row_norm()))
    return refused("norm clip", setup.row_norm(), "finite for dgauss");
  for (uint64_t sigma = 8; sigma <= 1 << 14; sigma *= 2) {
    const Lattice lattice = lattice_for(setup.spec.mu, static_cast<double>(setup.width), sigma);
    if (lattice.largest_norm <= 1.05 * lattice.row_norm)
      return std::make_unique<DiscreteGaussian>(setup, lattice);
  }
  return refused("mu", setup.spec.mu,
                 "larger: at " + std::to_string(setup.width) +
                     " numbers rounding to the lattice would outweigh the row");
}

}  // namespace isthmus::privacy
