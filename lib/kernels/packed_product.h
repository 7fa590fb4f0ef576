// Quantising activations, and their products with packed weights. Part of every variant, see
// lanes.h. The including source defines ISTHMUS_PACKED_ROWS (a power of two up to 8: the rows of a
// tile), and has included its dots_<isa>.h.
#pragma once

#include "lanes.h"

namespace isthmus::kernels::ISTHMUS_ISA {
namespace {

/// The nearest integers.
inline IntVector rounded(Vector v) {
  return (IntVector)(v + kRound) - __builtin_bit_cast(int32_t, kRound);
}

/// Sixteen codes in one byte or two, and their sum.
template <bool Fine>
inline int32_t quantize_half(const Lanes& x, float factor, CodePlane coarse, CodePlane fine,
                             size_t half) {
  const Lanes scaled = multiply(x, broadcast(factor));
  IntVector coarse_sum = {};
  IntVector fine_sum = {};
  ISTHMUS_UNROLL
  for (size_t p = 0; p < kParts; ++p) {
    const size_t at = half * kLanes + p * kVectorLanes;
    IntVector codes = rounded(scaled.part[p]);
    if constexpr (Fine) {
      const IntVector high = rounded(to_float(codes) * (1.0F / kCoarseStep));
      const IntVector low = codes - high * kCoarseStep;
      store_bytes(low, fine.codes + at);
      fine_sum += low;
      codes = high;
    }
    store_bytes(codes, coarse.codes + at);
    coarse_sum += codes;
  }
  coarse.half_sums[half] = sum_lanes(coarse_sum);
  if constexpr (!Fine) return coarse.half_sums[half];
  fine.half_sums[half] = sum_lanes(fine_sum);
  return coarse.half_sums[half] * kCoarseStep + fine.half_sums[half];
}

/// A group with a number that is not finite: everything that is multiplied by it becomes NaN.
inline void poison_group(const QuantizedRows& row, size_t g) {
  const CodePlane planes[2] = {row.coarse, row.fine};
  for (const CodePlane& plane : planes) {
    if (plane.codes == nullptr) continue;
    __builtin_memset(plane.codes + g * kPackedGroup, 0, kPackedGroup);
    plane.half_sums[2 * g] = 0;
    plane.half_sums[2 * g + 1] = 0;
  }
  row.scales[g] = __builtin_nanf("");
  row.sums[g] = __builtin_nanf("");
}

/// One group of 32.
template <bool Fine>
inline void quantize_group(const float* x, const QuantizedRows& row, size_t g) {
  // Compared as integers, magnitudes have the same order, with infinity and NaN at the end.
  const Lanes halves[2] = {load(x), load(x + kLanes)};
  IntVector largest = {};
  for (const Lanes& half : halves) {
    ISTHMUS_UNROLL
    for (size_t p = 0; p < kParts; ++p) {
      const IntVector magnitude = (IntVector)half.part[p] & 0x7FFFFFFF;
      largest = magnitude > largest ? magnitude : largest;
    }
  }
  const int32_t top_bits = largest_lane(largest);
  if (top_bits >= 0x7F800000) return poison_group(row, g);
  const float top = __builtin_bit_cast(float, top_bits);
  constexpr float kTopCode = 127 * (Fine ? kCoarseStep : 1);
  const float factor = top < kSmallest ? 0 : kTopCode / top;
  const float scale = top < kSmallest ? 0 : top / kTopCode;
  const int32_t first = quantize_half<Fine>(halves[0], factor, row.coarse, row.fine, 2 * g);
  const int32_t second = quantize_half<Fine>(halves[1], factor, row.coarse, row.fine, 2 * g + 1);
  row.scales[g] = scale;
  row.sums[g] = scale * static_cast<float>(first + second);
}

template <bool Fine>
inline void quantize_row(const float* x, size_t size, const QuantizedRows& row) {
  const size_t whole = size / kPackedGroup;
  for (size_t g = 0; g < whole; ++g) quantize_group<Fine>(x + g * kPackedGroup, row, g);
  if (const size_t rest = size % kPackedGroup; rest > 0) {
    float padded[kPackedGroup] = {};
    __builtin_memcpy(padded, x + whole * kPackedGroup, rest * sizeof(float));
    quantize_group<Fine>(padded, row, whole);
  }
}

void quantize(const float* x, size_t size, const QuantizedRows& row) {
  if (row.fine.codes == nullptr) {
    quantize_row<false>(x, size, row);
  } else {
    quantize_row<true>(x, size, row);
  }
}

/// Compile-time PackedFormat, so that every combination gets straight code.
template <bool Nibbles, bool HalfGroups, bool FloatScales, bool Offsets>
struct Layout {
  static constexpr PackedFormat kFormat = {Nibbles, HalfGroups, FloatScales, Offsets};
  static constexpr size_t kScaleBytes = kFormat.scale_bytes();
  static constexpr size_t kScaleRows = (HalfGroups ? 2 : 1) + (Offsets ? 1 : 0);
  static constexpr size_t kCodes = kScaleRows * kScaleBytes;
  static constexpr size_t kGroupBytes = kFormat.group_bytes();

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

/// One byte of `Rows` rows, from a group on.
struct Codes {
  const int8_t* codes;
  const int32_t* half_sums;
  size_t groups;  // of a row
};

/// Integer dot products of 32 inputs, or of 16.
template <typename L, size_t Rows>
inline void dot_group(const uint8_t* weights, const Codes& x, IntVector (&dots)[Rows]) {
  const size_t stride = x.groups * kPackedGroup;
  if constexpr (L::kFormat.nibbles) {
    dot_nibbles<Rows>(weights, x.codes, stride, dots);
    if constexpr (L::kFormat.offsets) return;
    ISTHMUS_UNROLL
    for (size_t r = 0; r < Rows; ++r) {
      const int32_t* sums = x.half_sums + 2 * r * x.groups;
      dots[r] -= 8 * (sums[0] + sums[1]);
    }
  } else {
    dot_bytes<Rows>(weights, x.codes, stride, x.half_sums, 2 * x.groups, dots);
    if constexpr (L::kFormat.half_groups) return;
    dot_bytes<Rows>(weights + 256, x.codes + 16, stride, x.half_sums + 1, 2 * x.groups, dots);
  }
}

/// The dot products as float, both bytes taken together.
template <typename L, bool Fine, size_t Rows>
inline void float_dots(const uint8_t* weights, const Codes& coarse, const Codes& fine,
                       Vector (&products)[Rows]) {
  IntVector dots[Rows] = {};
  dot_group<L>(weights, coarse, dots);
  if constexpr (Fine) {
    IntVector fine_dots[Rows] = {};
    dot_group<L>(weights, fine, fine_dots);
    ISTHMUS_UNROLL
    for (size_t r = 0; r < Rows; ++r) dots[r] = dots[r] * kCoarseStep + fine_dots[r];
  }
  ISTHMUS_UNROLL
  for (size_t r = 0; r < Rows; ++r) products[r] = to_float(dots[r]);
}

inline Codes second_half(const Codes& x) {
  return {x.codes + 16, x.half_sums + 1, x.groups};
}

/// What group `g` of one part of a block adds to the outputs of each row from `row` up.
template <typename L, bool Fine, size_t Rows>
inline void add_group(const PackedProduct& p, const uint8_t* group, size_t part, size_t row,
                      size_t g, Vector (&outputs)[Rows]) {
  const uint8_t* weights = group + L::kCodes + part * kVectorLanes * 4;
  const size_t at = row * p.groups + g;
  const Codes coarse = {p.x.coarse.codes + at * kPackedGroup, p.x.coarse.half_sums + 2 * at,
                        p.groups};
  Codes fine = coarse;
  if constexpr (Fine) {
    fine = {p.x.fine.codes + at * kPackedGroup, p.x.fine.half_sums + 2 * at, p.groups};
  }
  Vector products[Rows];
  float_dots<L, Fine>(weights, coarse, fine, products);
  const Vector scale = L::scales(group, 0, part);
  ISTHMUS_UNROLL
  for (size_t r = 0; r < Rows; ++r) products[r] *= scale;
  if constexpr (L::kFormat.half_groups) {
    Vector second[Rows];
    float_dots<L, Fine>(weights + 256, second_half(coarse), second_half(fine), second);
    const Vector second_scale = L::scales(group, 1, part);
    ISTHMUS_UNROLL
    for (size_t r = 0; r < Rows; ++r) products[r] += second[r] * second_scale;
  }
  ISTHMUS_UNROLL
  for (size_t r = 0; r < Rows; ++r) {
    Vector sum = products[r] * p.x.scales[at + r * p.groups];
    if constexpr (L::kFormat.offsets) {
      sum += L::scales(group, L::kScaleRows - 1, part) * p.x.sums[at + r * p.groups];
    }
    outputs[r] += sum;
  }
}

/// One block of outputs for `Rows` rows from `row` up.
template <typename L, bool Fine, size_t Rows>
inline void packed_tile(const PackedProduct& p, const uint8_t* block, size_t row, size_t output) {
  float results[Rows][kPackedOutputs];
  for (size_t part = 0; part < kParts; ++part) {
    Vector outputs[Rows] = {};
    const uint8_t* group = block;
    for (size_t g = 0; g < p.groups; ++g, group += L::kGroupBytes) {
      // The first rows bring a block from memory, the others find it in the cache.
      if (row == 0 && part == 0) {
        for (size_t line = 0; line < L::kGroupBytes; line += 64) {
          __builtin_prefetch(group + kAhead + line);
        }
      }
      add_group<L, Fine>(p, group, part, row, g, outputs);
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

template <typename L, bool Fine>
void packed_rows(const PackedProduct& p) {
  for (size_t b = p.first_block; b < p.end_block; ++b) {
    const auto* block = reinterpret_cast<const uint8_t*>(p.blocks) + b * p.groups * L::kGroupBytes;
    const size_t output = b * kPackedOutputs;
    size_t row = 0;
    for (; row + ISTHMUS_PACKED_ROWS <= p.rows; row += ISTHMUS_PACKED_ROWS) {
      packed_tile<L, Fine, ISTHMUS_PACKED_ROWS>(p, block, row, output);
    }
    for (; ISTHMUS_PACKED_ROWS > 4 && row + 4 <= p.rows; row += 4) {
      packed_tile<L, Fine, 4>(p, block, row, output);
    }
    for (; ISTHMUS_PACKED_ROWS > 2 && row + 2 <= p.rows; row += 2) {
      packed_tile<L, Fine, 2>(p, block, row, output);
    }
    for (; row < p.rows; ++row) packed_tile<L, Fine, 1>(p, block, row, output);
  }
}

template <typename L>
void packed_blocks(const PackedProduct& p) {
  if (p.x.fine.codes == nullptr) {
    packed_rows<L, false>(p);
  } else {
    packed_rows<L, true>(p);
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
