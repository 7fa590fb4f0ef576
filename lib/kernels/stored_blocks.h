// Numbers out of GGUF's blocks of weights, read alike by dequantize.cpp and pack.cpp:
// little-endian, at any address; and the 6-bit scales of the K types.
#pragma once

#include <isthmus/kernels/dtype.h>

#include <cstdint>
#include <cstring>

namespace isthmus::kernels {

template <typename T>
T load(const uint8_t* bytes) {
  T value;
  std::memcpy(&value, bytes, sizeof value);
  return value;
}

inline float load_f16(const uint8_t* bytes) {
  return float_from_f16(load<uint16_t>(bytes));
}

struct KScale {
  unsigned scale = 0;   ///< of d
  unsigned offset = 0;  ///< of m
};

/// Sub-block j (0..7) of the 12 bytes that Q4_K and Q5_K pack sixteen 6-bit numbers into: the first
/// four pairs lie in the low 6 bits of bytes j and j + 4; the others have their low nibbles in
/// bytes 8..11 and their upper two bits above the first four pairs.
inline KScale read_k_scale(const uint8_t* packed, unsigned j) {
  if (j < 4) return {packed[j] & 63U, packed[j + 4] & 63U};
  const unsigned high = packed[j - 4] >> 6U;
  const unsigned offset_high = packed[j] >> 6U;
  return {(packed[j + 4] & 0x0FU) | high << 4U, (packed[j + 4] >> 4U) | offset_high << 4U};
}

/// Scale j (0..15) of the 12 bytes of Q3_K, in [-32, 31]: it has its low nibble in byte j % 8 (high
/// half for j >= 8) and its upper two bits in byte 8 + j % 4.
inline int read_q3_k_scale(const uint8_t* packed, unsigned j) {
  const unsigned low = packed[j % 8] >> (j / 8 * 4) & 0x0FU;
  const unsigned high = packed[8 + j % 4] >> (j / 4 * 2) & 3U;
  return static_cast<int>(low | high << 4U) - 32;
}

}  // namespace isthmus::kernels
