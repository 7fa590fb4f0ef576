#include <isthmus/audit/sequence_attack.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <string>

#include "candidates.h"
#include "eigen_views.h"

namespace isthmus::audit {
namespace {

constexpr size_t kTried = 64;  // tokens at a time, each with a cache of its own

/// The cosine of the angle between two rows.
float cosine(std::span<const float> a, std::span<const float> b) {
  const auto size = static_cast<Eigen::Index>(a.size());
  const Eigen::Map<const Eigen::VectorXf> x(a.data(), size);
  const Eigen::Map<const Eigen::VectorXf> y(b.data(), size);
  const double norms = static_cast<double>(x.stableNorm()) * static_cast<double>(y.stableNorm());
  if (norms == 0) return 0;
  return static_cast<float>(x.cast<double>().dot(y.cast<double>()) / norms);
}

/// Fronts that have all read the same tokens.
class Trials {
 public:
  static Result<Trials> start(const SplitModel& model, size_t positions) {
    Trials trials(model);
    for (size_t i = 0; i < kTried; ++i) {
      ISTHMUS_ASSIGN(auto cache,
                     model.front->make_cache({0, model.cut}, static_cast<int32_t>(positions)));
      trials.caches_.push_back(std::move(cache));
    }
    return trials;
  }

  /// The boundary rows of tokens [first, first + count) as the next one.
  Result<std::vector<Matrix>> rows_of(int32_t first, size_t count) {
    const int32_t length = caches_.front()->length();
    std::vector<int32_t> tokens(count);
    for (size_t i = 0; i < count; ++i) tokens[i] = first + static_cast<int32_t>(i);
    auto rows = advance(tokens);
    for (const auto& cache : caches_) ISTHMUS_TRY(cache->truncate(length));
    return rows;
  }

  /// Settles on the next token.
  Status append(int32_t token) {
    return advance(std::vector<int32_t>(caches_.size(), token)).map([](const auto&) {});
  }

 private:
  explicit Trials(const SplitModel& model) : model_(model) {}

  Result<std::vector<Matrix>> advance(std::span<const int32_t> tokens) {
    std::vector<engine::Slice> slices;
    for (size_t i = 0; i < tokens.size(); ++i)
      slices.push_back({.cache = caches_[i].get(), .tokens = tokens.subspan(i, 1)});
    return model_.front->forward(slices);
  }

  SplitModel model_;
  std::vector<std::unique_ptr<engine::KvCache>> caches_;
};

}  // namespace

Result<std::vector<Candidates>> match_exhaustively(const SplitModel& model,
                                                   MatrixView<const float> rows, size_t count) {
  count = std::min(count, rows.rows());
  const int32_t vocabulary = model.front->config().vocab_size;
  std::vector<Candidates> found;
  ISTHMUS_ASSIGN(Trials trials, Trials::start(model, count + 1));
  for (size_t position = 0; position < count; ++position) {
    std::vector<float> cosines;
    for (int32_t first = 0; first < vocabulary; first += static_cast<int32_t>(kTried)) {
      const auto tried = std::min(kTried, static_cast<size_t>(vocabulary - first));
      ISTHMUS_ASSIGN(const std::vector<Matrix> made, trials.rows_of(first, tried));
      for (size_t i = 0; i < tried; ++i)
        cosines.push_back(cosine(made[i].row(0), rows.row(position)));
    }
    found.push_back(best_of(cosines, kGuesses));
    ISTHMUS_TRY(trials.append(found.back().front().token));
  }
  return found;
}

}  // namespace isthmus::audit
