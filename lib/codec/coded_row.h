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

/// From here on magnitudes are refused by all but plain numbers.
inline constexpr float kTooLarge = 0x1p100F;
/// Whether all magnitudes are below `limit`; false for NaN.
[[nodiscard]] bool all_below(float limit, std::span<const float> values);
/// The largest magnitude; 0 of no numbers.
[[nodiscard]] float largest_of(std::span<const float> values);
/// Sum of squares in 8 lanes of double, so that it is the same on every machine.
[[nodiscard]] double energy(std::span<const float> values);

/// Exponent of the power of two that a row's numbers are divided by before they become binary16: it
/// brings the largest magnitude, rounded as binary16 will round it, into [2^14, 2^15), a binade
/// below binary16's largest numbers and 28 binades above its smallest normal one. A power of two
/// keeps the division exact, and looking at the rounded magnitude gives a row that has been decoded
/// the same exponent again. Not below kLeastHalfExponent, that of float's smallest normal number:
/// rows that tiny are on a coarser grid than binary16's anyway.
[[nodiscard]] int half_exponent(float largest);
inline constexpr int kLeastHalfExponent = -126;

}  // namespace isthmus::codec
