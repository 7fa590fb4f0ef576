// How quantised weights lie in memory for the products.
//
// Sixteen outputs make a block, and a block holds its groups of 32 inputs one behind the other, so
// that a product reads memory front to back and every vector lane works for an output of its own.
// A group is
//   scales   [16], binary16 or float32; for groups of 16 two of these, first half first
//   offsets  [16], as the scales; only where the format has them
//   codes    byte formats: 8 x 64 bytes. Byte 4 n + k of the q-th 64 is the code of output n and
//            input 4 q + k, signed.
//            nibble formats: 4 x 64 bytes. The low nibble of byte 4 n + k of the q-th 64 is the
//            code of output n and input 4 q + k, the high nibble that of input 16 + 4 q + k.
// A weight is scale * code + offset; nibbles without offsets stand for code - 8. Outputs behind the
// last one are zero.
#pragma once

#include <cstddef>
#include <cstdint>

namespace isthmus::kernels {

inline constexpr size_t kPackedOutputs = 16;  ///< in a block
inline constexpr size_t kPackedGroup = 32;    ///< inputs, and so activations, with one scale

struct PackedFormat {
  bool nibbles = false;       ///< codes of 4 bits, else of 8
  bool half_groups = false;   ///< one scale per 16 inputs, else per 32; byte formats only
  bool float_scales = false;  ///< float32, else binary16
  bool offsets = false;       ///< not with half_groups

  [[nodiscard]] constexpr size_t scale_bytes() const {
    return kPackedOutputs * (float_scales ? 4 : 2);
  }
  [[nodiscard]] constexpr size_t group_bytes() const {
    const size_t rows_of_scales = (half_groups ? 2 : 1) + (offsets ? 1 : 0);
    return rows_of_scales * scale_bytes() + kPackedOutputs * kPackedGroup / (nibbles ? 2 : 1);
  }
  friend constexpr bool operator==(const PackedFormat&, const PackedFormat&) = default;
};

}  // namespace isthmus::kernels
