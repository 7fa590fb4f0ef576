#include "plain_format.h"

#include <isthmus/kernels/dtype.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "coded_row.h"

namespace isthmus::codec {
namespace {

static_assert(std::endian::native == std::endian::little,
              "payloads are written as memory holds it");

struct FormatInfo {
  Format format;
  std::string_view name;
  size_t scale_bytes;  // before each row
  size_t value_bytes;
  float overflow;  // magnitudes from here on round to infinity
};
constexpr std::array kFormats = {
    FormatInfo{Format::kF32, "f32", 0, sizeof(float), std::numeric_limits<float>::infinity()},
    FormatInfo{Format::kBf16, "bf16", 0, sizeof(uint16_t), 0x1.ffp127F},
    FormatInfo{Format::kF16, "f16", sizeof(float), sizeof(uint16_t), 0x1.ffep127F}};

const FormatInfo& info(Format format) {
  return *std::find_if(kFormats.begin(), kFormats.end(),
                       [format](const FormatInfo& entry) { return entry.format == format; });
}

template <typename T>
std::byte* put(std::byte* to, T value) {
  std::memcpy(to, &value, sizeof value);
  return to + sizeof value;
}

template <typename T>
const std::byte* get(const std::byte* from, T& value) {
  std::memcpy(&value, from, sizeof value);
  return from + sizeof value;
}

void encode_row(Format format, std::span<const float> row, std::byte* to) {
  switch (format) {
    case Format::kF32:
      for (const float value : row) to = put(to, value);
      return;
    case Format::kBf16:
      for (const float value : row) to = put(to, kernels::bf16_from_float(value));
      return;
    case Format::kF16:
      const float scale = std::ldexp(1.0F, half_exponent(largest_of(row)));
      to = put(to, scale);
      for (const float value : row) to = put(to, kernels::f16_from_float(value / scale));
      return;
  }
}

/// False when the row's scale is not positive.
bool decode_row(Format format, const std::byte* from, std::span<float> row) {
  uint16_t bits = 0;
  switch (format) {
    case Format::kF32:
      for (float& value : row) from = get(from, value);
      return true;
    case Format::kBf16:
      for (float& value : row) {
        from = get(from, bits);
        value = kernels::float_from_bf16(bits);
      }
      return true;
    case Format::kF16:
      float scale = 0;
      from = get(from, scale);
      for (float& value : row) {
        from = get(from, bits);
        value = kernels::float_from_f16(bits) * scale;
      }
      return scale > 0;
  }
  return false;
}

}  // namespace

size_t plain_row_bytes(Format format, size_t width) {
  return info(format).scale_bytes + width * info(format).value_bytes;
}

Status plain_encode(Format format, MatrixView<const float> rows, std::vector<std::byte>& bytes) {
  const size_t row_bytes = plain_row_bytes(format, rows.cols());
  const size_t start = bytes.size();
  bytes.resize(start + rows.rows() * row_bytes);
  for (size_t r = 0; r < rows.rows(); ++r) {
    if (!all_below(info(format).overflow, rows.row(r))) {
      return fail(ErrorCode::kNotFinite, "codec: row " + std::to_string(r) +
                                             " holds a number that is not finite in " +
                                             std::string(info(format).name));
    }
    encode_row(format, rows.row(r), bytes.data() + start + r * row_bytes);
  }
  return {};
}

Status plain_decode(Format format, std::span<const std::byte> bytes, MatrixView<float> rows) {
  const size_t row_bytes = plain_row_bytes(format, rows.cols());
  for (size_t r = 0; r < rows.rows(); ++r) {
    const bool scaled = decode_row(format, bytes.data() + r * row_bytes, rows.row(r));
    if (!all_below(std::numeric_limits<float>::infinity(), rows.row(r))) {
      return fail(ErrorCode::kNotFinite,
                  "codec: payload row " + std::to_string(r) + " holds a number that is not finite");
    }
    if (!scaled) {
      return fail(ErrorCode::kCorrupt,
                  "codec: payload row " + std::to_string(r) + " has a scale that is not positive");
    }
  }
  return {};
}

}  // namespace isthmus::codec
