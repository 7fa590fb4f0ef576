#include "model.h"

#include <isthmus/kernels/portable_math.h>

#include <algorithm>
#include <cmath>

namespace isthmus::codec {
namespace {

// Symbols of a table at most; the wider a distribution, the more low bits are sent as they are.
constexpr int kMostSymbols = 120;
// A code whose probability is below this is not worth its place in a table.
constexpr double kLeastProbability = 0.5 / (1U << FrequencyTable::kBits);
constexpr double kEscapeProbability = 1.0 / (1U << FrequencyTable::kBits);
// An escape's own bits beside its symbol: 4 that say how many follow, and those.
constexpr float kEscapeBits = 10;

/// P(0 <= X < x) of a Gaussian with variance 1, by Simpson's rule.
double gaussian_below(double x) {
  constexpr int kPieces = 64;
  if (x > 9) return 0.5;
  const double h = x / kPieces;
  double sum = 1 + kernels::portable_exp(-x * x / 2);
  for (int i = 1; i < kPieces; ++i)
    sum += (i % 2 == 0 ? 2 : 4) * kernels::portable_exp(-(i * h) * (i * h) / 2);
  constexpr double kDensityAtZero = 0.39894228040143267794;
  return kDensityAtZero * sum * h / 3;
}

/// The same for Student's t with 4 degrees of freedom, scaled to variance 1.
double heavy_below(double x) {
  if (x > 1e6) return 0.5;
  const double t2 = 2 * x * x;
  const double u = 1 + t2 / 4;
  return 0.375 * std::sqrt(t2 / u) * (1 - t2 / (12 * u));
}

double below(Shape shape, double x) {
  if (x < 0) return -below(shape, -x);
  return shape == Shape::kGaussian ? gaussian_below(x) : heavy_below(x);
}

/// Where the cell of code k >= 1 begins, in steps. The trellis' cells overlap, and its encoder
/// prefers cheap codes: these are the edges that give the observed frequencies for a Gaussian (8
/// states, 115,200 coordinates for each of seven ratios from 1 to 4).
double edge(Cells cells, int k, double ratio) {
  const double r2 = ratio * ratio;
  const auto code = static_cast<double>(k);
  switch (cells) {
    case Cells::kBetween:
      return code;
    case Cells::kAround:
      return code - 0.5;
    case Cells::kEven:
      if (k == 1) return std::min(0.85 + 0.45 / r2, 2.5);
      return 2 * code - 1 + std::min(0.02 + 0.06 * (8 * code - 4) / r2, 0.9);
    case Cells::kOdd:
      if (k == 1) return 0.3;
      return 2 * code - 2 + std::min(0.07 + 0.62 * (code - 1) / r2, 0.9);
  }
  return code;
}

/// P(code >= k) for k >= 1.
double tail(Shape shape, Cells cells, int k, double ratio) {
  return 0.5 - below(shape, edge(cells, k, ratio) / ratio);
}

double ratio_of(int code_class) {
  constexpr std::array kQuarters = {1.0, 1.189207115002721, 1.414213562373095, 1.681792830507429};
  return std::ldexp(kQuarters[static_cast<size_t>(code_class % 4)], code_class / 4 - 4);
}

}  // namespace

struct CodeTable::Parts {
  unsigned low_bits = 0;
  int first = 0;
  int last = 0;
  std::vector<double> weights;

  Parts(Shape shape, Cells cells, int code_class, unsigned bits) {
    const double ratio = ratio_of(code_class);
    // P(k <= code < end), from the tails of both sides.
    const auto mass = [&](int k, int end) {
      const bool halves = cells == Cells::kBetween;  // code k mirrors -1 - k, not -k
      const auto reach = [&](int code) {             // P(0 <= X and its code < code)
        return halves && code == 0 ? 0 : 0.5 - tail(shape, cells, code, ratio);
      };
      const int mirrored_k = halves ? -end : 1 - end;
      const int mirrored_end = halves ? -k : 1 - k;
      if (k >= (halves ? 0 : 1)) return reach(end) - reach(k);
      if (end <= 0) return reach(mirrored_end) - reach(mirrored_k);
      return (halves ? reach(-k) : reach(1 - k)) + reach(end);
    };
    if (bits > 0) {
      first = -(1 << (bits - 1));
      last = -first - 1;
      for (int k = first; k <= last; ++k) {
        const double inside = mass(k, k + 1);
        // The outermost codes also stand for all that is beyond.
        const double beyond = k == last || k == first ? tail(shape, cells, last + 1, ratio) : 0;
        weights.push_back(std::max(inside + beyond, 0.0));
      }
      return;
    }
    while (std::ldexp(8 * ratio, -static_cast<int>(low_bits)) > kMostSymbols / 2) ++low_bits;
    const int width = 1 << low_bits;
    const auto symbol_mass = [&](int high) { return mass(high * width, (high + 1) * width); };
    last = 1;
    while (last < kMostSymbols / 2 - 1 && symbol_mass(last + 1) > kLeastProbability) ++last;
    first = -last - (low_bits > 0 ? 1 : 0);
    double sum = 0;
    for (int high = first; high <= last; ++high) {
      weights.push_back(std::max(symbol_mass(high), 0.0));
      sum += weights.back();
    }
    weights.push_back(std::max(1 - sum, kEscapeProbability));
  }
};

CodeTable::CodeTable(Shape shape, Cells cells, int code_class, unsigned bits)
    : CodeTable(Parts(shape, cells, code_class, bits)) {}

CodeTable::CodeTable(const Parts& parts)
    : low_bits(parts.low_bits), first(parts.first), last(parts.last), frequencies(parts.weights) {
  const auto count = static_cast<size_t>(last - first + 1);
  // Without an escape there are no codes outside, and its cost does not matter.
  const float escape =
      kEscapeBits + (count < frequencies.size() ? frequencies.cost(count) : float{0});
  costs_.push_back(escape);
  for (size_t symbol = 0; symbol < count; ++symbol)
    costs_.push_back(static_cast<float>(low_bits) + frequencies.cost(symbol));
  costs_.push_back(escape);
}

int class_of(double ratio) {
  int best = 0;
  // The nearest on a logarithmic scale: below the geometric mean with the next one.
  while (best + 1 < kClassCount && ratio > ratio_of(best) * 1.0905077326652577) ++best;
  return best;
}

CodeTables::CodeTables(Shape shape, Cells cells, unsigned bits, std::span<const int> wanted) {
  for (const int code_class : wanted) {
    std::unique_ptr<const CodeTable>& table = tables_[static_cast<size_t>(code_class)];
    if (table == nullptr) table = std::make_unique<CodeTable>(shape, cells, code_class, bits);
  }
}

}  // namespace isthmus::codec
