// n-bit binomial stochastic quantiser. A coordinate v becomes k ~ Binomial(R, 1/2 + v / 2A), where
// R = 2^n - 1 and A^2 = c^2 + R (S / mu)^2 for the clip c and the sensitivity S (for the cube alone
// S = 2 c sqrt(d), so A^2 = c^2 (4 R d / mu^2 + 1), as in DEL). The estimate A (2k/R - 1) is
// unbiased with variance (A^2 - v^2) / R.
//
// Probabilities are (2^31 + s) / 2^32 with s = v / A * 2^31 cut towards zero, so |s| never exceeds
// that of the clip, and the accounting uses these ratios.
//
// Cube adjacency: every pair of probabilities within the clip is a post-processing of the extreme
// pair (draw from the extreme pair, then flip), so the extreme pair in every draw is the worst case
// at every epsilon, for one row and for adaptively chosen rows; the number of successes is
// sufficient, and the sum over it is exact. Ball adjacency: binomial_ball.h.
#include <isthmus/privacy/accountant.h>

#include <algorithm>
#include <cmath>
#include <mutex>
#include <utility>

#include "binomial_ball.h"
#include "noise_stream.h"
#include "row_mechanism.h"

namespace isthmus::privacy {
namespace {

constexpr double kHalf = 0x1.0p31;  // threshold of a fair coin

class Binomial final : public RowMechanism {
 public:
  Binomial(const Setup& setup, double scale, int64_t most)
      : RowMechanism(setup), trials_((1U << setup.spec.bits) - 1), scale_(scale), most_(most) {
    log_ways_.push_back(0);
    for (unsigned k = 1; k <= trials_; ++k)
      log_ways_.push_back(log_ways_.back() + std::log((trials_ - k + 1.0) / k));
  }

  [[nodiscard]] CodeRange code_range() const override { return {0, static_cast<int32_t>(trials_)}; }

  [[nodiscard]] std::vector<double> zero_distribution() const override {
    std::vector<double> out(trials_ + 1);
    out[0] = std::ldexp(1.0, -static_cast<int>(trials_));
    for (unsigned k = 1; k <= trials_; ++k) out[k] = out[k - 1] * (trials_ - k + 1) / k;
    return out;
  }

  [[nodiscard]] double epsilon(uint64_t rows, double delta) const override {
    const double draws = static_cast<double>(rows) * static_cast<double>(width()) * trials_;
    double least = std::numeric_limits<double>::infinity();
    if (draws < kMostDraws) least = binomial_epsilon(draws, tilt(), delta);
    if (!uses_norm() && draws < kMostDraws) return least;
    const auto divergence = [&](double order) { return static_cast<double>(rows) * renyi(order); };
    return std::min(least, renyi_epsilon(divergence, delta));
  }

  [[nodiscard]] double renyi(double order) const override {
    // The ball of the clip in units of A, with room for the rounding of the clip itself.
    const double norm = clip().norm_l2 / scale_;
    const Ball ball{width(), static_cast<double>(trials_), tilt(), norm * norm * (1 + 1e-9)};
    if (uses_norm()) return kept_ball_renyi(ball, order);
    return ball.trials * static_cast<double>(width()) * corner_renyi(tilt(), order);
  }

 protected:
  void draw(std::span<const double> clipped, RandomSource& random,
            std::span<int32_t> codes) const override {
    std::vector<uint32_t> thresholds(clipped.size());
    for (size_t i = 0; i < clipped.size(); ++i) thresholds[i] = threshold(clipped[i]);
    NoiseStream(random).binomial(trials_, thresholds, codes);
  }

  [[nodiscard]] double log_probability(double clipped, int32_t code) const override {
    const double p = threshold(clipped) * 0x1.0p-32;
    return log_ways_[static_cast<size_t>(code)] + code * std::log(p) +
           (static_cast<double>(trials_) - code) * std::log1p(-p);
  }

  [[nodiscard]] float decode(int32_t code) const override {
    return static_cast<float>(scale_ * (2.0 * code / trials_ - 1));
  }

  [[nodiscard]] std::string description() const override {
    return "binomial stochastic quantiser, " + std::to_string(spec().bits) +
           " bits, scale A = " + rounded_text(scale_);
  }

  [[nodiscard]] std::string composition() const override {
    return uses_norm() ? "the lesser of the exact binomial sum over the cube and of Renyi "
                         "divergences over the ball, which add up over rows; adaptive"
                       : "exact binomial sum over all draws of all rows (Renyi divergences past "
                         "2^32 draws); adaptive";
  }

  [[nodiscard]] bool uses_norm() const override {
    return clip().norm_l2 < clip().coordinate * std::sqrt(static_cast<double>(width()));
  }

 private:
  /// Of 2^32, how often a draw succeeds.
  [[nodiscard]] uint32_t threshold(double clipped) const {
    const auto tilted = static_cast<int64_t>(clipped / scale_ * kHalf);
    return static_cast<uint32_t>((int64_t{1} << 31) + std::clamp(tilted, -most_, most_));
  }

  static constexpr double kMostDraws = 0x1.0p32;  // a sum takes milliseconds up to here

  /// Takes milliseconds the first time, and epsilons are asked for at the same few orders.
  [[nodiscard]] double kept_ball_renyi(const Ball& ball, double order) const {
    const std::lock_guard lock(mutex_);
    for (const auto& [known, divergence] : kept_)
      if (known == order) return divergence;
    kept_.emplace_back(order, ball_renyi(ball, order));
    return kept_.back().second;
  }

  [[nodiscard]] double tilt() const { return static_cast<double>(most_) / kHalf; }

  unsigned trials_;
  double scale_;
  int64_t most_;
  std::vector<double> log_ways_;  // to draw so many successes
  mutable std::mutex mutex_;
  mutable std::vector<std::pair<double, double>> kept_;  // order, divergence; guarded by mutex_
};

}  // namespace

Result<std::unique_ptr<Mechanism>> make_binomial(const Setup& setup) {
  const double c = setup.clip.coordinate;
  if (!std::isfinite(c)) return refused("coordinate clip", c, "finite for binomial");
  const double trials = (1U << setup.spec.bits) - 1;
  const double noise = 2 * setup.row_norm() / setup.spec.mu;
  const double scale = std::sqrt(c * c + trials * noise * noise);
  // Below 1 in any case, so that no probability is 0 and every loss is finite.
  const auto most = std::min(static_cast<int64_t>(c / scale * kHalf), (int64_t{1} << 31) - 1);
  // Fewer steps than this and the cut towards zero would bias the estimate visibly.
  constexpr int64_t kLeastSteps = 4096;
  if (most < kLeastSteps)
    return refused("mu", setup.spec.mu, "larger: the scale is past 2^19 clips");
  return std::make_unique<Binomial>(setup, scale, most);
}

}  // namespace isthmus::privacy
