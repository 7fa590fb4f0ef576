#include "loss_distribution.h"

#include <algorithm>
#include <cmath>
#include <complex>
#include <limits>
#include <numbers>
#include <vector>

namespace isthmus::privacy {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr int kLogCells = 16;
constexpr size_t kCells = size_t{1} << kLogCells;

/// Mass on the grid: loss = cell * width.
struct Atom {
  double cell = 0;
  double mass = 0;
};

/// Splits every outcome between the two grid points around its loss so that both its upper and its
/// lower probability stay. The outcome is a merger of the two points, so this only adds to what is
/// told; delta is exact at the grid's epsilons.
std::vector<Atom> on_grid(const OutputPair& pair, double width) {
  std::vector<Atom> atoms;
  for (size_t i = 0; i < pair.upper.size(); ++i) {
    const double p = pair.upper[i];
    const double loss = std::log(p / pair.lower[i]);
    const double cell = std::floor(loss / width);
    // p = a + b and p e^-loss = a e^-(cell width) + b e^-((cell + 1) width).
    const double above = p * std::expm1(cell * width - loss) / std::expm1(-width);
    const double share = std::clamp(above, 0.0, p);
    atoms.push_back({cell, p - share});
    atoms.push_back({cell + 1, share});
  }
  return atoms;
}

/// log of the sum of mass e^(s loss).
double cumulant(const std::vector<Atom>& atoms, double width, double s) {
  double sum = 0;
  for (const Atom& atom : atoms) sum += atom.mass * std::exp(s * atom.cell * width);
  return std::log(sum);
}

/// Chernoff: log P(sum of `count` losses >= x), or <= x with `side` -1, is at most this.
double log_tail(const std::vector<Atom>& atoms, double width, double count, double x, double side) {
  double least = 0;
  for (double s = 1e-4; s < 1e4; s *= 1.2)
    least = std::min(least, count * cumulant(atoms, width, side * s) - side * s * x);
  return least;
}

/// The x where that tail is e^log_mass: from `from`, by doubling strides and halving.
double tail_end(const std::vector<Atom>& atoms, double width, double count, double side,
                double from, double stride, double log_mass) {
  while (log_tail(atoms, width, count, from + side * stride, side) > log_mass) stride *= 2;
  double inside = 0;
  for (int i = 0; i < 12; ++i) {
    const double middle = (inside + stride) / 2;
    const bool out = log_tail(atoms, width, count, from + side * middle, side) <= log_mass;
    (out ? stride : inside) = middle;
  }
  return from + side * stride;
}

/// In place, radix 2; without the factor 1 / n of the inverse.
void transform(std::vector<std::complex<double>>& values, bool inverse) {
  const size_t n = values.size();
  for (size_t i = 1, j = 0; i < n; ++i) {
    size_t bit = n >> 1;
    for (; (j & bit) != 0; bit >>= 1) j ^= bit;
    j ^= bit;
    if (i < j) std::swap(values[i], values[j]);
  }
  std::vector<std::complex<double>> roots(n / 2);
  const double turn = (inverse ? 2 : -2) * std::numbers::pi / static_cast<double>(n);
  for (size_t i = 0; i < n / 2; ++i) roots[i] = std::polar(1.0, turn * static_cast<double>(i));
  for (size_t length = 2; length <= n; length *= 2) {
    const size_t half = length / 2;
    const size_t stride = n / length;
    for (size_t begin = 0; begin < n; begin += length) {
      for (size_t i = 0; i < half; ++i) {
        const auto even = values[begin + i];
        const auto odd = values[begin + i + half] * roots[i * stride];
        values[begin + i] = even + odd;
        values[begin + i + half] = even - odd;
      }
    }
  }
}

struct Composed {
  double first_cell = 0;     ///< of `mass`
  std::vector<double> mass;  ///< of the sum of the losses
  double error = 0;          ///< at least what rounding can have taken from any sum of masses
};

Composed convolve(const std::vector<Atom>& atoms, double count, double first_cell) {
  const auto place = [](double cell) {
    const double n = static_cast<double>(kCells);
    return static_cast<size_t>(cell - n * std::floor(cell / n));
  };
  std::vector<std::complex<double>> values(kCells);
  for (const Atom& atom : atoms) values[place(atom.cell)] += atom.mass;
  transform(values, /*inverse=*/false);
  double spectrum = 0;
  for (auto& value : values) {
    const double size = std::abs(value);
    spectrum += std::pow(size, count - 1);
    value = std::polar(std::pow(size, count),
                       std::remainder(std::arg(value) * count, 2 * std::numbers::pi));
  }
  transform(values, /*inverse=*/true);
  Composed out{first_cell, std::vector<double>(kCells), 0};
  for (size_t i = 0; i < kCells; ++i)
    out.mass[i] = std::max(0.0, values[place(first_cell + static_cast<double>(i))].real()) /
                  static_cast<double>(kCells);
  // Each of the log n steps of a transform rounds by a unit in the last place of a spectrum of at
  // most 1, and the power multiplies what the first one left by `count`; 4 is for complex products.
  out.error = 4 * kLogCells * std::numeric_limits<double>::epsilon() * (count * spectrum + 1);
  return out;
}

}  // namespace

