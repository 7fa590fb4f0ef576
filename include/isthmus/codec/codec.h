// Boundary activations to bytes and back. This first set has only plain number formats; none of
// them hides anything: a boundary without noise is as good as the text itself.
//
// Layout of an encoded [T, D] matrix: T rows one after the other; a row is its scale (fp16 format
// only: one float32, a power of two that the numbers are to be multiplied by) and then D numbers,
// all little-endian.
#pragma once

#include <isthmus/core/error.h>
#include <isthmus/core/matrix.h>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace isthmus::codec {

enum class Format : uint8_t {
  kF32,   ///< bit-exact
  kBf16,  ///< rounded to nearest: off by at most 2^-8 of the number, unless that is subnormal
  kF16,   ///< rounded to nearest relative to the row's largest magnitude m: off by at most 2^-11 of
          ///< the number or 2^-38 m, whichever is more
};

/// How a boundary is encoded; agreed on when a session opens. Its text form is "f32", "bf16" or
/// "f16".
struct CodecSpec {
  Format format = Format::kF16;

  /// \returns kUnsupported for any other name.
  [[nodiscard]] static Result<CodecSpec> parse(std::string_view text);
  [[nodiscard]] std::string to_string() const;
  friend bool operator==(const CodecSpec&, const CodecSpec&) = default;
};

/// Bytes that [rows, cols] take. \returns kTooLarge when the number does not fit.
[[nodiscard]] Result<size_t> encoded_bytes(const CodecSpec& spec, size_t rows, size_t cols);

/// \returns kNotFinite naming the row when `rows` holds NaN or infinity, or a number that would be
/// rounded to infinity (within 2^-8 of float's largest in bf16, 2^-11 in f16).
[[nodiscard]] Result<std::vector<std::byte>> encode(const CodecSpec& spec,
                                                    MatrixView<const float> rows);

/// Decodes bytes that may come from anyone into `rows`, whose shape says what is expected.
/// \returns kCorrupt when the length does not fit the shape or a scale is not positive, kNotFinite
/// when a number is not finite; `rows` may have been written to then.
[[nodiscard]] Status decode_into(const CodecSpec& spec, std::span<const std::byte> bytes,
                                 MatrixView<float> rows);

}  // namespace isthmus::codec
