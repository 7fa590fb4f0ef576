#include <isthmus/audit/inverter.h>

#include <Eigen/Cholesky>
#include <limits>
#include <string>
#include <utility>

#include "eigen_views.h"

namespace isthmus::audit {
namespace {

/// Least squares with a penalty, over standardised inputs and a constant.
struct Fit {
  Eigen::MatrixXf gram;     // [D, D]
  Eigen::MatrixXf product;  // [D, D of the embeddings]

  Fit(const Rows& inputs, const Rows& targets)
      : gram(inputs.transpose() * inputs), product(inputs.transpose() * targets) {}

  // The penalty is relative to the mean of the Gram matrix's diagonal.
  Eigen::MatrixXf weights(float penalty) const {
    Eigen::MatrixXf ridge = gram;
    ridge.diagonal().array() += penalty * gram.diagonal().mean() + 1e-6F;
    return ridge.ldlt().solve(product);
  }
};

}  // namespace

struct RidgeInverter::Impl {
  Eigen::RowVectorXf mean;     // of the inputs
  Eigen::RowVectorXf scale;    // one over their standard deviation
  Eigen::RowVectorXf average;  // of the targets
  Eigen::MatrixXf weights;

  Rows standardized(MatrixView<const float> rows) const {
    return ((as_eigen(rows).rowwise() - mean).array().rowwise() * scale.array()).matrix();
  }
};

RidgeInverter::RidgeInverter(std::shared_ptr<const Impl> impl) : impl_(std::move(impl)) {}

Result<RidgeInverter> RidgeInverter::fit(const Release& train, MatrixView<const float> embeddings) {
  const auto count = static_cast<Eigen::Index>(train.tokens.size());
  if (count < 10 || train.rows.rows() != train.tokens.size()) {
    return fail(ErrorCode::kInvalidArgument,
                "audit: an inverter is fitted to " + std::to_string(train.rows.rows()) +
                    " rows of " + std::to_string(count) + " tokens, it needs 10 of each");
  }
  Rows targets(count, static_cast<Eigen::Index>(embeddings.cols()));
  for (Eigen::Index r = 0; r < count; ++r) {
    const int32_t token = train.tokens[static_cast<size_t>(r)];
    if (token < 0 || static_cast<size_t>(token) >= embeddings.rows()) {
      return fail(ErrorCode::kInvalidArgument, "audit: token " + std::to_string(token) +
                                                   " is in no table of " +
                                                   std::to_string(embeddings.rows()));
    }
    targets.row(r) = as_eigen(embeddings).row(token);
  }
  auto impl = std::make_shared<Impl>();
  const auto rows = as_eigen(train.rows.view());
  impl->mean = rows.colwise().mean();
  const Rows centered = rows.rowwise() - impl->mean;
  impl->scale = (centered.colwise().squaredNorm() / static_cast<float>(count))
                    .cwiseSqrt()
                    .cwiseMax(std::numeric_limits<float>::min())
                    .cwiseInverse();
  impl->average = targets.colwise().mean();
  targets.rowwise() -= impl->average;
  const Rows inputs = impl->standardized(train.rows.view());

  const Eigen::Index fitted = count - count / 5;
  const Fit part(inputs.topRows(fitted), targets.topRows(fitted));
  float chosen = 0;
  float least = std::numeric_limits<float>::infinity();
  for (const float penalty : {1e-4F, 1e-3F, 1e-2F, 1e-1F, 1.0F, 10.0F}) {
    const float error = (inputs.bottomRows(count - fitted) * part.weights(penalty) -
                         targets.bottomRows(count - fitted))
                            .squaredNorm();
    if (!(error < least)) continue;
    least = error;
    chosen = penalty;
  }
  impl->weights = Fit(inputs, targets).weights(chosen);
  return RidgeInverter(std::move(impl));
}

Matrix RidgeInverter::invert(MatrixView<const float> rows) const {
  Matrix result(rows.rows(), static_cast<size_t>(impl_->weights.cols()));
  Eigen::Map<Rows>(result.data(), static_cast<Eigen::Index>(result.rows()),
                   static_cast<Eigen::Index>(result.cols())) =
      (impl_->standardized(rows) * impl_->weights).rowwise() + impl_->average;
  return result;
}

}  // namespace isthmus::audit
