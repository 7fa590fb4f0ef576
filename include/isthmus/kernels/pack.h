// Weights from their storage types into the packed formats of the products.
#pragma once

#include <isthmus/core/error.h>
#include <isthmus/core/matrix.h>
#include <isthmus/kernels/dtype.h>
#include <isthmus/kernels/packed_format.h>
#include <cstddef>
#include <optional>
#include <span>

namespace isthmus::kernels {

/// The format that holds every weight of a storage type exactly; nothing for Q2_K and for plain
/// floats.
[[nodiscard]] std::optional<PackedFormat> lossless_format(DType type);

/// The format of weights rounded to 4 or 8 bits: binary16 scales and offsets per 32 weights.
/// \throws std::invalid_argument for other bits
[[nodiscard]] PackedFormat rounded_format(int32_t bits);

/// Groups of 32 that `inputs` inputs fall into, the last one maybe not full.
[[nodiscard]] size_t group_count(size_t inputs);

/// Bytes of one block of 16 outputs with `inputs` inputs each.
[[nodiscard]] size_t block_bytes(const PackedFormat& format, size_t inputs);

/// Packs 1 to 16 rows of `inputs` weights, stored one behind the other, into `lossless_format`.
/// `block` is overwritten. \returns kInvalidArgument when sizes do not fit or the type has no
/// lossless format; kNotFinite when a scale is not finite.
[[nodiscard]] Status pack_block(DType type, std::span<const std::byte> rows, size_t inputs,
                                std::span<std::byte> block);

/// Rounds 1 to 16 rows of weights into `rounded_format(bits)`. Each group's scale and offset are
/// those of the least squared error among a dozen clipped ranges, each refined once by linear
/// regression of the weights on their codes. \returns kInvalidArgument when sizes do not fit;
/// kNotFinite when a weight is not finite in binary16.
[[nodiscard]] Status round_block(MatrixView<const float> rows, int32_t bits,
                                 std::span<std::byte> block);

/// The weights of a block as float, exactly as a product uses them: [rows, inputs], rows <= 16.
/// \returns kInvalidArgument when sizes do not fit.
[[nodiscard]] Status unpack_block(const PackedFormat& format, std::span<const std::byte> block,
                                  MatrixView<float> rows);

}  // namespace isthmus::kernels
