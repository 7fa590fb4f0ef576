// Trellis-coded quantisation (Marcellin and Fischer 1990; entropy-coded with union codebooks as in
// JPEG 2000 part 2 and, with these two sets of levels, as the dependent quantisation of VVC).
//
// Two sets of levels share a step: the even one holds 2 k, the odd one 2 k - sign(k). A state
// machine with eight states that is driven by the parity of the codes says which set comes next,
// so an encoder that looks ahead has a grid twice as fine to choose from at the price of the coarse
// one. The states are those of Ungerboeck's 8-state code (parity check 13, 04).
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "model.h"

namespace isthmus::codec {

inline constexpr size_t kTrellisStates = 8;

struct TrellisState {
  uint8_t odd;                  ///< 1: the odd set of levels
  std::array<uint8_t, 2> next;  ///< after an even and an odd code
};

constexpr std::array<TrellisState, kTrellisStates> make_trellis() {
  std::array<TrellisState, kTrellisStates> states{};
  const auto parity = [](unsigned bits) { return (bits ^ bits >> 1 ^ bits >> 2 ^ bits >> 3) & 1; };
  for (unsigned state = 0; state < kTrellisStates; ++state) {
    for (unsigned input = 0; input < 2; ++input) {
      const unsigned window = state << 1 | input;
      states[state].odd = static_cast<uint8_t>(parity(window & 0b0100));
      states[state].next[parity(window & 0b1011)] = static_cast<uint8_t>(window & 7);
    }
  }
  return states;
}
inline constexpr std::array kTrellis = make_trellis();

/// Level of a code in steps.
constexpr int trellis_level(int code, unsigned odd) {
  const int sign = code > 0 ? 1 : code < 0 ? -1 : 0;
  return 2 * code - (odd != 0 ? sign : 0);
}

/// The tables of one coordinate for the even and the odd set.
using TrellisTables = std::array<const CodeTable*, 2>;

/// Chooses codes with the least error + kLambda * bits, the error in squared steps. Starts in state
/// 0.
/// \param values in steps
/// \param tables one for each value
/// \param bound codes are in [-bound, bound]
void trellis_encode(std::span<const float> values, std::span<const TrellisTables> tables, int bound,
                    std::span<int16_t> codes);

/// Replaces a class' tables by what the encoder makes of the distribution: its choices depend on
/// the tables, so this encodes a few thousand numbers (the same everywhere) a few times. Takes
/// about a quarter of a millisecond.
void fit_trellis_tables(const Distribution& distribution, int code_class, CodeTables& even,
                        CodeTables& odd);

}  // namespace isthmus::codec
