#include <isthmus/audit/inverter.h>
#include <isthmus/core/random.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <string>
#include <utility>

#include "eigen_views.h"

namespace isthmus::audit {
namespace {

constexpr Eigen::Index kHidden = 256;
constexpr size_t kBatch = 128;
constexpr size_t kNegatives = 512;  // tokens drawn from the vocabulary beside a batch's own
constexpr float kLearningRate = 1e-3F;
constexpr float kFirstScale = 16;  // of products with unit embeddings; learnt
constexpr int kMostEpochs = 30;
constexpr int kPatience = 3;          // epochs without a gain
constexpr size_t kMostJudged = 2048;  // rows that are read after each epoch

/// Numbers that are trained, by Adam (Kingma and Ba 2015).
struct Weights {
  Rows value;
  Rows gradient;
  Rows mean;
  Rows square;

  /// Uniform in +-range.
  Weights(Eigen::Index rows, Eigen::Index cols, float range, uint64_t seed)
      : value(rows, cols), gradient(rows, cols), mean(Rows::Zero(rows, cols)), square(mean) {
    for (Eigen::Index i = 0; i < value.size(); ++i) {
      value.data()[i] =
          range * static_cast<float>(2 * counter_uniform(seed, static_cast<uint64_t>(i)) - 1);
    }
  }

  void step(int count) {
    constexpr float kMean = 0.9F;
    constexpr float kSquare = 0.999F;
    const float rate = kLearningRate * std::sqrt(1 - std::pow(kSquare, static_cast<float>(count))) /
                       (1 - std::pow(kMean, static_cast<float>(count)));
    mean = kMean * mean + (1 - kMean) * gradient;
    square = kSquare * square + (1 - kSquare) * gradient.cwiseAbs2();
    value.array() -= rate * mean.array() / (square.array().sqrt() + 1e-8F);
  }
};

/// Rows first ... of windows, each beside its neighbours, which are 0 outside a window.
Rows with_neighbors(const Rows& rows, size_t window, size_t first, size_t count) {
  const Eigen::Index width = rows.cols();
  Rows result = Rows::Zero(static_cast<Eigen::Index>(count), 3 * width);
  for (size_t i = 0; i < count; ++i) {
    const size_t place = first + i;
    const auto row = static_cast<Eigen::Index>(place);
    const auto at = static_cast<Eigen::Index>(i);
    if (place % window > 0) result.row(at).head(width) = rows.row(row - 1);
    result.row(at).segment(width, width) = rows.row(row);
    if (place % window + 1 < window && row + 1 < rows.rows())
      result.row(at).tail(width) = rows.row(row + 1);
  }
  return result;
}

/// The tokens that a batch's softmax is taken over, all different, and which of them is whose.
struct Choices {
  Rows embeddings;
  std::vector<Eigen::Index> targets;

  Choices(std::span<const int32_t> tokens, MatrixView<const float> table, uint64_t seed) {
    std::map<int32_t, Eigen::Index> places;
    const auto place = [&](int32_t token) {
      return places.emplace(token, static_cast<Eigen::Index>(places.size())).first->second;
    };
    for (const int32_t token : tokens) targets.push_back(place(token));
    for (size_t i = 0; i < kNegatives; ++i)
      place(static_cast<int32_t>(counter_uniform(seed, i) * static_cast<double>(table.rows())));
    embeddings.resize(static_cast<Eigen::Index>(places.size()),
                      static_cast<Eigen::Index>(table.cols()));
    for (const auto& [token, at] : places) embeddings.row(at) = as_eigen(table).row(token);
  }
};

}  // namespace

struct NeuralInverter::Impl {
  Impl(RidgeInverter start, size_t window_rows, MatrixView<const float> rows, Eigen::Index outputs)
      : ridge(std::move(start)),
        window(window_rows),
        mean(as_eigen(rows).colwise().mean()),
        scale(((as_eigen(rows).rowwise() - mean).colwise().squaredNorm() /
               static_cast<float>(rows.rows()))
                  .cwiseSqrt()
                  .cwiseMax(1e-30F)
                  .cwiseInverse()),
        input(3 * mean.cols(), kHidden, std::sqrt(2.0F / static_cast<float>(3 * mean.cols())), 1),
        input_bias(1, kHidden, 0, 2),
        output(kHidden, outputs, 0, 3),
        log_scale(1, 1, 0, 4) {
    log_scale.value(0) = std::log(kFirstScale);
  }

  [[nodiscard]] Rows standardized(MatrixView<const float> rows) const {
    return ((as_eigen(rows).rowwise() - mean).array().rowwise() * scale.array()).matrix();
  }
  [[nodiscard]] Rows hidden(const Rows& context) const {
    return ((context * input.value).rowwise() + input_bias.value.row(0)).cwiseMax(0.0F);
  }

