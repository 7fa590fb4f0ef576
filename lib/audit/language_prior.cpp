#include <isthmus/audit/sequence_attack.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <iterator>
#include <memory>
#include <string>
#include <utility>

#include "candidates.h"
#include "eigen_views.h"

namespace isthmus::audit {
namespace {

constexpr size_t kChunk = 64;  // tokens whose logits are held at once

engine::LayerWindow all_layers(const engine::Engine& model) {
  return {0, model.config().layer_count};
}

/// Calls `use(place, logits)` for each token of a text but the last of each window: the scores of
/// the token behind it.
template <typename Use>
Status for_each_logits(engine::Engine& model, const TextWindows& text, const Use& use) {
  for (size_t w = 0; w < text.count(); ++w) {
    const std::span<const int32_t> tokens = text.tokens_of(w);
    ISTHMUS_ASSIGN(const auto cache,
                   model.make_cache(all_layers(model), static_cast<int32_t>(tokens.size())));
    for (size_t first = 0; first + 1 < tokens.size(); first += kChunk) {
      const size_t count = std::min(kChunk, tokens.size() - 1 - first);
      const engine::Slice slice{.cache = cache.get(),
                                .tokens = tokens.subspan(first, count),
                                .output = engine::Output::kLogits};
      ISTHMUS_ASSIGN(const std::vector<Matrix> logits, model.forward({&slice, 1}));
      for (size_t i = 0; i < count; ++i) use(w * text.window + first + i, logits.front().row(i));
    }
  }
  return {};
}

/// Adds up, for one row, the negative logarithm of what scores and prior give the true token.
/// Tokens that are not among the candidates count nothing: no sharpness brings them back.
class SharpnessFit {
 public:
  static constexpr std::array kGrid = {0.25F, 0.5F, 1.0F,  2.0F,  4.0F,   8.0F,  16.0F,
                                       32.0F, 64.F, 128.F, 256.F, 512.0F, 1024.F};

  void add(const Candidates& candidates, int32_t truth, std::span<const float> logits) {
    const auto right = std::ranges::find(candidates, truth, &Candidate::token);
    if (right == candidates.end()) return;
    for (size_t g = 0; g < kGrid.size(); ++g) {
      const auto sum = [&](const Candidate& c) {
        return kGrid[g] * (c.score - candidates.front().score) +
               logits[static_cast<size_t>(c.token)];
      };
      float largest = sum(candidates.front());
      for (const Candidate& c : candidates) largest = std::max(largest, sum(c));
      double total = 0;
      for (const Candidate& c : candidates)
        total += std::exp(static_cast<double>(sum(c) - largest));
      losses_[g] += std::log(total) + static_cast<double>(largest - sum(*right));
    }
  }

  [[nodiscard]] float best() const {
    return kGrid[static_cast<size_t>(std::ranges::min_element(losses_) - losses_.begin())];
  }

 private:
  std::array<double, kGrid.size()> losses_{};
};

/// A reading of the tokens so far.
struct Reading {
  std::vector<int32_t> tokens;
  std::vector<Candidates> ranked;  // what was likely at each position, the token taken first
  float score = 0;
};

/// One reading longer by a token.
struct Extension {
  size_t reading = 0;
  Candidate taken;  // with the whole reading's score
};

/// The language model at the end of several readings.
class Continuations {
 public:
  static Result<Continuations> start(engine::Engine& model, size_t readings, size_t window) {
    Continuations result(model);
    for (size_t i = 0; i < readings; ++i) {
      ISTHMUS_ASSIGN(auto cache, model.make_cache(all_layers(model), static_cast<int32_t>(window)));
      result.slots_.push_back({std::move(cache), {}});
    }
    return result;
  }

  /// log p(token | reading) of the whole vocabulary, a row for each reading.
  Result<std::vector<Matrix>> after(std::span<const Reading> readings) {
    std::vector<engine::Slice> slices;
    for (size_t i = 0; i < readings.size(); ++i) {
      Slot& slot = slots_[i];
      const std::vector<int32_t>& tokens = readings[i].tokens;
      const auto common = std::ranges::mismatch(slot.tokens, tokens).in2 - tokens.begin();
      const auto kept = std::min(common, static_cast<std::ptrdiff_t>(tokens.size()) - 1);
      ISTHMUS_TRY(slot.cache->truncate(static_cast<int32_t>(kept)));
      slot.tokens = tokens;
      slices.push_back({.cache = slot.cache.get(),
                        .tokens = std::span(slot.tokens).subspan(static_cast<size_t>(kept)),
                        .output = engine::Output::kLogits,
                        .rows = engine::Rows::kLast});
    }
    ISTHMUS_ASSIGN(std::vector<Matrix> logits, model_->forward(slices));
    for (Matrix& row : logits) {
      Row scores(row.data(), static_cast<Eigen::Index>(row.cols()));
      const float largest = scores.maxCoeff();
      const double sum = (scores.array() - largest).exp().cast<double>().sum();
      scores.array() -= largest + static_cast<float>(std::log(sum));
    }
    return logits;
  }

 private:
  struct Slot {
    std::unique_ptr<engine::KvCache> cache;
    std::vector<int32_t> tokens;  // that the cache has read
  };
  explicit Continuations(engine::Engine& model) : model_(&model) {}

