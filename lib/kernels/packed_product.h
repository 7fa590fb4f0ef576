// Quantising activations, and their products with packed weights. Part of every variant, see
// lanes.h. The including source defines ISTHMUS_PACKED_ROWS (a power of two up to 8: the rows of a
// tile), and has included its dots_<isa>.h.
#pragma once

#include "lanes.h"

namespace isthmus::kernels::ISTHMUS_ISA {
namespace {

/// Sixteen codes, and their sum.
inline int32_t quantize_half(const Lanes& x, float factor, int8_t* codes) {
  Lanes scaled = multiply(x, broadcast(factor));
  IntVector sum = {};
  ISTHMUS_UNROLL
  for (size_t p = 0; p < kParts; ++p) {
    const Vector rounded = scaled.part[p] + kRound;
    const IntVector integers = (IntVector)rounded - __builtin_bit_cast(int32_t, kRound);
    store_bytes(integers, codes + p * kVectorLanes);
    sum += integers;
  }
  return sum_lanes(sum);
}

inline Vector magnitudes(Vector v) {
  return v < 0 ? -v : v;
}

inline Vector larger(Vector a, Vector b) {
  return a > b ? a : b;
}

/// One group of 32.
inline void quantize_group(const float* x, int8_t* codes, float* scale, float* sum,
                           int32_t* half_sums) {
  const Lanes halves[2] = {load(x), load(x + kLanes)};
  Vector largest = {};
  for (const Lanes& half : halves) {
    ISTHMUS_UNROLL
    for (size_t p = 0; p < kParts; ++p) largest = larger(magnitudes(half.part[p]), largest);
  }
  const float top = largest_lane(largest);
  const float factor = top < kSmallest ? 0 : 127 / top;
  *scale = top < kSmallest ? 0 : top / 127;
  half_sums[0] = quantize_half(halves[0], factor, codes);
  half_sums[1] = quantize_half(halves[1], factor, codes + kLanes);
  *sum = *scale * static_cast<float>(half_sums[0] + half_sums[1]);
}

void quantize(const float* x, size_t size, const QuantizedRows& row) {
  const size_t whole = size / kPackedGroup;
  for (size_t g = 0; g < whole; ++g) {
    quantize_group(x + g * kPackedGroup, row.codes + g * kPackedGroup, row.scales + g, row.sums + g,
                   row.half_sums + 2 * g);
  }
  if (const size_t rest = size % kPackedGroup; rest > 0) {
    float padded[kPackedGroup] = {};
    __builtin_memcpy(padded, x + whole * kPackedGroup, rest * sizeof(float));
    quantize_group(padded, row.codes + whole * kPackedGroup, row.scales + whole, row.sums + whole,
                   row.half_sums + 2 * whole);
  }
}

/// Compile-time PackedFormat, so that every combination gets straight code.
template <bool Nibbles, bool HalfGroups, bool FloatScales, bool Offsets>
struct Layout {
  static constexpr PackedFormat kFormat = {Nibbles, HalfGroups, FloatScales, Offsets};
  static constexpr size_t kScaleBytes = kFormat.scale_bytes();
  static constexpr size_t kScaleRows = (HalfGroups ? 2 : 1) + (Offsets ? 1 : 0);
  static constexpr size_t kCodes = kScaleRows * kScaleBytes;

