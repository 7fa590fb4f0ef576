#include "model.h"

#include <isthmus/kernels/portable_math.h>

#include <algorithm>
#include <cmath>

namespace isthmus::codec {
namespace {

// Symbols of a table at most; the wider a distribution, the more low bits are sent as they are.
constexpr int kMostSymbols = 120;
constexpr double kMostOnASide = 60;
// A code whose probability is below this is not worth its place in a table.
constexpr double kLeastProbability = 0.5 / (1U << FrequencyTable::kBits);
constexpr double kEscapeProbability = 1.0 / (1U << FrequencyTable::kBits);
// An escape's own bits beside its symbol: 4 that say how many follow, and those.
constexpr float kEscapeBits = 10;

constexpr double kGrid = 1.0 / 256;
constexpr size_t kGridPoints = 32 * 256 + 1;

/// Of variance 1, not scaled to an integral of 1.
double density(Shape shape, double x) {
  const double square = x * x;
  switch (shape) {
    case Shape::kGaussian:
      return kernels::portable_exp(-square / 2);
    case Shape::kStudent8: {
      const double u = 1 / (1 + square / 6);
      return u * u * u * u * std::sqrt(u);
    }
    case Shape::kStudent4: {
      const double u = 1 / (1 + square / 2);
      return u * u * std::sqrt(u);
    }
    case Shape::kStudent3: {
      const double u = 1 / (1 + square);
      return u * u;
    }
  }
  return 0;
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
double tail(const Distribution& distribution, Cells cells, int k, double ratio) {
  return 0.5 - distribution.below(edge(cells, k, ratio) / ratio);
}

}  // namespace

Distribution::Distribution(Shape shape) {
  double sum = 0;
  double last = density(shape, 0);
  for (size_t i = 0; i < kGridPoints; ++i) {
    const double here = density(shape, static_cast<double>(i) * kGrid);
    sum += i == 0 ? 0 : last + here;  // trapezoids
    last = here;
    below_.push_back(sum);
  }
  for (double& value : below_) value *= 0.5 / sum;
}

double Distribution::below(double x) const {
  const double place = x / kGrid;
  if (place >= static_cast<double>(kGridPoints - 1)) return 0.5;
  const auto i = static_cast<size_t>(place);
  return below_[i] + (place - static_cast<double>(i)) * (below_[i + 1] - below_[i]);
}

double Distribution::quantile(double p) const {
  const auto above = std::upper_bound(below_.begin(), below_.end(), p);
  if (above == below_.end()) return kGrid * static_cast<double>(kGridPoints - 1);
  const auto i = above - below_.begin() - 1;
  const double low = below_[static_cast<size_t>(i)];
  return kGrid * (static_cast<double>(i) + (p - low) / (*above - low));
}

double ratio_of(int code_class) {
  constexpr std::array kQuarters = {1.0, 1.189207115002721, 1.414213562373095, 1.681792830507429};
  return std::ldexp(kQuarters[static_cast<size_t>(code_class % 4)], code_class / 4 - 4);
}

struct CodeTable::Parts {
  unsigned low_bits = 0;
  int first = 0;
  int last = 0;
  std::vector<double> weights;

  Parts(unsigned low, int least, int most, std::vector<double> of_symbols)
      : low_bits(low), first(least), last(most), weights(std::move(of_symbols)) {}
  Parts(const Distribution& distribution, Cells cells, int code_class, unsigned bits) {
    const double ratio = ratio_of(code_class);
    // P(k <= code < end), from the tails of both sides.
    const auto mass = [&](int k, int end) {
      const bool halves = cells == Cells::kBetween;  // code k mirrors -1 - k, not -k
      const auto reach = [&](int code) {             // P(0 <= X and its code < code)
        return halves && code == 0 ? 0 : 0.5 - tail(distribution, cells, code, ratio);
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
        const double beyond =
            k == last || k == first ? tail(distribution, cells, last + 1, ratio) : 0;
        weights.push_back(std::max(inside + beyond, 0.0));
      }
      return;
    }
    while (std::ldexp(8 * ratio, -static_cast<int>(low_bits)) > kMostOnASide) ++low_bits;
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

CodeTable::CodeTable(const Distribution& distribution, Cells cells, int code_class, unsigned bits)
    : CodeTable(Parts(distribution, cells, code_class, bits)) {}

CodeTable::CodeTable(const CodeTable& like, std::span<const double> weights)
    : CodeTable(Parts{like.low_bits, like.first, like.last, {weights.begin(), weights.end()}}) {}

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

CodeTables::CodeTables(const Distribution& distribution, Cells cells, unsigned bits,
                       std::span<const int> wanted) {
  for (const int code_class : wanted) {
    std::unique_ptr<const CodeTable>& table = tables_[static_cast<size_t>(code_class)];
    if (table == nullptr)
      table = std::make_unique<CodeTable>(distribution, cells, code_class, bits);
  }
}

}  // namespace isthmus::codec
