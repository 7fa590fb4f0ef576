// Conversions and dot products of bytes in plain C++. Part of the variant, see lanes.h.
#pragma once

#include "lanes.h"

namespace isthmus::kernels::ISTHMUS_ISA {
namespace {

/// Finite numbers only: 2^112 moves the exponent, and makes subnormals right as well.
inline float half(uint16_t bits) {
  const uint32_t magnitude = (bits & 0x7FFFU) << 13U;
  const float value = __builtin_bit_cast(float, magnitude) * 0x1p112F;
  return (bits & 0x8000U) != 0 ? -value : value;
}

inline Vector load_half(const uint16_t* from) {
  Vector v;
  for (size_t i = 0; i < kVectorLanes; ++i) v[i] = half(from[i]);
  return v;
}

inline int32_t sum_lanes(IntVector v) {
  int32_t sum = 0;
  for (size_t i = 0; i < kVectorLanes; ++i) sum += v[i];
  return sum;
}

inline int32_t largest_lane(IntVector v) {
  int32_t largest = v[0];
  for (size_t i = 1; i < kVectorLanes; ++i) largest = v[i] > largest ? v[i] : largest;
  return largest;
}

inline float largest_lane(Vector v) {
  float largest = v[0];
  for (size_t i = 1; i < kVectorLanes; ++i) largest = v[i] > largest ? v[i] : largest;
  return largest;
}

inline Vector load_bytes(const int8_t* from) {
  Vector v;
  for (size_t i = 0; i < kVectorLanes; ++i) v[i] = from[i];
  return v;
}

inline void store_bytes(IntVector v, int8_t* to) {
  for (size_t i = 0; i < kVectorLanes; ++i) to[i] = static_cast<int8_t>(v[i]);
}

/// Finite numbers below 2^15 only, rounded to nearest, ties to even.
inline uint16_t half_bits(float value) {
  const uint32_t bits = __builtin_bit_cast(uint32_t, value);
  const uint32_t sign = bits >> 16U & 0x8000U;
  const uint32_t magnitude = bits & 0x7FFFFFFFU;
  uint32_t result = 0;
  if (magnitude >= 0x38800000U) {  // 2^-14 and up: normal numbers
    result = (magnitude + 0xFFFU + (magnitude >> 13U & 1U) - 0x38000000U) >> 13U;
  } else {  // one half has the unit in the last place of a subnormal, so that adding it rounds
    const float shifted = __builtin_bit_cast(float, magnitude) + 0.5F;
    result = __builtin_bit_cast(uint32_t, shifted) - __builtin_bit_cast(uint32_t, 0.5F);
  }
  return static_cast<uint16_t>(sign | result);
}

inline Vector to_float(IntVector v) {
  return __builtin_convertvector(v, Vector);
}

// One number per byte of a vector of codes: kVectorLanes outputs by four inputs.
constexpr size_t kBytes = 4 * kVectorLanes;
using Bytes = int8_t __attribute__((vector_size(kBytes)));
using Shorts = int16_t __attribute__((vector_size(2 * kBytes)));
using Words = int32_t __attribute__((vector_size(4 * kBytes)));

/// Four activations, once for every output.
inline Shorts repeat_four(const int8_t* four) {
  Shorts all;
  for (size_t i = 0; i < kBytes; ++i) all[i] = four[i % 4];
  return all;
}

/// Adds the four inputs of each output.
inline IntVector add_inputs(Words products) {
  int32_t all[kBytes];
  __builtin_memcpy(all, &products, sizeof products);
  IntVector sums;
  for (size_t n = 0; n < kVectorLanes; ++n) {
    sums[n] = (all[4 * n] + all[4 * n + 1]) + (all[4 * n + 2] + all[4 * n + 3]);
  }
  return sums;
}

/// sums += codes of 32 inputs and kVectorLanes outputs . x, codes being nibbles as they are. Eight
/// products of at most 15 * 127 fit 16 bits.
template <size_t Rows>
inline void dot_nibbles(const uint8_t* codes, const int8_t* x, size_t x_stride,
                        IntVector (&sums)[Rows]) {
  for (size_t r = 0; r < Rows; ++r) {
    Shorts products = {};
    for (size_t q = 0; q < 4; ++q) {
      Bytes both;
      __builtin_memcpy(&both, codes + 64 * q, sizeof both);
      const int8_t* four = x + r * x_stride + 4 * q;
      products += __builtin_convertvector(both & 0x0F, Shorts) * repeat_four(four);
      products += (__builtin_convertvector(both, Shorts) >> 4 & 0x0F) * repeat_four(four + 16);
    }
    sums[r] += add_inputs(__builtin_convertvector(products, Words));
  }
}

/// sums += codes of 16 inputs and kVectorLanes outputs . x.
template <size_t Rows>
inline void dot_bytes(const uint8_t* codes, const int8_t* x, size_t x_stride,
                      const int32_t* /*x_sums*/, size_t /*sums_stride*/, IntVector (&sums)[Rows]) {
  for (size_t r = 0; r < Rows; ++r) {
    Words products = {};
    for (size_t q = 0; q < 4; ++q) {
      Bytes weights;
      __builtin_memcpy(&weights, codes + 64 * q, sizeof weights);
      const Shorts one =
          __builtin_convertvector(weights, Shorts) * repeat_four(x + r * x_stride + 4 * q);
      products += __builtin_convertvector(one, Words);
    }
    sums[r] += add_inputs(products);
  }
}

}  // namespace
}  // namespace isthmus::kernels::ISTHMUS_ISA
