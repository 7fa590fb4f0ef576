#include <isthmus/audit/attack.h>

#include <Eigen/Cholesky>
#include <Eigen/Core>
#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <map>
#include <numeric>
#include <stdexcept>
#include <string>
#include <utility>

namespace isthmus::audit {
namespace {

using Rows = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using RowsMap = Eigen::Map<const Rows>;

RowsMap as_eigen(MatrixView<const float> m) {
  return {m.data(), static_cast<Eigen::Index>(m.rows()), static_cast<Eigen::Index>(m.cols())};
}

Guesses best_of(std::span<const float> scores) {
  std::array<float, std::tuple_size_v<Guesses>> best;
  best.fill(-std::numeric_limits<float>::infinity());
  Guesses ids{};
  for (size_t id = 0; id < scores.size(); ++id) {
    if (!(scores[id] > best.back())) continue;
    size_t place = best.size() - 1;
    for (; place > 0 && scores[id] > best[place - 1]; --place) {
      best[place] = best[place - 1];
      ids[place] = ids[place - 1];
    }
    best[place] = scores[id];
    ids[place] = static_cast<int32_t>(id);
  }
  return ids;
}

Interval wilson(size_t hits, size_t count) {
  constexpr double kQuantile = 1.96;
  const auto n = static_cast<double>(count);
  const double share = static_cast<double>(hits) / n;
  const double square = kQuantile * kQuantile / n;
  const double center = (share + square / 2) / (1 + square);
  const double half =
      kQuantile / (1 + square) * std::sqrt(share * (1 - share) / n + square / (4 * n));
  return {std::max(center - half, 0.0), std::min(center + half, 1.0)};
}

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

Result<Release> release(const SplitModel& model, const TextWindows& text,
                        const codec::BoundaryCodec& codec) {
  Release released{.tokens = text.tokens};
  ISTHMUS_ASSIGN(released.rows, boundary_rows(model, text));
  for (size_t r = 0; r < released.rows.rows(); ++r) {
    const MatrixView<float> row = released.rows.view().middle_rows(r, 1);
    ISTHMUS_ASSIGN(const auto message, codec.encode(row));
    ISTHMUS_TRY(codec.decode_into(message, row));
  }
  return released;
}

Result<Matrix> unit_embeddings(engine::Engine& engine) {
  std::vector<int32_t> ids(static_cast<size_t>(engine.config().vocab_size));
  std::iota(ids.begin(), ids.end(), 0);
  ISTHMUS_ASSIGN(Matrix table, boundary_rows({&engine, &engine, 0}, ids));
  for (size_t r = 0; r < table.rows(); ++r) {
    Eigen::Map<Eigen::VectorXf> row(table.row(r).data(), static_cast<Eigen::Index>(table.cols()));
    row.stableNormalize();
  }
  return table;
}

Guesses commonest(std::span<const int32_t> tokens) {
  std::map<int32_t, size_t> counts;
  for (const int32_t token : tokens) ++counts[token];
  std::vector<std::pair<int32_t, size_t>> sorted(counts.begin(), counts.end());
  std::ranges::stable_sort(sorted, std::greater<>(), &std::pair<int32_t, size_t>::second);
  Guesses guesses{};
  if (sorted.size() < guesses.size()) {
    throw std::invalid_argument("audit: a text of " + std::to_string(sorted.size()) +
                                " different tokens has no five commonest");
  }
  for (size_t i = 0; i < guesses.size(); ++i) guesses[i] = sorted[i].first;
  return guesses;
}

std::vector<Guesses> nearest_neighbors(MatrixView<const float> rows,
                                       MatrixView<const float> embeddings, ThreadPool& pool) {
  if (rows.cols() != embeddings.cols() || embeddings.rows() < std::tuple_size_v<Guesses>) {
    throw std::invalid_argument("audit: neighbours of rows in a table of another shape");
  }
  constexpr size_t kBlock = 32;  // rows whose scores are held by one thread
  std::vector<Guesses> guesses(rows.rows());
  pool.parallel_for(rows.rows(), kBlock, [&](size_t begin, size_t end) {
    for (size_t first = begin; first < end; first += kBlock) {
      const size_t count = std::min(kBlock, end - first);
      const Rows scores =
          as_eigen(rows.middle_rows(first, count)) * as_eigen(embeddings).transpose();
      for (size_t r = 0; r < count; ++r) {
        guesses[first + r] =
            best_of({scores.row(static_cast<Eigen::Index>(r)).data(), embeddings.rows()});
      }
    }
  });
  return guesses;
}

struct RidgeInverter::Impl {
  Eigen::RowVectorXf mean;     // of the inputs
  Eigen::RowVectorXf scale;    // one over their standard deviation
  Eigen::RowVectorXf average;  // of the targets
  Eigen::MatrixXf weights;

  Rows standardized(MatrixView<const float> rows) const {
    return ((as_eigen(rows).rowwise() - mean).array().rowwise() * scale.array()).matrix();
  }
};

RidgeInverter::RidgeInverter(std::unique_ptr<const Impl> impl) : impl_(std::move(impl)) {}
RidgeInverter::RidgeInverter(RidgeInverter&&) noexcept = default;
RidgeInverter& RidgeInverter::operator=(RidgeInverter&&) noexcept = default;
RidgeInverter::~RidgeInverter() = default;

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
  auto impl = std::make_unique<Impl>();
  const RowsMap rows = as_eigen(train.rows.view());
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

Recovery judge(std::span<const Guesses> guesses, std::span<const int32_t> tokens) {
  if (guesses.size() != tokens.size() || tokens.empty()) {
    throw std::invalid_argument("audit: " + std::to_string(guesses.size()) + " guesses for " +
                                std::to_string(tokens.size()) + " tokens");
  }
  size_t first = 0;
  size_t among = 0;
  size_t run = 0;
  size_t whole = 0;
  for (size_t i = 0; i < tokens.size(); ++i) {
    const bool hit = guesses[i].front() == tokens[i];
    first += hit ? 1 : 0;
    among += std::ranges::find(guesses[i], tokens[i]) != guesses[i].end() ? 1 : 0;
    run = i % Recovery::kSequence == 0 ? 0 : run;
    run += hit ? 1 : 0;
    whole += run == Recovery::kSequence ? 1 : 0;
  }
  const size_t stretches = tokens.size() / Recovery::kSequence;
  const auto share = [](size_t hits, size_t count) {
    return count == 0 ? 0.0 : static_cast<double>(hits) / static_cast<double>(count);
  };
  return {.tokens = tokens.size(),
          .top1 = share(first, tokens.size()),
          .top5 = share(among, tokens.size()),
          .exact_sequence = share(whole, stretches),
          .top1_interval = wilson(first, tokens.size()),
          .top5_interval = wilson(among, tokens.size())};
}

}  // namespace isthmus::audit
