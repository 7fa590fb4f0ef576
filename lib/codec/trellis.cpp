#include "trellis.h"

#include <isthmus/core/random.h>

#include <algorithm>
#include <cmath>
#include <limits>

namespace isthmus::codec {
namespace {

// Squared steps that a bit is worth: the slope of the quantiser's own rate-distortion curve, 2 ln 2
// times its error of about 0.23 squared steps.
constexpr float kLambda = 0.32F;

struct Candidate {
  float cost;
  int16_t code;
};

/// The better codes of either parity for one value and one set of levels.
std::array<Candidate, 2> candidates(float magnitude, int sign, unsigned odd, const CodeTable& table,
                                    int bound) {
  const auto candidate = [&](int code) -> Candidate {
    const float error = magnitude - static_cast<float>(trellis_level(code, odd));
    return {error * error + kLambda * table.cost(sign * code), static_cast<int16_t>(sign * code)};
  };
  const float place =
      std::min(magnitude * 0.5F + (odd != 0 ? 0.5F : 0.0F), static_cast<float>(bound - 1));
  const auto below = static_cast<int>(place);
  const Candidate low = candidate(below);
  const Candidate high = candidate(below + 1);
  std::array<Candidate, 2> best = (below & 1) == 0 ? std::array{low, high} : std::array{high, low};
  if (below > 0 && below < 3) {
    if (const Candidate zero = candidate(0); zero.cost < best[0].cost) best[0] = zero;
  }
  return best;
}

// Four states at a time. A state is reached from those with half its number, with or without 4
// added; which parity leads there is a constant of the pair.
using Floats = float __attribute__((vector_size(16)));
using Bits = int32_t __attribute__((vector_size(16)));

/// Which of the four (set, parity) costs belongs to the way from `from` to `to`.
constexpr int32_t choice_of(size_t from, size_t to) {
  return 2 * kTrellis[from].odd + (kTrellis[from].next[1] == to ? 1 : 0);
}

/// The costs of the ways to states First ... First + 3 from states From and From + 1.
template <size_t First, size_t From>
Floats ways(Floats choices) {
  return __builtin_shufflevector(choices, choices, choice_of(From, First),
                                 choice_of(From, First + 1), choice_of(From + 1, First + 2),
                                 choice_of(From + 1, First + 3));
}

/// What is known of one value on the way back.
struct Step {
  std::array<Bits, 2> from_upper;  // for each state: whether it is reached from the upper half
  std::array<int16_t, 4> codes;    // [odd][parity]
};

/// Advances the costs of reaching each state by one value.
void advance(std::array<Floats, 2>& costs, Floats choices, Step& step) {
  const auto low = [](Floats v) { return __builtin_shufflevector(v, v, 0, 0, 1, 1); };
  const auto high = [](Floats v) { return __builtin_shufflevector(v, v, 2, 2, 3, 3); };
  const std::array from_lower = {low(costs[0]) + ways<0, 0>(choices),
                                 high(costs[0]) + ways<4, 2>(choices)};
  const std::array from_upper = {low(costs[1]) + ways<0, 4>(choices),
                                 high(costs[1]) + ways<4, 6>(choices)};
  for (size_t half = 0; half < 2; ++half) {
    step.from_upper[half] = from_upper[half] < from_lower[half];
    costs[half] = from_upper[half] < from_lower[half] ? from_upper[half] : from_lower[half];
  }
}

/// Codes along the best path, from the last to the first.
void trace_back(std::span<const Step> steps, size_t state, std::span<int16_t> codes) {
  for (size_t i = steps.size(); i-- > 0;) {
    const bool upper = steps[i].from_upper[state / 4][state % 4] != 0;
    const size_t from = state / 2 + (upper ? kTrellisStates / 2 : 0);
    codes[i] = steps[i].codes[static_cast<size_t>(choice_of(from, state))];
    state = from;
  }
}

}  // namespace

void trellis_encode(std::span<const float> values, std::span<const TrellisTables> tables, int bound,
                    std::span<int16_t> codes) {
  constexpr float kNever = 1e30F;
  // Costs are taken back to near 0 so often, so that long rows lose no precision.
  constexpr size_t kRebase = 64;
  std::array<Floats, 2> costs = {Floats{0, kNever, kNever, kNever},
                                 Floats{kNever, kNever, kNever, kNever}};
  std::vector<Step> steps(values.size());
  for (size_t i = 0; i < values.size(); ++i) {
    const float magnitude = std::abs(values[i]);
    const int sign = values[i] < 0 ? -1 : 1;
    const auto even = candidates(magnitude, sign, 0, *tables[i][0], bound);
    const auto odd = candidates(magnitude, sign, 1, *tables[i][1], bound);
    steps[i].codes = {even[0].code, even[1].code, odd[0].code, odd[1].code};
    advance(costs, Floats{even[0].cost, even[1].cost, odd[0].cost, odd[1].cost}, steps[i]);
    if (i % kRebase == kRebase - 1) {
      const float base = costs[0][0];
      costs[0] -= base;
      costs[1] -= base;
    }
  }
  size_t best = 0;
  for (size_t state = 1; state < kTrellisStates; ++state)
    if (costs[state / 4][state % 4] < costs[best / 4][best % 4]) best = state;
  trace_back(steps, best, codes);
}

namespace {

/// Numbers with the distribution's quantiles, in an order that looks random.
std::vector<float> sample(const Distribution& distribution, double ratio) {
  constexpr size_t kHalf = 2048;
  std::vector<std::pair<double, float>> keyed;
  for (size_t i = 0; i < 2 * kHalf; ++i) {
    const size_t pair = i / 2;
    const double p = 0.5 * (static_cast<double>(pair) + 0.5) / kHalf;
    const double value = ratio * distribution.quantile(p) * (i % 2 == 0 ? 1 : -1);
    keyed.emplace_back(counter_uniform(0, i), static_cast<float>(value));
  }
  std::sort(keyed.begin(), keyed.end());
  std::vector<float> values(keyed.size());
  std::transform(keyed.begin(), keyed.end(), values.begin(),
                 [](const auto& entry) { return entry.second; });
  return values;
}

/// Adds a code and its mirror image to the symbols' weights.
void count(const CodeTable& table, int code, std::vector<double>& weights) {
  for (const int mirrored : {code, -code})
    weights[table.escapes(mirrored) ? weights.size() - 1 : table.symbol(mirrored)] += 1;
}

}  // namespace

void fit_trellis_tables(const Distribution& distribution, int code_class, CodeTables& even,
                        CodeTables& odd) {
  // With more levels than this in the standard deviation the tables are good as they are.
  constexpr double kMostRatio = 8;
  constexpr int kRounds = 3;
  constexpr double kPrior = 0.02;  // of what was counted: the first tables, where nothing was seen
  constexpr int kUnbounded = 30'000;
  const double ratio = ratio_of(code_class);
  if (ratio > kMostRatio) return;
  const std::vector<float> values = sample(distribution, ratio);
  std::vector<int16_t> codes(values.size());
  const std::array<CodeTable, 2> first = {even[code_class], odd[code_class]};
  for (int round = 0; round < kRounds; ++round) {
    const std::array<const CodeTable*, 2> current = {&even[code_class], &odd[code_class]};
    const std::vector<TrellisTables> tables(values.size(), current);
    trellis_encode(values, tables, kUnbounded, codes);
    std::array<std::vector<double>, 2> weights;
    for (size_t set = 0; set < 2; ++set) {
      const FrequencyTable& prior = first[set].frequencies;
      for (size_t symbol = 0; symbol < prior.size(); ++symbol)
        weights[set].push_back(kPrior * prior[symbol].frequency);
    }
    size_t state = 0;
    for (const int16_t code : codes) {
      const size_t set = kTrellis[state].odd;
      count(*current[set], code, weights[set]);
      state = kTrellis[state].next[static_cast<size_t>(code & 1)];
    }
    even.replace(code_class, CodeTable(first[0], weights[0]));
    odd.replace(code_class, CodeTable(first[1], weights[1]));
  }
}

}  // namespace isthmus::codec