  engine::Engine* model_;
  std::vector<Slot> slots_;
};

/// What follows one reading, best first.
Candidates ranked(const Candidates& evidence, float sharpness, const Matrix* prior) {
  Candidates result = evidence;
  const float best = evidence.empty() ? 0 : evidence.front().score;
  for (Candidate& c : result) {
    c.score = sharpness * (c.score - best) +
              (prior == nullptr ? 0 : prior->row(0)[static_cast<size_t>(c.token)]);
  }
  std::ranges::stable_sort(result, std::greater<>(), &Candidate::score);
  return result;
}

/// The best `beam` of all readings' continuations.
std::vector<Reading> extended(const std::vector<Reading>& readings,
                              const std::vector<Candidates>& ranks, size_t beam) {
  std::vector<Extension> all;
  for (size_t i = 0; i < readings.size(); ++i) {
    for (const Candidate& c : ranks[i]) all.push_back({i, {c.token, readings[i].score + c.score}});
  }
  std::ranges::stable_sort(all, std::greater<>(), [](const Extension& e) { return e.taken.score; });
  all.resize(std::min(all.size(), beam));
  std::vector<Reading> result;
  for (const Extension& e : all) {
    Reading& next = result.emplace_back(readings[e.reading]);
    next.tokens.push_back(e.taken.token);
    next.score = e.taken.score;
    Candidates order = ranks[e.reading];
    const auto taken = std::ranges::find(order, e.taken.token, &Candidate::token);
    std::rotate(order.begin(), taken, taken + 1);
    order.resize(std::min(order.size(), kGuesses));
    next.ranked.push_back(std::move(order));
  }
  return result;
}

Result<std::vector<Candidates>> read_window(engine::Engine& model,
                                            std::span<const Candidates> evidence,
                                            const PriorWeighting& weighting) {
  ISTHMUS_ASSIGN(auto continuations,
                 Continuations::start(model, weighting.beam, evidence.size() + 1));
  std::vector<Reading> readings(1);
  for (const Candidates& candidates : evidence) {
    std::vector<Matrix> priors;
    if (!readings.front().tokens.empty()) {
      ISTHMUS_ASSIGN(priors, continuations.after(readings));
    }
    std::vector<Candidates> ranks;
    for (size_t i = 0; i < readings.size(); ++i)
      ranks.push_back(
          ranked(candidates, weighting.sharpness, priors.empty() ? nullptr : &priors[i]));
    readings = extended(readings, ranks, weighting.beam);
  }
  return std::move(readings.front().ranked);
}

std::ptrdiff_t count_right(std::span<const Candidates> guesses, std::span<const int32_t> tokens) {
  std::ptrdiff_t right = 0;
  for (size_t i = 0; i < guesses.size(); ++i) right += guesses[i].front().token == tokens[i];
  return right;
}

}  // namespace

Result<std::vector<Candidates>> predict_from_context(engine::Engine& model,
                                                     const TextWindows& text) {
  std::vector<Candidates> guesses(text.tokens.size());
  const auto note = [&](size_t place, std::span<const float> logits) {
    guesses[place + 1] = best_of(logits, kGuesses);
  };
  ISTHMUS_TRY(for_each_logits(model, text, note));
  return guesses;
}

Result<std::vector<Candidates>> read_with_prior(engine::Engine& model,
                                                std::span<const Candidates> evidence, size_t window,
                                                const PriorWeighting& weighting) {
  if (window == 0 || evidence.size() % window != 0 ||
      std::ranges::any_of(evidence, &Candidates::empty)) {
    return fail(ErrorCode::kInvalidArgument,
                "audit: evidence for " + std::to_string(evidence.size()) +
                    " tokens is no whole windows of " + std::to_string(window) +
                    " with candidates for each");
  }
  std::vector<Candidates> result;
  for (size_t first = 0; first < evidence.size(); first += window) {
    ISTHMUS_ASSIGN(auto part, read_window(model, evidence.subspan(first, window), weighting));
    std::ranges::move(part, std::back_inserter(result));
  }
  return result;
}

Result<PriorWeighting> fit_weighting(engine::Engine& model, std::span<const Candidates> evidence,
                                     const TextWindows& text, size_t beam) {
  if (evidence.size() != text.tokens.size()) {
    return fail(ErrorCode::kInvalidArgument, "audit: evidence for " +
                                                 std::to_string(evidence.size()) + " of " +
                                                 std::to_string(text.tokens.size()) + " tokens");
  }
  SharpnessFit fit;
  ISTHMUS_TRY(for_each_logits(model, text, [&](size_t place, std::span<const float> logits) {
    fit.add(evidence[place + 1], text.tokens[place + 1], logits);
  }));
  constexpr float kEvidenceAlone = 1e6F;
  PriorWeighting best;
  std::ptrdiff_t most = -1;
  for (const float trust : {1.0F, 4.0F, 16.0F, kEvidenceAlone}) {
    const PriorWeighting weighting{.sharpness = trust * fit.best(), .beam = beam};
    ISTHMUS_ASSIGN(const auto read, read_with_prior(model, evidence, text.window, weighting));
    const std::ptrdiff_t right = count_right(read, text.tokens);
    if (right > most) best = weighting;
    most = std::max(most, right);
  }
  return best;
}

}  // namespace isthmus::audit
