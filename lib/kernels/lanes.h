// Sixteen float lanes in registers of any width, and functions of them. Part of every variant: the
// including source defines ISTHMUS_ISA (its namespace) and ISTHMUS_VECTOR_BYTES (16, 32 or 64: the
// width of a register). It is built with flags that not every machine can run, so this header
// includes nothing that has inline functions of its own, and everything in it is private to its
// source.
#pragma once

#include <isthmus/kernels/kernel_table.h>

#include <stddef.h>
#include <stdint.h>

// Unrolls a loop over registers at once. Left to itself GCC 12 unrolls late, when the registers
// have already become an array in memory: a third of the speed.
#ifdef __clang__
#define ISTHMUS_UNROLL _Pragma("unroll")
#else
#define ISTHMUS_UNROLL _Pragma("GCC unroll 16")
#endif

namespace isthmus::kernels::ISTHMUS_ISA {
namespace {

constexpr size_t kLanes = 16;
constexpr size_t kVectorLanes = ISTHMUS_VECTOR_BYTES / sizeof(float);
constexpr size_t kParts = kLanes / kVectorLanes;

using Vector = float __attribute__((vector_size(ISTHMUS_VECTOR_BYTES)));
using IntVector = int32_t __attribute__((vector_size(ISTHMUS_VECTOR_BYTES)));
using Quad = float __attribute__((vector_size(16)));

/// How far ahead weights, keys and values are fetched. The hardware stops at the end of a page, and
/// a core waits for few lines at a time: with this, one core of an EPYC (Zen 5) reads 50 GB/s
/// instead of 38, and with AVX2 40 instead of 22. 8 KiB was 10 % slower, 32 KiB 15 %.
constexpr size_t kAhead = 16384;

/// The 16 lanes of one sum.
struct Lanes {
  Vector part[kParts];
};

/// Register by register: as one copy of 64 bytes it would pass through memory.
inline Lanes load(const float* from) {
  Lanes lanes;
  ISTHMUS_UNROLL
  for (size_t p = 0; p < kParts; ++p) {
    __builtin_memcpy(&lanes.part[p], from + p * kVectorLanes, sizeof(Vector));
  }
  return lanes;
}

/// The first `count` < 16 lanes; zeros behind them, which change no sum: a lane starts at +0, and
/// so never becomes -0.
inline Lanes load_first(const float* from, size_t count) {
  Lanes lanes = {};
  __builtin_memcpy(&lanes, from, count * sizeof(float));
  return lanes;
}

inline void store(const Lanes& lanes, float* to) {
  __builtin_memcpy(to, &lanes, sizeof lanes);
}

inline Lanes broadcast(float value) {
  Lanes lanes;
  for (Vector& part : lanes.part) part = value - Vector{};
  return lanes;
}

inline Lanes multiply(const Lanes& a, const Lanes& b) {
  Lanes product;
  ISTHMUS_UNROLL
  for (size_t p = 0; p < kParts; ++p) product.part[p] = a.part[p] * b.part[p];
  return product;
}

inline void add_product(Lanes& sum, const Lanes& a, const Lanes& b) {
  ISTHMUS_UNROLL
  for (size_t p = 0; p < kParts; ++p) sum.part[p] += a.part[p] * b.part[p];
}

/// Lane j takes lane j + 8, then j + 4; the first four lanes are left.
inline Quad fold(const Lanes& lanes) {
#if ISTHMUS_VECTOR_BYTES == 64
  const Vector v = lanes.part[0];
  const auto half = __builtin_shufflevector(v, v, 0, 1, 2, 3, 4, 5, 6, 7) +
                    __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15);
  return __builtin_shufflevector(half, half, 0, 1, 2, 3) +
         __builtin_shufflevector(half, half, 4, 5, 6, 7);
#elif ISTHMUS_VECTOR_BYTES == 32
  const Vector half = lanes.part[0] + lanes.part[1];
  return __builtin_shufflevector(half, half, 0, 1, 2, 3) +
         __builtin_shufflevector(half, half, 4, 5, 6, 7);
#else
  return (lanes.part[0] + lanes.part[2]) + (lanes.part[1] + lanes.part[3]);
#endif
}

inline float reduce(const Lanes& lanes) {
  const Quad quad = fold(lanes);
  return (quad[0] + quad[2]) + (quad[1] + quad[3]);
}

inline Vector larger(Vector a, Vector b) {
  return a > b ? a : b;
}

/// Largest magnitudes below this are taken for zero, so that no scale is subnormal.
constexpr float kSmallest = 0x1p-100F;

/// Adding it to a number of magnitude below 2^22 rounds that to an integer, ties to even, in the
/// low bits.
constexpr float kRound = 0x1.8p23F;

inline int8_t rounded_byte(float value) {
  return static_cast<int8_t>(__builtin_bit_cast(uint32_t, value + kRound));
}

/// e^x for x in [-87, 88], clamped to it, within 2 units in the last place.
inline float exp(float x) {
  x = x < -87.0F ? -87.0F : x;
  x = x > 88.0F ? 88.0F : x;
  const float shifted = x * 0x1.715476p+0F + kRound;
  const float n = shifted - kRound;
  // ln 2 in two parts; the first has 15 bits, so that its product with n is exact.
  const float r = (x - n * 0x1.62e4p-1F) - n * 0x1.7f7d1cp-20F;
  // Taylor series; on |r| <= ln(2) / 2 the next term is below 2^-27.
  float sum = 1.0F / 5040;
  sum = sum * r + 1.0F / 720;
  sum = sum * r + 1.0F / 120;
  sum = sum * r + 1.0F / 24;
  sum = sum * r + 1.0F / 6;
  sum = sum * r + 0.5F;
  sum = sum * r + 1.0F;
  sum = sum * r + 1.0F;
  const uint32_t exponent = __builtin_bit_cast(uint32_t, shifted) + 127;
  return sum * __builtin_bit_cast(float, exponent << 23);
}

inline float tanh(float x) {
  const float small = exp(-2 * (x < 0 ? -x : x));
  const float magnitude = (1 - small) / (1 + small);
  return x < 0 ? -magnitude : magnitude;
}

}  // namespace
}  // namespace isthmus::kernels::ISTHMUS_ISA
