// Matrices as Eigen sees them. Private.
#pragma once

#include <isthmus/core/matrix.h>

#include <Eigen/Core>

namespace isthmus::audit {

using Rows = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using Row = Eigen::Map<Eigen::RowVectorXf>;

inline Eigen::Map<const Rows> as_eigen(MatrixView<const float> m) {
  return {m.data(), static_cast<Eigen::Index>(m.rows()), static_cast<Eigen::Index>(m.cols())};
}

}  // namespace isthmus::audit
