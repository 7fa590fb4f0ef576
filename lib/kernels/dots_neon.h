// Conversions and dot products of bytes with NEON's dot product (ARMv8.2). Part of the variant, see
// lanes.h.
#pragma once

#include <arm_neon.h>

#include "lanes.h"

namespace isthmus::kernels::ISTHMUS_ISA {
namespace {

inline int32_t sum_lanes(IntVector v) {
  return vaddvq_s32((int32x4_t)v);
}

inline int32_t largest_lane(IntVector v) {
  return vmaxvq_s32((int32x4_t)v);
}

inline float largest_lane(Vector v) {
  return vmaxvq_f32((float32x4_t)v);
}

inline Vector to_float(IntVector v) {
  return (Vector)vcvtq_f32_s32((int32x4_t)v);
}

inline Vector load_half(const uint16_t* from) {
  return (Vector)vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(from)));
}

inline int8x16_t broadcast_four(const int8_t* from) {
  int32_t four;
  __builtin_memcpy(&four, from, sizeof four);
  return vreinterpretq_s8_s32(vdupq_n_s32(four));
}

inline Vector load_bytes(const int8_t* from) {
  const int16x8_t shorts = vmovl_s8(vget_low_s8(broadcast_four(from)));
  return to_float((IntVector)vmovl_s16(vget_low_s16(shorts)));
}

inline void store_bytes(IntVector v, int8_t* to) {
  const int16x4_t shorts = vmovn_s32((int32x4_t)v);
  const int8x8_t bytes = vmovn_s16(vcombine_s16(shorts, shorts));
  vst1_lane_s32(reinterpret_cast<int32_t*>(to), vreinterpret_s32_s8(bytes), 0);
}

inline uint16_t half_bits(float value) {
  return vget_lane_u16(vreinterpret_u16_f16(vcvt_f16_f32(vdupq_n_f32(value))), 0);
}

/// sums += codes of 32 inputs and 4 outputs . x, codes being nibbles as they are.
template <size_t Rows>
inline void dot_nibbles(const uint8_t* codes, const int8_t* x, size_t x_stride,
                        IntVector (&sums)[Rows]) {
  ISTHMUS_UNROLL
  for (size_t q = 0; q < 4; ++q) {
    const uint8x16_t both = vld1q_u8(codes + 64 * q);
    const int8x16_t low = vreinterpretq_s8_u8(vandq_u8(both, vdupq_n_u8(0x0F)));
    const int8x16_t high = vreinterpretq_s8_u8(vshrq_n_u8(both, 4));
    ISTHMUS_UNROLL
    for (size_t r = 0; r < Rows; ++r) {
      const int8_t* row = x + r * x_stride + 4 * q;
      const int32x4_t sum = vdotq_s32((int32x4_t)sums[r], low, broadcast_four(row));
      sums[r] = (IntVector)vdotq_s32(sum, high, broadcast_four(row + 16));
    }
  }
}

/// sums += codes of 16 inputs and 4 outputs . x.
template <size_t Rows>
inline void dot_bytes(const uint8_t* codes, const int8_t* x, size_t x_stride,
                      const int32_t* /*x_sums*/, size_t /*sums_stride*/, IntVector (&sums)[Rows]) {
  ISTHMUS_UNROLL
  for (size_t q = 0; q < 4; ++q) {
    const int8x16_t weights = vreinterpretq_s8_u8(vld1q_u8(codes + 64 * q));
    ISTHMUS_UNROLL
    for (size_t r = 0; r < Rows; ++r) {
      const int8x16_t four = broadcast_four(x + r * x_stride + 4 * q);
      sums[r] = (IntVector)vdotq_s32((int32x4_t)sums[r], weights, four);
    }
  }
}

}  // namespace
}  // namespace isthmus::kernels::ISTHMUS_ISA
