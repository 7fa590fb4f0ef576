// Conversions and dot products of bytes with AVX-512 and VNNI. Part of the variant, see lanes.h.
#pragma once

#include <immintrin.h>

#include "lanes.h"

namespace isthmus::kernels::ISTHMUS_ISA {
namespace {

inline Vector to_float(IntVector v) {
  return __builtin_convertvector(v, Vector);
}

inline int32_t sum_lanes(IntVector v) {
  return _mm512_reduce_add_epi32((__m512i)v);
}

inline int32_t largest_lane(IntVector v) {
  return _mm512_reduce_max_epi32((__m512i)v);
}

inline float largest_lane(Vector v) {
  return _mm512_reduce_max_ps((__m512)v);
}

inline Vector load_half(const uint16_t* from) {
  return (Vector)_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
}

inline Vector load_bytes(const int8_t* from) {
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
  return to_float((IntVector)_mm512_cvtepi8_epi32(bytes));
}

inline void store_bytes(IntVector v, int8_t* to) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm512_cvtepi32_epi8((__m512i)v));
}

inline uint16_t half_bits(float value) {
  const __m128i halves = _mm_cvtps_ph(_mm_set_ss(value), _MM_FROUND_TO_NEAREST_INT);
  return static_cast<uint16_t>(_mm_cvtsi128_si32(halves));
}

inline __m512i broadcast_four(const int8_t* from) {
  int32_t four;
  __builtin_memcpy(&four, from, sizeof four);
  return _mm512_set1_epi32(four);
}

/// sums += codes of 32 inputs and 16 outputs . x, codes being nibbles as they are.
template <size_t Rows>
inline void dot_nibbles(const uint8_t* codes, const int8_t* x, size_t x_stride,
                        IntVector (&sums)[Rows]) {
  const __m512i mask = _mm512_set1_epi8(0x0F);
  __m512i high_sums[Rows];
  ISTHMUS_UNROLL
  for (size_t r = 0; r < Rows; ++r) high_sums[r] = _mm512_setzero_si512();
  ISTHMUS_UNROLL
  for (size_t q = 0; q < 4; ++q) {
    const __m512i both = _mm512_loadu_si512(codes + 64 * q);
    const __m512i low = _mm512_and_si512(both, mask);
    const __m512i high = _mm512_and_si512(_mm512_srli_epi16(both, 4), mask);
    ISTHMUS_UNROLL
    for (size_t r = 0; r < Rows; ++r) {
      const int8_t* row = x + r * x_stride + 4 * q;
      sums[r] = (IntVector)_mm512_dpbusd_epi32((__m512i)sums[r], low, broadcast_four(row));
      high_sums[r] = _mm512_dpbusd_epi32(high_sums[r], high, broadcast_four(row + 16));
    }
  }
  ISTHMUS_UNROLL
  for (size_t r = 0; r < Rows; ++r) sums[r] += (IntVector)high_sums[r];
}

/// sums += codes of 16 inputs and 16 outputs . x. The instruction wants one side unsigned: 128 is
/// added to every code, and 128 times the sum of x taken away.
template <size_t Rows>
inline void dot_bytes(const uint8_t* codes, const int8_t* x, size_t x_stride, const int32_t* x_sums,
                      size_t sums_stride, IntVector (&sums)[Rows]) {
  const __m512i flip = _mm512_set1_epi8(static_cast<char>(0x80));
  ISTHMUS_UNROLL
  for (size_t r = 0; r < Rows; ++r) sums[r] -= 128 * x_sums[r * sums_stride];
  ISTHMUS_UNROLL
  for (size_t q = 0; q < 4; ++q) {
    const __m512i weights = _mm512_xor_si512(_mm512_loadu_si512(codes + 64 * q), flip);
    ISTHMUS_UNROLL
    for (size_t r = 0; r < Rows; ++r) {
      const __m512i four = broadcast_four(x + r * x_stride + 4 * q);
      sums[r] = (IntVector)_mm512_dpbusd_epi32((__m512i)sums[r], weights, four);
    }
  }
}

}  // namespace
}  // namespace isthmus::kernels::ISTHMUS_ISA
