// Storage types of weights, and their exact conversion to float.
//
// Block layouts are those of the GGUF format (ggml's quantisation blocks): a block of
// `block_elements` weights takes `block_bytes` bytes. Everything is little-endian, and no alignment
// is assumed.
#pragma once

#include <isthmus/core/error.h>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace isthmus {

/// A storage type. The values are GGUF's type numbers.
enum class DType : uint32_t {
  kF32 = 0,
  kF16 = 1,
  kQ4_0 = 2,
  kQ4_1 = 3,
  kQ5_0 = 6,
  kQ5_1 = 7,
  kQ8_0 = 8,
  kQ2_K = 10,
  kQ3_K = 11,
  kQ4_K = 12,
  kQ5_K = 13,
  kQ6_K = 14,
  kBf16 = 30,
};

/// Name and block size of a storage type.
struct DTypeInfo {
  std::string_view name;      ///< for example "Q4_1"
  size_t block_elements = 0;  ///< 1 for plain floats, 32 or 256 for quantised types
  size_t block_bytes = 0;
};

/// \returns nullptr for a number that is not a supported type.
[[nodiscard]] const DTypeInfo* dtype_info(DType type);

namespace kernels {

/// Converts whole blocks to float, exactly as the format defines them.
/// `values.size()` must be a multiple of the block's elements and `bytes` as long as that many
/// blocks. \returns kInvalidArgument when the sizes do not fit or the type is unknown.
[[nodiscard]] Status dequantize(DType type, std::span<const std::byte> bytes,
                                std::span<float> values);

/// IEEE binary16 and bfloat16 bit patterns to float (exact) and back (round to nearest, ties to
/// even).
[[nodiscard]] float float_from_f16(uint16_t bits);
[[nodiscard]] uint16_t f16_from_float(float value);
[[nodiscard]] float float_from_bf16(uint16_t bits);
[[nodiscard]] uint16_t bf16_from_float(float value);

}  // namespace kernels
}  // namespace isthmus