  /// Scales or offsets of the outputs of one part of a block.
  static Vector scales(const uint8_t* group, size_t which, size_t part) {
    const uint8_t* from = group + which * kScaleBytes;
    if constexpr (FloatScales) {
      Vector values;
      __builtin_memcpy(&values, from + part * sizeof(Vector), sizeof values);
      return values;
    } else {
      return load_half(reinterpret_cast<const uint16_t*>(from) + part * kVectorLanes);
    }
  }
};

/// Rows of activations.
struct RowPointers {
  const int8_t* codes;
  const float* scales;
  const float* sums;
  const int32_t* half_sums;
  size_t groups;
};

/// What group `g` of one part of a block adds to the outputs of each row.
template <typename L, size_t Rows>
inline void add_group(const uint8_t* group, size_t part, const RowPointers& x, size_t g,
                      Vector (&outputs)[Rows]) {
  const size_t stride = x.groups * kPackedGroup;
  const int8_t* codes = x.codes + g * kPackedGroup;
  const uint8_t* weights = group + L::kCodes + part * kVectorLanes * 4;
  const int32_t* half_sums = x.half_sums + 2 * g;
  Vector products[Rows];
  const Vector scale = L::scales(group, 0, part);
  if constexpr (L::kFormat.half_groups) {
    IntVector first[Rows] = {};
    IntVector second[Rows] = {};
    dot_bytes<Rows>(weights, codes, stride, half_sums, 2 * x.groups, first);
    dot_bytes<Rows>(weights + 256, codes + 16, stride, half_sums + 1, 2 * x.groups, second);
    const Vector second_scale = L::scales(group, 1, part);
    ISTHMUS_UNROLL
    for (size_t r = 0; r < Rows; ++r) {
      products[r] = to_float(first[r]) * scale + to_float(second[r]) * second_scale;
    }
  } else {
    IntVector dots[Rows] = {};
    if constexpr (L::kFormat.nibbles) {
      dot_nibbles<Rows>(weights, codes, stride, dots);
    } else {
      dot_bytes<Rows>(weights, codes, stride, half_sums, 2 * x.groups, dots);
      dot_bytes<Rows>(weights + 256, codes + 16, stride, half_sums + 1, 2 * x.groups, dots);
    }
    ISTHMUS_UNROLL
    for (size_t r = 0; r < Rows; ++r) {
      if constexpr (L::kFormat.nibbles && !L::kFormat.offsets) {
        const int32_t* sums = half_sums + 2 * r * x.groups;
        dots[r] -= 8 * (sums[0] + sums[1]);
      }
      products[r] = to_float(dots[r]) * scale;
    }
  }
  ISTHMUS_UNROLL
  for (size_t r = 0; r < Rows; ++r) {
    const size_t at = r * x.groups + g;
    Vector sum = products[r] * x.scales[at];
    if constexpr (L::kFormat.offsets) {
      sum += L::scales(group, L::kScaleRows - 1, part) * x.sums[at];
    }
    outputs[r] += sum;
  }
}

/// One block of outputs for `Rows` rows from `row` up.
template <typename L, size_t Rows>
inline void packed_tile(const PackedProduct& p, const uint8_t* block, size_t row, size_t output) {
  const RowPointers x = {p.x.codes + row * p.groups * kPackedGroup, p.x.scales + row * p.groups,
                         p.x.sums + row * p.groups, p.x.half_sums + row * p.groups * 2, p.groups};
  float results[Rows][kPackedOutputs];
  for (size_t part = 0; part < kParts; ++part) {
    Vector outputs[Rows] = {};
    const uint8_t* group = block;
    for (size_t g = 0; g < p.groups; ++g, group += L::kFormat.group_bytes()) {
      if (Rows <= 2 && part == 0) {
        for (size_t line = 0; line < L::kFormat.group_bytes(); line += 64) {
          __builtin_prefetch(group + kAhead + line);
        }
      }
      add_group<L, Rows>(group, part, x, g, outputs);
    }
    for (size_t r = 0; r < Rows; ++r) {
      __builtin_memcpy(results[r] + part * kVectorLanes, &outputs[r], sizeof(Vector));
    }
  }
  const size_t count = p.outputs - output < kPackedOutputs ? p.outputs - output : kPackedOutputs;
  for (size_t r = 0; r < Rows; ++r) {
    float* y = p.y + (row + r) * p.y_stride + output;
    for (size_t n = 0; n < count; ++n) {
      y[n] = p.bias == nullptr ? results[r][n] : results[r][n] + p.bias[output + n];
    }
  }
}

template <typename L>
void packed_blocks(const PackedProduct& p) {
  for (size_t b = p.first_block; b < p.end_block; ++b) {
    const auto* block =
        reinterpret_cast<const uint8_t*>(p.blocks) + b * p.groups * L::kFormat.group_bytes();
    const size_t output = b * kPackedOutputs;
    size_t row = 0;
    for (; row + ISTHMUS_PACKED_ROWS <= p.rows; row += ISTHMUS_PACKED_ROWS) {
      packed_tile<L, ISTHMUS_PACKED_ROWS>(p, block, row, output);
    }
    for (; ISTHMUS_PACKED_ROWS > 4 && row + 4 <= p.rows; row += 4) {
      packed_tile<L, 4>(p, block, row, output);
    }
    for (; ISTHMUS_PACKED_ROWS > 2 && row + 2 <= p.rows; row += 2) {
      packed_tile<L, 2>(p, block, row, output);
    }
    for (; row < p.rows; ++row) packed_tile<L, 1>(p, block, row, output);
  }
}

void packed_product(const PackedProduct& p) {
  const PackedFormat f = p.format;
  if (f.nibbles) {
    if (!f.offsets) return packed_blocks<Layout<true, false, false, false>>(p);
    if (!f.float_scales) return packed_blocks<Layout<true, false, false, true>>(p);
    return packed_blocks<Layout<true, false, true, true>>(p);
  }
  if (f.half_groups) return packed_blocks<Layout<false, true, true, false>>(p);
  if (!f.offsets) return packed_blocks<Layout<false, false, false, false>>(p);
  if (!f.float_scales) return packed_blocks<Layout<false, false, false, true>>(p);
  return packed_blocks<Layout<false, false, true, true>>(p);
}

}  // namespace
}  // namespace isthmus::kernels::ISTHMUS_ISA
