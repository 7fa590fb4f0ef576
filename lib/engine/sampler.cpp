#include <isthmus/core/random.h>
#include <isthmus/engine/sampler.h>
#include <isthmus/kernels/portable_math.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numeric>
#include <string>
#include <vector>

namespace isthmus::engine {
namespace {

struct Candidate {
  int32_t id = 0;
  double weight = 0;  ///< in proportion to the probability
};

bool likelier(const Candidate& a, const Candidate& b) {
  return a.weight != b.weight ? a.weight > b.weight : a.id < b.id;
}

/// Restores the one order in which candidates are added up and drawn from.
void sort_by_id(std::vector<Candidate>& candidates) {
  std::sort(candidates.begin(), candidates.end(),
            [](const Candidate& a, const Candidate& b) { return a.id < b.id; });
}

double total_weight(const std::vector<Candidate>& candidates) {
  return std::accumulate(candidates.begin(), candidates.end(), 0.0,
                         [](double sum, const Candidate& c) { return sum + c.weight; });
}

void keep_top_k(std::vector<Candidate>& candidates, size_t k) {
  if (k == 0 || k >= candidates.size()) return;
  std::nth_element(candidates.begin(), candidates.begin() + static_cast<std::ptrdiff_t>(k),
                   candidates.end(), likelier);
  candidates.resize(k);
  sort_by_id(candidates);
}

/// Takes candidates from a heap, likeliest first: far fewer than all are needed as a rule.
void keep_top_p(std::vector<Candidate>& candidates, double p) {
  if (p >= 1) return;
  const double wanted = p * total_weight(candidates);
  const auto less_likely = [](const Candidate& a, const Candidate& b) { return likelier(b, a); };
  std::make_heap(candidates.begin(), candidates.end(), less_likely);
  double sum = 0;
  auto heap_end = candidates.end();
  while (sum < wanted && heap_end != candidates.begin()) {
    std::pop_heap(candidates.begin(), heap_end, less_likely);
    --heap_end;
    sum += heap_end->weight;
  }
  candidates.erase(candidates.begin(), heap_end);
  sort_by_id(candidates);
}

void keep_min_p(std::vector<Candidate>& candidates, double fraction) {
  if (fraction == 0) return;
  const double least =
      fraction * std::min_element(candidates.begin(), candidates.end(), likelier)->weight;
  std::erase_if(candidates, [least](const Candidate& c) { return c.weight < least; });
}

int32_t draw(const std::vector<Candidate>& candidates, double uniform) {
  const double target = uniform * total_weight(candidates);
  double sum = 0;
  int32_t last_possible = candidates.front().id;
  for (const Candidate& c : candidates) {
    if (c.weight == 0) continue;
    sum += c.weight;
    last_possible = c.id;
    if (sum > target) break;
  }
  return last_possible;
}

/// The largest logit; NaN when one is NaN or plus infinity. A server does this for every session in
/// every pass, so it is written for the compiler to make vectors of.
float largest(std::span<const float> logits) {
  constexpr size_t kLanes = 16;
  std::array<float, kLanes> top;
  top.fill(-HUGE_VALF);
  std::array<int32_t, kLanes> unusable{};
  const auto look = [&](float x, size_t lane) {
    top[lane] = x > top[lane] ? x : top[lane];
    unusable[lane] |= x < HUGE_VALF ? 0 : 1;
  };
  const size_t whole = logits.size() / kLanes * kLanes;
  for (size_t i = 0; i < whole; i += kLanes) {
    for (size_t lane = 0; lane < kLanes; ++lane) look(logits[i + lane], lane);
  }
  for (size_t i = whole; i < logits.size(); ++i) look(logits[i], i - whole);
  if (std::any_of(unusable.begin(), unusable.end(), [](int32_t any) { return any != 0; })) {
    return std::numeric_limits<float>::quiet_NaN();
  }
  return *std::max_element(top.begin(), top.end());
}

Status check_ids(std::span<const int32_t> generated, size_t vocabulary) {
  for (const int32_t id : generated) {
    if (id >= 0 && static_cast<size_t>(id) < vocabulary) continue;
    return fail(ErrorCode::kInvalidArgument, "sampler: generated id " + std::to_string(id) +
                                                 " of a vocabulary of " +
                                                 std::to_string(vocabulary));
  }
  return {};
}

std::vector<float> penalized(std::span<const float> logits, float penalty,
                             std::span<const int32_t> generated) {
  std::vector<float> scores(logits.begin(), logits.end());
  for (const int32_t id : generated) {
    const float logit = logits[static_cast<size_t>(id)];
    scores[static_cast<size_t>(id)] = logit > 0 ? logit / penalty : logit * penalty;
  }
  return scores;
}

Status out_of_range(const char* field, double value, const char* range) {
  return fail(ErrorCode::kInvalidArgument, "sampler: " + std::string(field) + " is " +
                                               std::to_string(value) + ", not in " + range);
}

}  // namespace

Status SamplingOptions::validate() const {
  // Written so that NaN fails.
  if (!(temperature >= 0 && temperature <= 100)) {
    return out_of_range("temperature", temperature, "[0, 100]");
  }
  if (top_k < 0) return out_of_range("top_k", top_k, "[0, 2^31)");
  if (!(top_p > 0 && top_p <= 1)) return out_of_range("top_p", top_p, "(0, 1]");
  if (!(min_p >= 0 && min_p <= 1)) return out_of_range("min_p", min_p, "[0, 1]");
  if (!(repetition_penalty >= 1 && repetition_penalty <= 10)) {
    return out_of_range("repetition_penalty", repetition_penalty, "[1, 10]");
  }
  return {};
}

Result<int32_t> sample(std::span<const float> logits, const SamplingOptions& options,
                       std::span<const int32_t> generated, int64_t position) {
  ISTHMUS_TRY(options.validate());
  const float top = largest(logits);
  if (!std::isfinite(top)) {
    return fail(ErrorCode::kNotFinite, std::isnan(top) ? "sampler: a logit is NaN or infinite"
                                                       : "sampler: no logit is finite");
  }
  ISTHMUS_TRY(check_ids(generated, logits.size()));
  if (options.temperature == 0 && options.repetition_penalty == 1) {
    return static_cast<int32_t>(std::find(logits.begin(), logits.end(), top) - logits.begin());
  }
  const std::vector<float> scores = penalized(logits, options.repetition_penalty, generated);
  const auto best = std::max_element(scores.begin(), scores.end());
  if (options.temperature == 0) return static_cast<int32_t>(best - scores.begin());

  std::vector<Candidate> candidates(scores.size());
  for (size_t i = 0; i < scores.size(); ++i) {
    const double below_best = static_cast<double>(scores[i]) - *best;
    candidates[i] = {static_cast<int32_t>(i),
                     kernels::portable_exp(below_best / options.temperature)};
  }
  keep_top_k(candidates, static_cast<size_t>(options.top_k));
  keep_top_p(candidates, options.top_p);
  keep_min_p(candidates, options.min_p);
  return draw(candidates, counter_uniform(options.seed, static_cast<uint64_t>(position)));
}

}  // namespace isthmus::engine
