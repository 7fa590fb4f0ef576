// Randomised quantisation. m = 2^n levels lie evenly on [-X, X], X = range * clip. The outermost
// two are always kept, every other one with probability q; the coordinate is rounded at random to
// one of the two kept levels around it, without bias.
//
// Positions count levels in units of 2^-32, cut towards the centre, and q is a multiple of 2^-16:
// every probability is a ratio of integers.
//
// Privacy (cube adjacency). Between two levels each output probability is linear in the
// coordinate, and at a level both neighbouring pieces agree. A power sum of two distributions, and
// a hockey stick, is jointly convex in them, so over a pair of pieces it is largest where both
// coordinates are at an end of theirs: the largest divergence over all pairs is the largest over
// the levels inside the clip and the clip's two ends, which are all tried. Coordinates and rows add
// up.
#include <isthmus/privacy/accountant.h>

#include <algorithm>
#include <cmath>

#include "loss_distribution.h"
#include "noise_stream.h"
#include "row_mechanism.h"

namespace isthmus::privacy {
namespace {

constexpr int64_t kLevel = int64_t{1} << 32;  // between two levels

class RandomizedQuantization final : public RowMechanism {
 public:
  RandomizedQuantization(const Setup& setup, int64_t most)
      : RowMechanism(setup),
        last_((1 << setup.spec.bits) - 1),
        keep_(static_cast<uint32_t>(std::lround(setup.spec.keep * 0x1.0p16))),
        most_(most) {
    for (const int64_t position : corner_positions()) {
      corners_.push_back(output_probabilities(position));
      std::vector<double> logs = corners_.back();
      for (double& p : logs) p = std::log(p);
      log_corners_.push_back(std::move(logs));
    }
  }

  [[nodiscard]] CodeRange code_range() const override { return {0, static_cast<int32_t>(last_)}; }

  [[nodiscard]] std::vector<double> zero_distribution() const override {
    return output_probabilities(centre());
  }

  [[nodiscard]] double epsilon(uint64_t rows, double delta) const override {
    if (rows == 0) return 0;
    const double coordinates = static_cast<double>(rows) * static_cast<double>(width());
    const auto divergence = [&](double order) { return static_cast<double>(rows) * renyi(order); };
    const double least = std::min(coordinates * largest_loss(), renyi_epsilon(divergence, delta));
    if (!ends_dominate()) return least;
    // Each comparison was allowed to miss by 1e-15 of delta.
    const double left = delta - coordinates * 1e-15;
    if (left <= 0) return least;
    return std::min(least, repeated_epsilon({corners_[0], corners_[1]}, coordinates, left));
  }

  [[nodiscard]] double renyi(double order) const override {
    double largest = 0;
    for (const auto& p : log_corners_) {
      for (const auto& q : log_corners_) {
        double sum = 0;
        for (size_t i = 0; i < p.size(); ++i) sum += std::exp(order * p[i] - (order - 1) * q[i]);
        largest = std::max(largest, sum);
      }
    }
    // High orders overflow; the largest log ratio bounds every order.
    const double divergence = std::log(largest) / (order - 1);
    return static_cast<double>(width()) * std::min(divergence * (1 + 1e-9), largest_loss());
  }

 protected:
  void draw(std::span<const double> clipped, RandomSource& random,
            std::span<int32_t> codes) const override {
    NoiseStream noise(random);
    for (size_t i = 0; i < clipped.size(); ++i) codes[i] = draw_level(position(clipped[i]), noise);
  }

  [[nodiscard]] double log_probability(double clipped, int32_t code) const override {
    return std::log(output_probabilities(position(clipped))[static_cast<size_t>(code)]);
  }

  [[nodiscard]] float decode(int32_t code) const override {
    return static_cast<float>(outermost() * (2.0 * code / static_cast<double>(last_) - 1));
  }

  [[nodiscard]] std::string description() const override {
    return "randomised quantisation, " + std::to_string(last_ + 1) + " levels to +-" +
           rounded_text(outermost()) + ", inner ones kept with probability " +
           std::to_string(keep_) + "/65536";
  }

