#include "coded_row.h"

#include <algorithm>

namespace isthmus::codec {
namespace {

constexpr int kLeastExponent = -100;

// 2^(i / 16)
constexpr std::array<float, 17> kSixteenths = {1.0F,
                                               1.0442737824274138F,
                                               1.0905077326652577F,
                                               1.1387886347566916F,
                                               1.1892071150027210F,
                                               1.2418578120734840F,
                                               1.2968395546510096F,
                                               1.3542555469368927F,
                                               1.4142135623730951F,
                                               1.4768261459394993F,
                                               1.5422108254079407F,
                                               1.6104903319492543F,
                                               1.6817928305074290F,
                                               1.7562521603732995F,
                                               1.8340080864093424F,
                                               1.9152065613971474F,
                                               2.0F};
constexpr double kHalfSixteenth = 1.0218971486541166;  // 2^(1 / 32)

/// The smallest code whose scale times `slack` is at least `value`.
uint32_t least_code(double value, double slack) {
  if (value < std::ldexp(1.0, kLeastExponent)) return 0;
  int exponent = 0;
  const double mantissa = 2 * std::frexp(value, &exponent);  // in [1, 2)
  const auto* const step = std::find_if(kSixteenths.begin(), kSixteenths.end(),
                                        [&](float s) { return mantissa <= double{s} * slack; });
  const int64_t code =
      1 + 16 * static_cast<int64_t>(exponent - 1 - kLeastExponent) + (step - kSixteenths.begin());
  return static_cast<uint32_t>(std::min<int64_t>(code, kMaxScale));
}

}  // namespace

float scale_of(uint32_t code) {
  if (code == 0) return 0;
  const auto sixteenths = static_cast<int>(code - 1);
  return std::ldexp(kSixteenths[static_cast<size_t>(sixteenths % 16)],
                    sixteenths / 16 + kLeastExponent);
}

uint32_t scale_code(double value) {
  return least_code(value, kHalfSixteenth);
}

uint32_t scale_code_above(double value) {
  return least_code(value, 1.0);
}

bool all_below(float limit, std::span<const float> values) {
  return std::all_of(values.begin(), values.end(),
                     [limit](float v) { return std::abs(v) < limit; });
}

float largest_of(std::span<const float> values) {
  float largest = 0;
  for (const float value : values) largest = std::max(largest, std::abs(value));
  return largest;
}

double energy(std::span<const float> values) {
  std::array<double, 8> lanes{};
  size_t i = 0;
  for (; i + 8 <= values.size(); i += 8)
    for (size_t lane = 0; lane < 8; ++lane)
      lanes[lane] += double{values[i + lane]} * double{values[i + lane]};
  for (; i < values.size(); ++i) lanes[i % 8] += double{values[i]} * double{values[i]};
  return ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) +
         ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]));
}

int half_exponent(float largest) {
  constexpr float kRoundsToOne = 0x1.ffep-1F;  // in 11 significant bits
  int exponent = 0;
  if (std::frexp(largest, &exponent) >= kRoundsToOne) ++exponent;
  return std::max(exponent - 15, kLeastHalfExponent);
}

}  // namespace isthmus::codec
