// Static tables for quantised coordinates: what fraction of a distribution falls into each cell.
//
// A table is made for one ratio of the distribution's width to the quantiser's step; ratios are a
// quarter of an octave apart ("classes").
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "rans.h"

namespace isthmus::codec {

/// Of rows of unit variance: rotated ones are Gaussian; others have heavy tails, which Student's t
/// describes (with the given degrees of freedom).
enum class Shape : uint8_t { kGaussian, kStudent8, kStudent4, kStudent3 };

/// A shape's distribution function on a grid, from basic arithmetic alone.
class Distribution {
 public:
  explicit Distribution(Shape shape);
  /// P(0 <= X < x) for x >= 0.
  [[nodiscard]] double below(double x) const;
  /// The inverse, for p in [0, 1/2).
  [[nodiscard]] double quantile(double p) const;

 private:
  std::vector<double> below_;  // at 0, h, 2 h, ...
};

/// How cells lie in units of the step.
enum class Cells : uint8_t {
  kBetween,  ///< code k stands for [k, k + 1): levels half-way between the integers
  kAround,   ///< code k stands for [k - 1/2, k + 1/2)
  kEven,     ///< the trellis' two sets of levels, 2 k and 2 k - sign(k), with the cells that its
  kOdd,      ///< encoder uses on average
};

/// Codes of one class, as symbols.
struct CodeTable {
  /// `bits`: 0, or for kBetween the width of the codes, which are then in [-2^(bits-1),
  /// 2^(bits-1)).
  CodeTable(const Distribution& distribution, Cells cells, int code_class, unsigned bits);
  /// A table with the same symbols and other weights for them.
  CodeTable(const CodeTable& like, std::span<const double> weights);

  [[nodiscard]] bool escapes(int code) const {
    const int high = code >> low_bits;
    return high < first || high > last;
  }
  [[nodiscard]] size_t symbol(int code) const {
    return static_cast<size_t>((code >> low_bits) - first);
  }
  /// Bits that a code takes, that of an escape included.
  [[nodiscard]] float cost(int code) const {
    const int place = std::clamp((code >> low_bits) - first + 1, 0, last - first + 2);
    return costs_[static_cast<size_t>(place)];
  }

  unsigned low_bits = 0;  ///< of the code, sent as they are; the rest is the symbol
  int first = 0;          ///< code >> low_bits of symbol 0
  int last = 0;           ///< and of the last one; the symbol after it is an escape, unless `bits`
  FrequencyTable frequencies;

 private:
  std::vector<float> costs_;  // of symbols 0, 1, ..., with an escape's on either side

  struct Parts;
  explicit CodeTable(const Parts& parts);
};

/// Class c has the ratio 2^(c / 4 - 4) of standard deviation to step.
inline constexpr int kClassCount = 64;
[[nodiscard]] int class_of(double ratio);
[[nodiscard]] double ratio_of(int code_class);

/// Tables of one kind of quantiser for the classes that may occur.
class CodeTables {
 public:
  /// \param wanted classes; others have no table.
  CodeTables(const Distribution& distribution, Cells cells, unsigned bits,
             std::span<const int> wanted);
  [[nodiscard]] const CodeTable& operator[](int code_class) const {
    return *tables_[static_cast<size_t>(code_class)];
  }
  void replace(int code_class, CodeTable table) {
    tables_[static_cast<size_t>(code_class)] = std::make_unique<const CodeTable>(std::move(table));
  }

 private:
  std::array<std::unique_ptr<const CodeTable>, kClassCount> tables_;
};

/// A row's own width may differ from the expected one: its classes are moved by shift - 8, shift in
/// [0, 16), and stay within what there is.
inline constexpr unsigned kShiftBits = 4;
[[nodiscard]] constexpr int shifted_class(int expected, uint32_t shift) {
  const int moved = expected + static_cast<int>(shift) - 8;
  return moved < 0 ? 0 : moved >= kClassCount ? kClassCount - 1 : moved;
}

}  // namespace isthmus::codec
