#include <isthmus/core/random.h>
#include <isthmus/engine/sampler.h>
#include <isthmus/kernels/dispatch.h>
#include <isthmus/kernels/portable_math.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <limits>
#include <numbers>
#include <numeric>
#include <string>
#include <vector>

namespace isthmus::engine {
namespace {

/// Draws a candidate with a probability in proportion to e^log_weight, as the one that comes first
/// when each comes after an exponential time of that rate (the Gumbel-max trick). A candidate's
/// luck hangs on its id alone, not on the others: so engines that round differently choose
/// differently in at most 2 d / (1 + d) of cases, where d is the total variation distance of their
/// distributions (Daliri, Musco and Suresh, arXiv 2408.07978).
class Race {
 public:
  Race(uint64_t seed, int64_t position)
      : random_(CounterRandom(seed).bits(static_cast<uint64_t>(position))) {}

  void enter(int32_t id, double log_weight) {
    // At rate 1 it comes at -ln(1 - v), which is no sooner than v: few are worth the logarithms.
    const uint64_t bits = random_.bits(static_cast<uint64_t>(id));
    const int least_exponent = std::min(std::countl_zero(bits), 52) + 1;  // v >= 2^-this
    if (!(log_weight + std::numbers::ln2 * least_exponent > lead_)) return;
    const double v = (static_cast<double>(bits >> 12U) + 0.5) * 0x1p-52;
    const double lead = log_weight - kernels::portable_log(-kernels::portable_log(1 - v));
    if (!(lead > lead_)) return;
    lead_ = lead;
    first_ = id;
  }
  [[nodiscard]] int32_t first() const { return first_; }

 private:
  CounterRandom random_;
  double lead_ = -std::numeric_limits<double>::infinity();
  int32_t first_ = 0;
};

/// Scores of all ids, as they are weighed at a temperature.
struct Weighed {
  std::span<const float> scores;
  float best;
  double sharpness;  ///< 1 / temperature

  /// 0 for the likeliest.
  [[nodiscard]] double log_weight(int32_t id) const {
    return (double{scores[static_cast<size_t>(id)]} - best) * sharpness;
  }
};

/// The k likeliest; smaller ids first among equals.
std::vector<int32_t> keep_top_k(const Weighed& weighed, int32_t k) {
  std::vector<int32_t> ids(weighed.scores.size());
  std::iota(ids.begin(), ids.end(), 0);
  if (k == 0 || static_cast<size_t>(k) >= ids.size()) return ids;
  std::vector<int32_t> kept(static_cast<size_t>(k));
  std::partial_sort_copy(ids.begin(), ids.end(), kept.begin(), kept.end(),
                         [&](int32_t a, int32_t b) {
                           const float of_a = weighed.scores[static_cast<size_t>(a)];
                           const float of_b = weighed.scores[static_cast<size_t>(b)];
                           return of_a != of_b ? of_a > of_b : a < b;
                         });
  return kept;
}

/// The fewest, likeliest first, that have the share `p` of what all of `ids` weigh.
void keep_top_p(std::vector<int32_t>& ids, const Weighed& weighed, float p) {
  if (p >= 1) return;
  std::vector<float> weights;
  weights.reserve(ids.size());
  for (const int32_t id : ids) weights.push_back(static_cast<float>(weighed.log_weight(id)));
  const float total =
      kernels::available_kernels().back()->exponentiate(weights.data(), weights.size());
  // All that weigh less than this are within 1 - p together.
  const float least = (1 - p) * total / static_cast<float>(ids.size());
  // By score: weights are rounded, and may be equal where scores are not.
  struct Kept {
    float score;
    int32_t id;
    float weight;
    bool operator<(const Kept& o) const { return score != o.score ? score < o.score : id > o.id; }
  };
  std::vector<Kept> heap;
  for (size_t i = 0; i < ids.size(); ++i) {
    if (weights[i] >= least)
      heap.push_back({weighed.scores[static_cast<size_t>(ids[i])], ids[i], weights[i]});
  }
  std::make_heap(heap.begin(), heap.end());
  ids.clear();
  double sum = 0;
  while (sum < double{p} * total && !heap.empty()) {
    std::pop_heap(heap.begin(), heap.end());
    sum += heap.back().weight;
    ids.push_back(heap.back().id);
    heap.pop_back();
  }
}

void keep_min_p(std::vector<int32_t>& ids, const Weighed& weighed, float fraction) {
  if (fraction == 0) return;
  const double least = kernels::portable_log(fraction);
  std::erase_if(ids, [&](int32_t id) { return weighed.log_weight(id) < least; });
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
  std::vector<float> changed;
  if (options.repetition_penalty != 1)
    changed = penalized(logits, options.repetition_penalty, generated);
  const std::span<const float> scores = changed.empty() ? logits : changed;
  const float best = changed.empty() ? top : largest(scores);
  const auto likeliest = static_cast<int32_t>(std::ranges::find(scores, best) - scores.begin());
  if (options.temperature == 0) return likeliest;

  const Weighed weighed{scores, best, 1.0 / options.temperature};
  Race race(options.seed, position);
  race.enter(likeliest, 0);  // a good start turns most away
  if (options.top_k == 0 && options.top_p == 1 && options.min_p == 0) {
    const auto count = static_cast<int32_t>(scores.size());
    for (int32_t id = 0; id < count; ++id) race.enter(id, weighed.log_weight(id));
    return race.first();
  }
  std::vector<int32_t> kept = keep_top_k(weighed, options.top_k);
  keep_top_p(kept, weighed, options.top_p);
  keep_min_p(kept, weighed, options.min_p);
  for (const int32_t id : kept) race.enter(id, weighed.log_weight(id));
  return race.first();
}

}  // namespace isthmus::engine
