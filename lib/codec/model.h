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

/// Of rows of unit variance: rotated ones are Gaussian, others have the heavy tails of Student's t
/// with four degrees of freedom (within 0.02 bits of each row's own table on SmolLM2's boundaries).
enum class Shape : uint8_t { kGaussian, kHeavy };

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
  CodeTable(Shape shape, Cells cells, int code_class, unsigned bits);

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

/// Tables of one kind of quantiser for the classes that may occur.
class CodeTables {
 public:
  /// \param wanted classes; others have no table.
  CodeTables(Shape shape, Cells cells, unsigned bits, std::span<const int> wanted);
  [[nodiscard]] const CodeTable& operator[](int code_class) const {
    return *tables_[static_cast<size_t>(code_class)];
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