double hockey_stick(const OutputPair& pair, double gamma) {
  double sum = 0;
  for (size_t i = 0; i < pair.upper.size(); ++i)
    sum += std::max(0.0, pair.upper[i] - gamma * pair.lower[i]);
  return sum;
}

bool dominates(const OutputPair& pair, const OutputPair& other) {
  // Both are convex and piecewise linear in gamma: it is enough to look where either bends.
  for (const OutputPair& bends : {pair, other}) {
    for (size_t i = 0; i < bends.upper.size(); ++i) {
      const double gamma = bends.upper[i] / bends.lower[i];
      if (hockey_stick(pair, gamma) < hockey_stick(other, gamma) - 1e-15) return false;
    }
  }
  return true;
}

double repeated_epsilon(const OutputPair& pair, double count, double delta) {
  // The window of the composed loss that holds all but a millionth of delta, first on a fine grid.
  const double log_rest = std::log(delta) + std::log(1e-6);
  double mean = 0;
  double variance = 0;
  for (size_t i = 0; i < pair.upper.size(); ++i) {
    const double loss = std::log(pair.upper[i] / pair.lower[i]);
    mean += pair.upper[i] * loss;
    variance += pair.upper[i] * loss * loss;
  }
  const double stride = std::sqrt(count * std::max(variance - mean * mean, 1e-12));
  const double fine = std::sqrt(variance) * 1e-3;
  const auto near = on_grid(pair, fine);
  const double low = tail_end(near, fine, count, -1, count * mean, stride, log_rest);
  const double high = tail_end(near, fine, count, 1, count * mean, stride, log_rest);

  const double width = (high - low) * 1.1 / static_cast<double>(kCells);
  const auto atoms = on_grid(pair, width);
  const double first_cell = std::floor((low + high) / 2 / width) - static_cast<double>(kCells) / 2;
  const double last = (first_cell + static_cast<double>(kCells)) * width;
  const Composed composed = convolve(atoms, count, first_cell);
  // What lies above the window counts as told outright. What lies below has come round to its upper
  // end, which adds as well.
  constexpr double kSumError = 1e-12;  // of the two sums below, whose difference is taken
  const double outright =
      std::exp(log_tail(atoms, width, count, last, 1)) + composed.error + kSumError;

  // Down from the top: delta at each cell from the masses above it.
  double above = 0;       // their sum
  double discounted = 0;  // the sum of mass e^(loss of this cell - loss)
  for (size_t i = kCells; i-- > 0;) {
    const double loss = (first_cell + static_cast<double>(i)) * width;
    discounted *= std::exp(-width);
    if (above - discounted + outright > delta)
      return i + 1 == kCells ? kInfinity : std::max(0.0, loss + width);
    if (loss <= 0) return 0;
    above += composed.mass[i];
    discounted += composed.mass[i];
  }
  return std::max(0.0, first_cell * width);
}

}  // namespace isthmus::privacy
