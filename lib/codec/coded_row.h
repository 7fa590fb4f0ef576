// One row between its numbers and its bytes.
#pragma once

#include <isthmus/codec/spec.h>

#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace isthmus::codec {

/// In order of position. Values are binary16, of the number over 2^(exponent - 126).
struct Outliers {
  uint32_t count = 0;
  uint32_t exponent = 0;
  std::array<uint16_t, Split::kMaxCount> positions{};
  std::array<uint16_t, Split::kMaxCount> values{};
};

struct CodedRow {
  Outliers outliers;
  uint32_t scale = 0;              ///< code of the row's scale (scale_of)
  uint32_t bits = 0;               ///< tabq: width of the codes
  uint32_t shift = 0;              ///< of the tables' classes; with rans
  std::vector<int16_t> codes;      ///< one for each coded coordinate
  std::vector<int32_t> draws;      ///< a mechanism's codes, instead of `codes`
  std::vector<uint8_t> exponents;  ///< bfp: of each block, binades below the scale
};

/// Scales are sixteenths of an octave from 2^-100 on; code 0 is 0.
inline constexpr unsigned kScaleBits = 12;
inline constexpr uint32_t kMaxScale = 1 + 16 * 210;
[[nodiscard]] float scale_of(uint32_t code);
/// The code whose scale is nearest (to within 1/32 octave); 0 for what is below 2^-100.
[[nodiscard]] uint32_t scale_code(double value);
/// The same rounded up: scale_of(code) >= value.
[[nodiscard]] uint32_t scale_code_above(double value);

/// Sum of squares in 8 lanes of double, so that it is the same on every machine.
[[nodiscard]] double energy(std::span<const float> values);

}  // namespace isthmus::codec
