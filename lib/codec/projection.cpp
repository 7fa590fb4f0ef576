#include <isthmus/codec/projection.h>
#include <isthmus/codec/spec.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <string_view>

namespace isthmus::codec {
namespace {

std::string shape_of(const Matrix& matrix) {
  return std::to_string(matrix.rows()) + " x " + std::to_string(matrix.cols());
}

Status check_entries(std::string_view name, const Matrix& matrix) {
  const auto values = matrix.view().values();
  const bool valid = std::all_of(values.begin(), values.end(),
                                 [](float v) { return std::abs(v) <= Projection::kMaxEntry; });
  if (valid) return {};
  return fail(ErrorCode::kNotFinite,
              "codec: the projection's " + std::string(name) + " holds a number above 2^20");
}

Matrix transposed(const Matrix& matrix) {
  Matrix result(matrix.cols(), matrix.rows());
  for (size_t r = 0; r < matrix.rows(); ++r)
    for (size_t c = 0; c < matrix.cols(); ++c) result.row(c)[r] = matrix.row(r)[c];
  return result;
}

/// rows times matrix, row after row of the matrix, so that sums have one order whatever the
/// compiler makes of the inner loop.
void multiply(MatrixView<const float> rows, const Matrix& matrix, MatrixView<float> out) {
  for (size_t r = 0; r < rows.rows(); ++r) {
    const std::span<float> sums = out.row(r);
    std::fill(sums.begin(), sums.end(), 0.0F);
    for (size_t i = 0; i < matrix.rows(); ++i) {
      const float factor = rows.row(r)[i];
      const std::span<const float> addends = matrix.row(i);
      for (size_t j = 0; j < sums.size(); ++j) sums[j] += factor * addends[j];
    }
  }
}

}  // namespace

Result<Projection> Projection::make(uint64_t id, const Matrix& encoder, const Matrix& decoder) {
  Projection result;
  result.id_ = id;
  result.width_ = encoder.empty() ? decoder.rows() : encoder.cols();
  result.dims_ = encoder.empty() ? decoder.cols() : encoder.rows();
  const bool decoder_fits =
      decoder.empty() || (decoder.rows() == result.width_ && decoder.cols() == result.dims_);
  if (result.dims_ == 0 || result.dims_ > result.width_ || result.width_ > kMaxWidth ||
      !decoder_fits) {
    return fail(ErrorCode::kInvalidArgument,
                "codec: a projection's encoder is " + shape_of(encoder) + " and its decoder " +
                    shape_of(decoder) + ", they must be d x D and D x d with d <= D <= 65536");
  }
  ISTHMUS_TRY(check_entries("encoder", encoder));
  ISTHMUS_TRY(check_entries("decoder", decoder));
  if (!encoder.empty()) result.transposed_encoder_ = transposed(encoder);
  if (!decoder.empty()) result.transposed_decoder_ = transposed(decoder);
  return result;
}

Status Projection::encode(MatrixView<const float> rows, MatrixView<float> latents) const {
  if (!has_encoder()) {
    return fail(ErrorCode::kNotFound,
                "codec: the projection's encoder, the device's part, is not "
                "here");
  }
  multiply(rows, transposed_encoder_, latents);
  return {};
}

Status Projection::decode(MatrixView<const float> latents, MatrixView<float> rows) const {
  if (!has_decoder()) {
    return fail(ErrorCode::kNotFound,
                "codec: the projection's decoder, the server's part, is not "
                "here");
  }
  multiply(latents, transposed_decoder_, rows);
  return {};
}

}  // namespace isthmus::codec
