// Weight blocks to float, one function per GGUF type.
//
// d is a block's scale and m its offset, both binary16. In the K types a super-block of 256 has
// sub-blocks of 16 or 32 weights whose small integer scales multiply d and m. Products and sums are
// rounded in the order of the format's reference (gguf-py), so results agree bit for bit.
#include <isthmus/kernels/dtype.h>

#include <array>
#include <bit>
#include <cstring>
#include <string>

#include "stored_blocks.h"

namespace isthmus {
namespace {

static_assert(std::endian::native == std::endian::little, "weights are read as they lie in files");

using kernels::float_from_bf16;
using kernels::load;
using kernels::load_f16;

// Both nibbles of byte i are elements i and i + 16.
template <typename Convert>
void each_nibble(const uint8_t* codes, float* out, Convert convert) {
  for (unsigned i = 0; i < 16; ++i) {
    out[i] = convert(codes[i] & 0x0FU, i);
    out[i + 16] = convert(codes[i] >> 4U, i + 16);
  }
}

void read_f32(const uint8_t* block, float* out) {
  *out = load<float>(block);
}
void read_f16(const uint8_t* block, float* out) {
  *out = load_f16(block);
}
void read_bf16(const uint8_t* block, float* out) {
  *out = float_from_bf16(load<uint16_t>(block));
}

// d, 16 bytes of nibbles.
void read_q4_0(const uint8_t* block, float* out) {
  const float d = load_f16(block);
  each_nibble(block + 2, out,
              [d](unsigned code, unsigned) { return d * static_cast<float>(int(code) - 8); });
}

// d, m, 16 bytes of nibbles.
void read_q4_1(const uint8_t* block, float* out) {
  const float d = load_f16(block);
  const float m = load_f16(block + 2);
  each_nibble(block + 4, out,
              [d, m](unsigned code, unsigned) { return d * static_cast<float>(code) + m; });
}

// d, 32 fifth bits, 16 bytes of nibbles.
void read_q5_0(const uint8_t* block, float* out) {
  const float d = load_f16(block);
  const auto high = load<uint32_t>(block + 2);
  each_nibble(block + 6, out, [d, high](unsigned code, unsigned i) {
    const unsigned full = code | ((high >> i & 1U) << 4U);
    return d * static_cast<float>(int(full) - 16);
  });
}

// d, m, 32 fifth bits, 16 bytes of nibbles.
void read_q5_1(const uint8_t* block, float* out) {
  const float d = load_f16(block);
  const float m = load_f16(block + 2);
  const auto high = load<uint32_t>(block + 4);
  each_nibble(block + 8, out, [d, m, high](unsigned code, unsigned i) {
    return d * static_cast<float>(code | ((high >> i & 1U) << 4U)) + m;
  });
}

// d, 32 signed bytes.
void read_q8_0(const uint8_t* block, float* out) {
  const float d = load_f16(block);
  for (unsigned i = 0; i < 32; ++i) out[i] = d * static_cast<float>(load<int8_t>(block + 2 + i));
}

// 16 bytes of (scale, offset) nibbles, 64 bytes of 2-bit codes, d, m. Each half of 128 weights has
// 32 bytes of codes: bits 2s and 2s + 1 of byte i are element 32 s + i.
void read_q2_k(const uint8_t* block, float* out) {
  const uint8_t* scales = block;
  const uint8_t* codes = block + 16;
  const float d = load_f16(block + 80);
  const float m = load_f16(block + 82);
  for (unsigned i = 0; i < 256; ++i) {
    const uint8_t scale = scales[i / 16];
    const float step = d * static_cast<float>(scale & 0x0FU);
    const float offset = m * static_cast<float>(scale >> 4U);
    const unsigned code = codes[i / 128 * 32 + i % 32] >> (i / 32 % 4 * 2) & 3U;
    out[i] = step * static_cast<float>(code) - offset;
  }
}

// 32 bytes of third bits, 64 bytes of 2-bit codes (as Q2_K), 12 bytes of 6-bit scales, d. Bit s of
// mask byte i belongs to element 32 s + i; a clear one means 4 less.
void read_q3_k(const uint8_t* block, float* out) {
  const uint8_t* mask = block;
  const uint8_t* codes = block + 32;
  const uint8_t* scales = block + 96;
  const float d = load_f16(block + 108);
  for (unsigned i = 0; i < 256; ++i) {
    const float step = d * static_cast<float>(kernels::read_q3_k_scale(scales, i / 16));
    const unsigned code = codes[i / 128 * 32 + i % 32] >> (i / 32 % 4 * 2) & 3U;
    const int borrow = (mask[i % 32] >> (i / 32) & 1U) != 0 ? 0 : 4;
    out[i] = step * static_cast<float>(int(code) - borrow);
  }
}

// d, m, 12 bytes of scales, 128 bytes of nibbles: each run of 32 bytes holds 64 weights, first all
// low nibbles, then all high ones.
void read_q4_k(const uint8_t* block, float* out) {
  const float d = load_f16(block);
  const float m = load_f16(block + 2);
  const uint8_t* codes = block + 16;
  for (unsigned j = 0; j < 8; ++j) {
    const auto [scale, offset_scale] = kernels::read_k_scale(block + 4, j);
    const float step = d * static_cast<float>(scale);
    const float offset = m * static_cast<float>(offset_scale);
    for (unsigned i = 0; i < 32; ++i) {
      const unsigned code = codes[j / 2 * 32 + i] >> (j % 2 * 4) & 0x0FU;
      out[j * 32 + i] = step * static_cast<float>(code) - offset;
    }
  }
}

// As Q4_K, with 32 bytes of fifth bits before the nibbles: bit j of byte i belongs to element
// 32 j + i.
void read_q5_k(const uint8_t* block, float* out) {
  const float d = load_f16(block);
  const float m = load_f16(block + 2);
  const uint8_t* high = block + 16;
  const uint8_t* codes = block + 48;
  for (unsigned j = 0; j < 8; ++j) {
    const auto [scale, offset_scale] = kernels::read_k_scale(block + 4, j);
    const float step = d * static_cast<float>(scale);
    const float offset = m * static_cast<float>(offset_scale);
    for (unsigned i = 0; i < 32; ++i) {
      const unsigned low = codes[j / 2 * 32 + i] >> (j % 2 * 4) & 0x0FU;
      const unsigned code = low | (high[i] >> j & 1U) << 4U;
      out[j * 32 + i] = step * static_cast<float>(code) - offset;
    }
  }
}

// 128 bytes of low nibbles, 64 bytes of upper two bits, 16 signed scales, d. Each half of 128
// weights has 64 bytes of nibbles (weights 0..63 low, 64..127 high) and 32 bytes of upper bits
// (bits 2s and 2s + 1 of byte i belong to element 32 s + i).
void read_q6_k(const uint8_t* block, float* out) {
  const uint8_t* lows = block;
  const uint8_t* highs = block + 128;
  const uint8_t* scales = block + 192;
  const float d = load_f16(block + 208);
  for (unsigned i = 0; i < 256; ++i) {
    const unsigned half = i / 128;
    const unsigned low = lows[half * 64 + i % 64] >> (i / 64 % 2 * 4) & 0x0FU;
    const unsigned high = highs[half * 32 + i % 32] >> (i / 32 % 4 * 2) & 3U;
    const float step = d * static_cast<float>(load<int8_t>(scales + i / 16));
    out[i] = step * static_cast<float>(int(low | high << 4U) - 32);
  }
}

struct Format {
  DType type;
  DTypeInfo info;
  void (*read_block)(const uint8_t* block, float* out);
};

constexpr std::array kFormats = {
    Format{DType::kF32, {"F32", 1, 4}, read_f32},
    Format{DType::kF16, {"F16", 1, 2}, read_f16},
    Format{DType::kQ4_0, {"Q4_0", 32, 18}, read_q4_0},
    Format{DType::kQ4_1, {"Q4_1", 32, 20}, read_q4_1},
    Format{DType::kQ5_0, {"Q5_0", 32, 22}, read_q5_0},
    Format{DType::kQ5_1, {"Q5_1", 32, 24}, read_q5_1},
    Format{DType::kQ8_0, {"Q8_0", 32, 34}, read_q8_0},
    Format{DType::kQ2_K, {"Q2_K", 256, 84}, read_q2_k},
    Format{DType::kQ3_K, {"Q3_K", 256, 110}, read_q3_k},
    Format{DType::kQ4_K, {"Q4_K", 256, 144}, read_q4_k},
    Format{DType::kQ5_K, {"Q5_K", 256, 176}, read_q5_k},
    Format{DType::kQ6_K, {"Q6_K", 256, 210}, read_q6_k},
    Format{DType::kBf16, {"BF16", 1, 2}, read_bf16},
};

const Format* find_format(DType type) {
  for (const Format& format : kFormats) {
    if (format.type == type) return &format;
  }
  return nullptr;
}

}  // namespace

const DTypeInfo* dtype_info(DType type) {
  const Format* format = find_format(type);
  return format == nullptr ? nullptr : &format->info;
}

namespace kernels {

Status dequantize(DType type, std::span<const std::byte> bytes, std::span<float> values) {
  const Format* format = find_format(type);
  if (format == nullptr) {
    return fail(ErrorCode::kInvalidArgument,
                "kernels: " + std::to_string(static_cast<uint32_t>(type)) + " is no storage type");
  }
  const DTypeInfo& info = format->info;
  const size_t blocks = values.size() / info.block_elements;
  if (values.size() % info.block_elements != 0 || bytes.size() % info.block_bytes != 0 ||
      bytes.size() / info.block_bytes != blocks) {
    return fail(ErrorCode::kInvalidArgument,
                "kernels: " + std::to_string(bytes.size()) + " bytes do not hold " +
                    std::to_string(values.size()) + " values of " + std::string(info.name));
  }
  const auto* block = reinterpret_cast<const uint8_t*>(bytes.data());
  float* out = values.data();
  for (size_t i = 0; i < blocks; ++i) {
    format->read_block(block, out);
    block += info.block_bytes;
    out += info.block_elements;
  }
  return {};
}

float float_from_f16(uint16_t bits) {
  const uint32_t sign = (bits & 0x8000U) << 16U;
  const uint32_t exponent = bits >> 10U & 0x1FU;
  const uint32_t mantissa = bits & 0x3FFU;
  if (exponent == 0) {  // zero or subnormal: a multiple of 2^-24
    const float magnitude = static_cast<float>(mantissa) * 0x1p-24F;
    return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(magnitude));
  }
  const uint32_t wide = exponent == 0x1FU ? 0xFFU : exponent + (127 - 15);
  return std::bit_cast<float>(sign | wide << 23U | mantissa << 13U);
}

uint16_t f16_from_float(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  const auto sign = static_cast<uint16_t>(bits >> 16U & 0x8000U);
  const uint32_t magnitude = bits & 0x7FFFFFFFU;
  uint32_t half = 0;
  if (magnitude > 0x7F800000U) {
    half = 0x7E00U | (magnitude >> 13U & 0x3FFU);  // NaN stays NaN, and quiet
  } else if (magnitude >= 0x477FF000U) {           // 65520 and up round to infinity
    half = 0x7C00U;
  } else if (magnitude >= 0x38800000U) {  // 2^-14 and up: normal numbers
    const uint32_t tie_to_even = 0xFFFU + (magnitude >> 13U & 1U);
    half = (magnitude + tie_to_even - 0x38000000U) >> 13U;
  } else {
    // One half has the unit in the last place of a binary16 subnormal, so that adding it rounds.
    const float shifted = std::bit_cast<float>(magnitude) + 0.5F;
    half = std::bit_cast<uint32_t>(shifted) - std::bit_cast<uint32_t>(0.5F);
  }
  return static_cast<uint16_t>(sign | half);
}

float float_from_bf16(uint16_t bits) {
  return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16U);
}

uint16_t bf16_from_float(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7FFFFFFFU) > 0x7F800000U) {
    return static_cast<uint16_t>(bits >> 16U | 0x40U);  // NaN stays NaN, and quiet
  }
  return static_cast<uint16_t>((bits + 0x7FFFU + (bits >> 16U & 1U)) >> 16U);
}

}  // namespace kernels
}  // namespace isthmus
