// Conversions and dot products of bytes with AVX2 and F16C. Part of the variant, see lanes.h.
#pragma once

#include <immintrin.h>

#include "lanes.h"

namespace isthmus::kernels::ISTHMUS_ISA {
namespace {

inline int32_t sum_lanes(IntVector v) {
  const __m128i halves =
      _mm_add_epi32(_mm256_castsi256_si128((__m256i)v), _mm256_extracti128_si256((__m256i)v, 1));
  const __m128i quarters = _mm_add_epi32(halves, _mm_unpackhi_epi64(halves, halves));
  return _mm_cvtsi128_si32(_mm_add_epi32(quarters, _mm_shuffle_epi32(quarters, 1)));
}

inline int32_t largest_lane(IntVector v) {
  const __m128i halves =
      _mm_max_epi32(_mm256_castsi256_si128((__m256i)v), _mm256_extracti128_si256((__m256i)v, 1));
  const __m128i quarters = _mm_max_epi32(halves, _mm_unpackhi_epi64(halves, halves));
  return _mm_cvtsi128_si32(_mm_max_epi32(quarters, _mm_shuffle_epi32(quarters, 1)));
}

inline float largest_lane(Vector v) {
  const __m128 halves =
      _mm_max_ps(_mm256_castps256_ps128((__m256)v), _mm256_extractf128_ps((__m256)v, 1));
  const __m128 quarters = _mm_max_ps(halves, _mm_movehl_ps(halves, halves));
  return _mm_cvtss_f32(_mm_max_ss(quarters, _mm_movehdup_ps(quarters)));
}

inline Vector load_half(const uint16_t* from) {
  return (Vector)_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
}

inline Vector load_bytes(const int8_t* from) {
  const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(from));
  return (Vector)_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes));
}

inline void store_bytes(IntVector v, int8_t* to) {
  const __m128i low = _mm256_castsi256_si128((__m256i)v);
  const __m128i high = _mm256_extracti128_si256((__m256i)v, 1);
  const __m128i shorts = _mm_packs_epi32(low, high);
  _mm_storel_epi64(reinterpret_cast<__m128i*>(to), _mm_packs_epi16(shorts, shorts));
}

inline uint16_t half_bits(float value) {
  const __m128i halves = _mm_cvtps_ph(_mm_set_ss(value), _MM_FROUND_TO_NEAREST_INT);
  return static_cast<uint16_t>(_mm_cvtsi128_si32(halves));
}

inline Vector to_float(IntVector v) {
  return (Vector)_mm256_cvtepi32_ps((__m256i)v);
}

inline __m256i broadcast_four(const int8_t* from) {
  int32_t four;
  __builtin_memcpy(&four, from, sizeof four);
  return _mm256_set1_epi32(four);
}

/// Adds neighbours.
inline IntVector widen(__m256i sixteen_bits) {
  return (IntVector)_mm256_madd_epi16(sixteen_bits, _mm256_set1_epi16(1));
}

/// sums += codes of 32 inputs and 8 outputs . x, codes being nibbles as they are. Two products of
/// at most 15 * 127 make 3,810, and eight of those still fit 16 bits.
template <size_t Rows>
inline void dot_nibbles(const uint8_t* codes, const int8_t* x, size_t x_stride,
                        IntVector (&sums)[Rows]) {
  const __m256i mask = _mm256_set1_epi8(0x0F);
  __m256i short_sums[Rows];
  ISTHMUS_UNROLL
  for (size_t r = 0; r < Rows; ++r) short_sums[r] = _mm256_setzero_si256();
  ISTHMUS_UNROLL
  for (size_t q = 0; q < 4; ++q) {
    const __m256i both = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes + 64 * q));
    const __m256i low = _mm256_and_si256(both, mask);
    const __m256i high = _mm256_and_si256(_mm256_srli_epi16(both, 4), mask);
    ISTHMUS_UNROLL
    for (size_t r = 0; r < Rows; ++r) {
      const int8_t* row = x + r * x_stride + 4 * q;
      const __m256i pair = _mm256_add_epi16(_mm256_maddubs_epi16(low, broadcast_four(row)),
                                            _mm256_maddubs_epi16(high, broadcast_four(row + 16)));
      short_sums[r] = _mm256_add_epi16(short_sums[r], pair);
    }
  }
  ISTHMUS_UNROLL
  for (size_t r = 0; r < Rows; ++r) sums[r] += widen(short_sums[r]);
}

/// sums += codes of 16 inputs and 8 outputs . x. The instruction wants one side unsigned: the
/// codes give their signs to x. Two products of at most 128 * 127 fit 16 bits.
template <size_t Rows>
inline void dot_bytes(const uint8_t* codes, const int8_t* x, size_t x_stride,
                      const int32_t* /*x_sums*/, size_t /*sums_stride*/, IntVector (&sums)[Rows]) {
  ISTHMUS_UNROLL
  for (size_t q = 0; q < 4; ++q) {
    const __m256i weights = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes + 64 * q));
    const __m256i magnitudes = _mm256_abs_epi8(weights);
    ISTHMUS_UNROLL
    for (size_t r = 0; r < Rows; ++r) {
      const __m256i four = broadcast_four(x + r * x_stride + 4 * q);
      sums[r] += widen(_mm256_maddubs_epi16(magnitudes, _mm256_sign_epi8(four, weights)));
    }
  }
}

}  // namespace
}  // namespace isthmus::kernels::ISTHMUS_ISA
