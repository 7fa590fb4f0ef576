#include <isthmus/codec/calibration.h>
#include <isthmus/codec/spec.h>
#include <isthmus/kernels/dtype.h>

#include <Eigen/Dense>
#include <algorithm>
#include <cmath>

#include "coded_row.h"
#include "outliers.h"

namespace isthmus::codec {
namespace {

constexpr size_t kWholeBlock = 1'024;
constexpr size_t kPreferredBlock = 512;
constexpr float kOutlierThreshold = 16;

/// [D, T]: a boundary row to a column.
using Columns = Eigen::Map<const Eigen::MatrixXf>;

size_t default_block(size_t width) {
  if (width <= kWholeBlock) return width;
  size_t block = kPreferredBlock;
  while (width % block != 0) --block;
  return block;
}

/// Rows of unit mean square, with outliers left out and put back.
struct ScaledRows {
  Matrix without_outliers;
  std::vector<double> channel_energy;  // of all rows, with outliers
};

Result<ScaledRows> scaled(MatrixView<const float> rows) {
  const OutlierSplitter splitter({.threshold = kOutlierThreshold}, rows.cols());
  ScaledRows result{Matrix(rows.rows(), rows.cols()), std::vector<double>(rows.cols())};
  for (size_t r = 0; r < rows.rows(); ++r) {
    const std::span<float> row = result.without_outliers.row(r);
    std::copy(rows.row(r).begin(), rows.row(r).end(), row.begin());
    if (!all_below(kTooLarge, row)) {
      return fail(ErrorCode::kNotFinite, "codec: calibration row " + std::to_string(r) +
                                             " holds a number that is not finite or is huge");
    }
    Outliers outliers;
    splitter.take(row, outliers);
    const double rms = std::sqrt(energy(row) / static_cast<double>(row.size()));
    if (rms == 0) continue;
    for (size_t i = 0; i < row.size(); ++i) {
      const double whole = rows.row(r)[i] / rms;
      result.channel_energy[i] += whole * whole;
      row[i] = static_cast<float>(row[i] / rms);
    }
  }
  return result;
}

}  // namespace

Result<Calibration> calibrate(MatrixView<const float> rows, size_t block) {
  const size_t width = rows.cols();
  if (width == 0 || width > kMaxWidth || rows.rows() < 2) {
    return fail(ErrorCode::kInvalidArgument,
                "codec: cannot calibrate with " + std::to_string(rows.rows()) + " rows of " +
                    std::to_string(width) + ", it takes 2 rows of 1 to " +
                    std::to_string(kMaxWidth));
  }
  if (block == 0) block = default_block(width);
  if (block > Calibration::kMaxBlock || width % block != 0) {
    return fail(ErrorCode::kInvalidArgument, "codec: a calibration's blocks of " +
                                                 std::to_string(block) + " do not divide rows of " +
                                                 std::to_string(width) + " or are above " +
                                                 std::to_string(Calibration::kMaxBlock));
  }
  ISTHMUS_ASSIGN(const ScaledRows all_rows, scaled(rows));
  const Matrix& kept = all_rows.without_outliers;
  const auto columns = static_cast<Eigen::Index>(kept.rows());
  const Columns all(kept.data(), static_cast<Eigen::Index>(width), columns);
  const double weight = 1 / static_cast<double>(kept.rows());

  Calibration result;
  result.block_ = block;
  result.variance_.resize(width);
  result.matrices_.resize(width * block);
  // A channel of nothing but rare outliers is large all the same, but a file has limits.
  for (const double energy : all_rows.channel_energy)
    result.channel_size_.push_back(
        static_cast<float>(std::min(std::sqrt(energy * weight), static_cast<double>(kMaxWidth))));
  const auto size = static_cast<Eigen::Index>(block);
  for (size_t first = 0; first < width; first += block) {
    const Eigen::MatrixXd part =
        all.middleRows(static_cast<Eigen::Index>(first), size).cast<double>();
    // Not centred: what all rows have in common becomes a component of its own.
    const Eigen::MatrixXd moments = part * part.transpose() * weight;
    const Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd> solver(moments);
    if (solver.info() != Eigen::Success) {
      return fail(ErrorCode::kInternal, "codec: no eigenvectors found for a calibration");
    }
    uint16_t* const matrix = result.matrices_.data() + first * block;
    for (size_t n = 0; n < block; ++n) {
      const auto falling = size - 1 - static_cast<Eigen::Index>(n);
      result.variance_[first + n] =
          static_cast<float>(std::max(solver.eigenvalues()[falling], 0.0));
      for (size_t i = 0; i < block; ++i) {
        const double entry = solver.eigenvectors()(static_cast<Eigen::Index>(i), falling);
        matrix[i * block + n] = kernels::bf16_from_float(static_cast<float>(entry));
      }
    }
  }
  // Through the reader, so that what is made is always what can be read.
  return Calibration::parse(result.serialize());
}

}  // namespace isthmus::codec
