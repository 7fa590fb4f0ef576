// Plain number formats: a row is D numbers, in f16 behind one float32 scale.
#pragma once

#include <isthmus/codec/spec.h>
#include <isthmus/core/error.h>
#include <isthmus/core/matrix.h>
#include <cstddef>
#include <span>
#include <string>
#include <vector>

namespace isthmus::codec {

[[nodiscard]] size_t plain_row_bytes(Format format, size_t width);

/// Appends the rows. \returns kNotFinite.
[[nodiscard]] Status plain_encode(Format format, MatrixView<const float> rows,
                                  std::vector<std::byte>& bytes);
/// \param bytes exactly the rows'. \returns kNotFinite, kCorrupt.
[[nodiscard]] Status plain_decode(Format format, std::span<const std::byte> bytes,
                                  MatrixView<float> rows);

}  // namespace isthmus::codec