  /// One batch's gradient, and a step along it.
  void learn(const Rows& context, const Rows& base, const Choices& choices, int step) {
    const Rows active = hidden(context);
    const Rows estimate = base + active * output.value;
    const float sharpness = std::exp(log_scale.value(0));
    const Rows products = estimate * choices.embeddings.transpose();
    Rows error = sharpness * products;  // of the logits: softmax less 1 for the target
    error.colwise() -= error.rowwise().maxCoeff().eval();
    error = error.array().exp();
    error.array().colwise() /= error.rowwise().sum().eval().array();
    for (size_t i = 0; i < choices.targets.size(); ++i)
      error(static_cast<Eigen::Index>(i), choices.targets[i]) -= 1;
    error /= static_cast<float>(choices.targets.size());
    log_scale.gradient(0) = sharpness * error.cwiseProduct(products).sum();
    const Rows back = sharpness * (error * choices.embeddings);
    output.gradient = active.transpose() * back;
    const Rows down =
        (back * output.value.transpose()).cwiseProduct((active.array() > 0).cast<float>().matrix());
    input.gradient = context.transpose() * down;
    input_bias.gradient = down.colwise().sum();
    for (Weights* weights : {&input, &input_bias, &output, &log_scale}) weights->step(step);
  }

  RidgeInverter ridge;
  size_t window;
  Eigen::RowVectorXf mean;   // of the channels
  Eigen::RowVectorXf scale;  // one over their standard deviation
  Weights input;             // [3 D, hidden]
  Weights input_bias;
  Weights output;  // [hidden, D of the embeddings]; 0 at first, so training starts at the ridge
  Weights log_scale;
  std::vector<double> history;
};

NeuralInverter::NeuralInverter(std::shared_ptr<const Impl> impl) : impl_(std::move(impl)) {}

Result<NeuralInverter> NeuralInverter::fit(const Release& train, size_t window,
                                           MatrixView<const float> embeddings, ThreadPool& pool) {
  const size_t windows = window == 0 ? 0 : train.tokens.size() / window;
  if (windows < 5) {
    return fail(ErrorCode::kInvalidArgument, "audit: a neural inverter is trained on " +
                                                 std::to_string(windows) + " windows, it needs 5");
  }
  const size_t fitted = (windows - windows / 5) * window;
  const size_t judged = std::min(windows * window - fitted, kMostJudged);
  const MatrixView<const float> all = train.rows.view();
  Release part{
      .rows = Matrix(fitted, all.cols()),
      .tokens = {train.tokens.begin(), train.tokens.begin() + static_cast<std::ptrdiff_t>(fitted)}};
  std::ranges::copy(all.middle_rows(0, fitted).values(), part.rows.data());
  ISTHMUS_ASSIGN(RidgeInverter ridge, RidgeInverter::fit(part, embeddings));
  const Matrix base = ridge.invert(part.rows.view());
  const auto impl = std::make_shared<Impl>(std::move(ridge), window, part.rows.view(),
                                           static_cast<Eigen::Index>(embeddings.cols()));
  const Rows inputs = impl->standardized(part.rows.view());
  const auto read = [&](const std::shared_ptr<const Impl>& candidate) {
    const Matrix guessed = NeuralInverter(candidate).invert(all.middle_rows(fitted, judged));
    return judge(nearest_neighbors(guessed.view(), embeddings, 1, pool),
                 std::span(train.tokens).subspan(fitted, judged))
        .top1;
  };
  const auto best = std::make_shared<Impl>(*impl);
  double most = read(impl);
  std::vector<double> history = {most};
  int step = 0;
  int in_vain = 0;
  for (int epoch = 0; epoch < kMostEpochs && in_vain < kPatience; ++epoch) {
    for (size_t first = 0; first < fitted; first += kBatch) {
      const size_t count = std::min(kBatch, fitted - first);
      const Choices choices(std::span(part.tokens).subspan(first, count), embeddings,
                            static_cast<uint64_t>(++step));
      impl->learn(with_neighbors(inputs, window, first, count),
                  as_eigen(base.view().middle_rows(first, count)), choices, step);
    }
    const double now = read(impl);
    history.push_back(now);
    in_vain = now > most ? 0 : in_vain + 1;
    if (now > most) {
      most = now;
      *best = *impl;
    }
  }
  best->history = std::move(history);
  return NeuralInverter(best);
}

const std::vector<double>& NeuralInverter::history() const {
  return impl_->history;
}

Matrix NeuralInverter::invert(MatrixView<const float> rows) const {
  Matrix result = impl_->ridge.invert(rows);
  const Rows inputs = impl_->standardized(rows);
  const float sharpness = std::exp(impl_->log_scale.value(0));
  for (size_t first = 0; first < rows.rows(); first += kBatch) {
    const size_t count = std::min(kBatch, rows.rows() - first);
    Eigen::Map<Rows> block(result.row(first).data(), static_cast<Eigen::Index>(count),
                           static_cast<Eigen::Index>(result.cols()));
    block +=
        impl_->hidden(with_neighbors(inputs, impl_->window, first, count)) * impl_->output.value;
    block *= sharpness;
  }
  return result;
}

}  // namespace isthmus::audit