  [[nodiscard]] std::string composition() const override {
    return "the least of: privacy loss distribution of the clip's two ends over all coordinates "
           "and "
           "rows, where no other pair tells more; Renyi divergences; the largest loss times their "
           "number; adaptive";
  }

  [[nodiscard]] bool uses_norm() const override { return false; }

 private:
  [[nodiscard]] double outermost() const { return spec().range * clip().coordinate; }
  /// Where a coordinate lies among the levels.
  [[nodiscard]] int64_t position(double clipped) const {
    const double scale = static_cast<double>(centre()) / outermost();
    return centre() + std::clamp(static_cast<int64_t>(clipped * scale), -most_, most_);
  }

  [[nodiscard]] int64_t centre() const { return last_ * (kLevel / 2); }

  [[nodiscard]] int32_t draw_level(int64_t position, NoiseStream& noise) const {
    int64_t left = position / kLevel;
    int64_t right = left + 1;
    while (left > 0 && noise.next(2) >= keep_) --left;
    while (right < last_ && noise.next(2) >= keep_) ++right;
    const auto gap = static_cast<uint64_t>((right - left) * kLevel);
    const bool up = noise.below(gap) < static_cast<uint64_t>(position - left * kLevel);
    return static_cast<int32_t>(up ? right : left);
  }

  [[nodiscard]] std::vector<double> output_probabilities(int64_t position) const {
    const double keep = keep_ * 0x1.0p-16;
    const int64_t middle = position / kLevel;
    std::vector<double> out(static_cast<size_t>(last_ + 1));
    double left_chance = 1;
    for (int64_t left = middle; left >= 0; --left) {
      const double chosen_left = left_chance * (left > 0 ? keep : 1);
      left_chance *= 1 - keep;
      double right_chance = 1;
      for (int64_t right = middle + 1; right <= last_; ++right) {
        const double both = chosen_left * right_chance * (right < last_ ? keep : 1);
        right_chance *= 1 - keep;
        const double up = static_cast<double>(position - left * kLevel) /
                          static_cast<double>((right - left) * kLevel);
        out[static_cast<size_t>(left)] += both * (1 - up);
        out[static_cast<size_t>(right)] += both * up;
      }
    }
    return out;
  }

  [[nodiscard]] std::vector<int64_t> corner_positions() const {
    std::vector<int64_t> positions{centre() - most_, centre() + most_};
    for (int64_t level = 1; level < last_; ++level)
      if (std::abs(level * kLevel - centre()) < most_) positions.push_back(level * kLevel);
    return positions;
  }

  /// Whether the two ends of the clip tell at least as much as any other two numbers, at every
  /// epsilon.
  [[nodiscard]] bool ends_dominate() const {
    const OutputPair ends{corners_[0], corners_[1]};
    for (const auto& p : corners_)
      for (const auto& q : corners_)
        if (!dominates(ends, {p, q})) return false;
    return true;
  }

  [[nodiscard]] double largest_loss() const {
    double largest = 0;
    for (const auto& p : log_corners_)
      for (const auto& q : log_corners_)
        for (size_t i = 0; i < p.size(); ++i) largest = std::max(largest, p[i] - q[i]);
    return largest * (1 + 1e-9);
  }

  int64_t last_;  // index of the outermost level
  uint32_t keep_;
  int64_t most_;                                  // largest offset from the centre
  std::vector<std::vector<double>> corners_;      // probabilities there; the clip's ends first
  std::vector<std::vector<double>> log_corners_;  // log probabilities at each corner position
};

}  // namespace

Result<std::unique_ptr<Mechanism>> make_randomized_quantization(const Setup& setup) {
  const double c = setup.clip.coordinate;
  if (!std::isfinite(c)) return refused("coordinate clip", c, "finite for rqm");
  const double centre = static_cast<double>((int64_t{1} << setup.spec.bits) - 1) * (kLevel / 2.0);
  const auto most = static_cast<int64_t>(centre / setup.spec.range);
  constexpr int64_t kLeastSteps = 4096;
  if (most < kLeastSteps)
    return refused("range", setup.spec.range, "smaller: the clip spans too few steps");
  return std::make_unique<RandomizedQuantization>(setup, most);
}

}  // namespace isthmus::privacy
