#include <isthmus/audit/attack.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <iterator>
#include <map>
#include <mutex>
#include <numeric>
#include <stdexcept>
#include <string>
#include <utility>

#include "candidates.h"
#include "eigen_views.h"

namespace isthmus::audit {
namespace {

// Mechanisms with so few codes are asked about the whole vocabulary, others about a short list.
constexpr int32_t kFewCodes = 256;
constexpr size_t kShortlist = 256;
// Messages that are asked about together, and embeddings that one thread takes at a time.
constexpr size_t kMessages = 512;
constexpr size_t kEmbeddings = 256;
// Rows whose scores are held by one thread.
constexpr size_t kBlock = 32;

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

/// For each row, `count` columns of rows * table^T + offsets.
std::vector<Candidates> best_products(MatrixView<const float> rows, MatrixView<const float> table,
                                      const Eigen::RowVectorXf& offsets, size_t count,
                                      ThreadPool& pool) {
  if (rows.cols() != table.cols()) {
    throw std::invalid_argument("audit: neighbours of rows in a table of another width");
  }
  std::vector<Candidates> result(rows.rows());
  pool.parallel_for(rows.rows(), kBlock, [&](size_t begin, size_t end) {
    for (size_t first = begin; first < end; first += kBlock) {
      const size_t block = std::min(kBlock, end - first);
      Rows scores = as_eigen(rows.middle_rows(first, block)) * as_eigen(table).transpose();
      scores.rowwise() += offsets;
      for (size_t r = 0; r < block; ++r) {
        result[first + r] =
            best_of({scores.row(static_cast<Eigen::Index>(r)).data(), table.rows()}, count);
      }
    }
  });
  return result;
}

using Messages = std::span<const std::vector<std::byte>>;

/// Scores are kept relative to the best, which float can hold.
void keep_best(Candidates& candidates, size_t count) {
  const float best = candidates.front().score;
  for (Candidate& candidate : candidates) candidate.score -= best;
  candidates.resize(std::min(candidates.size(), count));
}

/// For each message the likeliest of all embeddings.
Result<std::vector<Candidates>> likeliest(Messages messages, const codec::BoundaryCodec& codec,
                                          MatrixView<const float> embeddings, size_t count,
                                          ThreadPool& pool) {
  Rows scores(messages.size(), embeddings.rows());
  std::mutex mutex;
  Status failed;
  pool.parallel_for(embeddings.rows(), kEmbeddings, [&](size_t begin, size_t end) {
    for (size_t first = begin; first < end; first += kEmbeddings) {
      const size_t block = std::min(kEmbeddings, end - first);
      auto logs = codec.log_likelihoods(messages, embeddings.middle_rows(first, block));
      if (!logs) {
        const std::lock_guard lock(mutex);
        failed = propagate(std::move(logs));
        return;
      }
      for (size_t e = 0; e < block; ++e)
        scores.col(static_cast<Eigen::Index>(first + e)) =
            Eigen::Map<const Eigen::VectorXd>((*logs)[e].data(), scores.rows()).cast<float>();
    }
  });
  ISTHMUS_TRY(failed);
  std::vector<Candidates> result(messages.size());
  for (size_t m = 0; m < messages.size(); ++m) {
    result[m] =
        best_of({scores.row(static_cast<Eigen::Index>(m)).data(), embeddings.rows()}, count);
    keep_best(result[m], count);
  }
  return result;
}

/// For each row the `count` rows of `table` at the least distance.
std::vector<Candidates> nearest(MatrixView<const float> rows, MatrixView<const float> table,
                                size_t count, ThreadPool& pool) {
  // |z - x|^2 = |z|^2 - 2 (z x - |x|^2 / 2).
  const Eigen::RowVectorXf offsets = -0.5F * as_eigen(table).rowwise().squaredNorm().transpose();
  return best_products(rows, table, offsets, count, pool);
}

/// For each message of `release` the likeliest of the embeddings that decode to nearly the same on
/// average.
Result<std::vector<Candidates>> likeliest_of_near(const Release& release,
                                                  const codec::BoundaryCodec& codec,
                                                  MatrixView<const float> embeddings, size_t count,
                                                  ThreadPool& pool) {
  ISTHMUS_ASSIGN(const Matrix means, codec.expectations(embeddings));
  auto result = nearest(release.rows.view(), means.view(), kShortlist, pool);
  for (size_t r = 0; r < result.size(); ++r) {
    Candidates& candidates = result[r];
    Matrix rows(candidates.size(), embeddings.cols());
    for (size_t i = 0; i < candidates.size(); ++i) {
      std::ranges::copy(embeddings.row(static_cast<size_t>(candidates[i].token)),
                        rows.row(i).data());
    }
    ISTHMUS_ASSIGN(const auto logs,
                   codec.log_likelihoods(Messages(release.messages).subspan(r, 1), rows.view()));
    for (size_t i = 0; i < logs.size(); ++i) candidates[i].score = static_cast<float>(logs[i][0]);
    std::ranges::stable_sort(candidates, std::greater<>(), &Candidate::score);
    keep_best(candidates, count);
  }
  return result;
}

/// What the server gets of each embedding, on average if it is drawn.
Result<Matrix> sent_rows(const codec::BoundaryCodec& codec, MatrixView<const float> embeddings) {
  if (codec.is_random()) return codec.expectations(embeddings);
  std::vector<int32_t> ids(embeddings.rows());
  std::iota(ids.begin(), ids.end(), 0);
  ISTHMUS_ASSIGN(Release sent, release(embeddings, ids, codec));
  return std::move(sent.rows);
}

/// For each message of `release` the embeddings that are sent as nearly the same.
Result<std::vector<Candidates>> nearest_sent(const Release& received,
                                             const codec::BoundaryCodec& codec,
                                             MatrixView<const float> embeddings, size_t count,
                                             ThreadPool& pool) {
  ISTHMUS_ASSIGN(const Matrix sent, sent_rows(codec, embeddings));
  auto result = nearest(received.rows.view(), sent.view(), count, pool);
  for (Candidates& candidates : result) keep_best(candidates, count);
  return result;
}

}  // namespace

Candidates best_of(std::span<const float> scores, size_t count) {
  Candidates best;
  best.reserve(count + 1);
  for (size_t id = 0; id < scores.size(); ++id) {
    if (best.size() == count && !(scores[id] > best.back().score)) continue;
    const auto place = std::ranges::find_if(
        best, [&](const Candidate& other) { return scores[id] > other.score; });
    best.insert(place, {static_cast<int32_t>(id), scores[id]});
    if (best.size() > count) best.pop_back();
  }
  return best;
}

Result<Release> release(MatrixView<const float> rows, std::span<const int32_t> tokens,
                        const codec::BoundaryCodec& codec) {
  Release released{.rows = Matrix(rows.rows(), rows.cols()),
                   .tokens = {tokens.begin(), tokens.end()}};
  for (size_t r = 0; r < rows.rows(); ++r) {
    ISTHMUS_ASSIGN(auto message, codec.encode(rows.middle_rows(r, 1)));
    ISTHMUS_TRY(codec.decode_into(message, released.rows.view().middle_rows(r, 1)));
    released.messages.push_back(std::move(message));
  }
  return released;
}

Result<Matrix> embedding_table(engine::Engine& engine) {
  std::vector<int32_t> ids(static_cast<size_t>(engine.config().vocab_size));
  std::iota(ids.begin(), ids.end(), 0);
  return boundary_rows({&engine, &engine, 0}, ids);
}

Matrix unit_rows(Matrix rows) {
  for (size_t r = 0; r < rows.rows(); ++r) {
    Row(rows.row(r).data(), static_cast<Eigen::Index>(rows.cols())).stableNormalize();
  }
  return rows;
}

Candidates commonest(std::span<const int32_t> tokens) {
  std::map<int32_t, float> counts;
  for (const int32_t token : tokens) ++counts[token];
  Candidates sorted;
  for (const auto& [token, count] : counts) sorted.push_back({token, count});
  std::ranges::stable_sort(sorted, std::greater<>(), &Candidate::score);
  sorted.resize(std::min(sorted.size(), kGuesses));
  return sorted;
}

std::vector<Candidates> nearest_neighbors(MatrixView<const float> rows,
                                          MatrixView<const float> embeddings, size_t count,
                                          ThreadPool& pool) {
  const auto none = Eigen::RowVectorXf::Zero(static_cast<Eigen::Index>(embeddings.rows()));
  return best_products(rows, embeddings, none, count, pool);
}

Result<std::vector<Candidates>> most_likely(const Release& release,
                                            const codec::BoundaryCodec& codec,
                                            MatrixView<const float> embeddings, size_t count,
                                            ThreadPool& pool) {
  if (codec.mechanism() == nullptr) return nearest_sent(release, codec, embeddings, count, pool);
  const privacy::CodeRange range = codec.mechanism()->code_range();
  if (range.last - range.first >= kFewCodes)
    return likeliest_of_near(release, codec, embeddings, count, pool);
  std::vector<Candidates> result;
  for (size_t first = 0; first < release.messages.size(); first += kMessages) {
    const size_t block = std::min(kMessages, release.messages.size() - first);
    ISTHMUS_ASSIGN(auto part, likeliest(Messages(release.messages).subspan(first, block), codec,
                                        embeddings, count, pool));
    std::ranges::move(part, std::back_inserter(result));
  }
  return result;
}

Recovery judge(std::span<const Candidates> guesses, std::span<const int32_t> tokens) {
  if (guesses.size() != tokens.size() || tokens.empty()) {
    throw std::invalid_argument("audit: " + std::to_string(guesses.size()) + " guesses for " +
                                std::to_string(tokens.size()) + " tokens");
  }
  size_t first = 0;
  size_t among = 0;
  size_t run = 0;
  size_t whole = 0;
  for (size_t i = 0; i < tokens.size(); ++i) {
    const auto named = std::span(guesses[i]).first(std::min(guesses[i].size(), kGuesses));
    const auto found = std::ranges::find(named, tokens[i], &Candidate::token);
    const bool hit = !named.empty() && found == named.begin();
    first += hit ? 1 : 0;
    among += found != named.end() ? 1 : 0;
    run = i % Recovery::kSequence == 0 ? 0 : run;
    run += hit ? 1 : 0;
    whole += run == Recovery::kSequence ? 1 : 0;
  }
  const auto share = [](size_t hits, size_t count) {
    return static_cast<double>(hits) / static_cast<double>(count);
  };
  Recovery recovery{.tokens = tokens.size(),
                    .top1 = share(first, tokens.size()),
                    .top5 = share(among, tokens.size()),
                    .top1_interval = wilson(first, tokens.size()),
                    .top5_interval = wilson(among, tokens.size())};
  const size_t stretches = tokens.size() / Recovery::kSequence;
  if (stretches > 0) recovery.exact_sequence = share(whole, stretches);
  return recovery;
}

}  // namespace isthmus::audit
