#include "trellis.h"

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
std::array<Candidate, 2> candidates(float value, unsigned odd, const CodeTable& table, int bound) {
  const float magnitude = std::abs(value);
  const int sign = value < 0 ? -1 : 1;
  const auto candidate = [&](int code) -> Candidate {
    const float error = magnitude - static_cast<float>(trellis_level(code, odd));
    return {error * error + kLambda * table.cost(sign * code), static_cast<int16_t>(sign * code)};
  };
  const float place =
      std::min(magnitude * 0.5F + (odd != 0 ? 0.5F : 0.0F), static_cast<float>(bound - 1));
  const auto below = static_cast<int>(place);
  std::array<Candidate, 2> best{};
  best[static_cast<size_t>(below & 1)] = candidate(below);
  best[static_cast<size_t>(~below & 1)] = candidate(below + 1);
  if (below > 0 && below < 3) {
    if (const Candidate zero = candidate(0); zero.cost < best[0].cost) best[0] = zero;
  }
  return best;
}

// How the best path to a state got there.
struct Step {
  uint8_t from;
  int16_t code;
};

}  // namespace

void trellis_encode(std::span<const float> values, std::span<const TrellisTables> tables, int bound,
                    std::span<int16_t> codes) {
  constexpr float kNever = std::numeric_limits<float>::infinity();
  std::array<float, kTrellisStates> costs{};
  costs.fill(kNever);
  costs[0] = 0;
  std::vector<std::array<Step, kTrellisStates>> steps(values.size());
  for (size_t i = 0; i < values.size(); ++i) {
    const std::array<std::array<Candidate, 2>, 2> choices = {
        candidates(values[i], 0, *tables[i][0], bound),
        candidates(values[i], 1, *tables[i][1], bound)};
    std::array<float, kTrellisStates> reached{};
    reached.fill(kNever);
    for (size_t state = 0; state < kTrellisStates; ++state) {
      for (size_t parity = 0; parity < 2; ++parity) {
        const Candidate& choice = choices[kTrellis[state].odd][parity];
        const size_t next = kTrellis[state].next[parity];
        const float cost = costs[state] + choice.cost;
        if (cost < reached[next]) {
          reached[next] = cost;
          steps[i][next] = {static_cast<uint8_t>(state), choice.code};
        }
      }
    }
    // Costs are kept small, so that long rows lose no precision.
    const float least = *std::min_element(reached.begin(), reached.end());
    for (size_t state = 0; state < kTrellisStates; ++state) costs[state] = reached[state] - least;
  }
  auto state = static_cast<size_t>(std::min_element(costs.begin(), costs.end()) - costs.begin());
  for (size_t i = values.size(); i-- > 0;) {
    codes[i] = steps[i][state].code;
    state = steps[i][state].from;
  }
}

}  // namespace isthmus::codec
