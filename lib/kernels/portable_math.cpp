#include <isthmus/kernels/portable_math.h>

#include <bit>
#include <cstdint>

namespace isthmus::kernels {
namespace {

// Adding and subtracting 1.5 * 2^52 rounds to the nearest integer, which then also stands in the
// low bits of the sum.
constexpr double kRound = 0x1.8p52;

// ln 2 and pi / 2 in two parts. The first parts end in zeros, so that their products with the
// integers that occur are exact.
constexpr double kLn2High = 0x1.62e42fefa38p-1;
constexpr double kLn2Low = 0x1.ef35793c7673p-45;
constexpr double kHalfPiHigh = 0x1.921fb544p+0;
constexpr double kHalfPiLow = 0x1.0b4611a626331p-34;

// Sum of (-1)^k x^(2k) / (first (first + 1) ... ) by Horner's rule: the Taylor series of cosine
// (first = 1) and of sin(x) / x (first = 2).
double alternating_series(double square, int first) {
  constexpr int kTerms = 9;  // on |x| <= pi/4 the next term is below 1e-17
  double sum = 1;
  for (int k = kTerms; k >= 1; --k) {
    const int n = 2 * (k - 1) + first;
    sum = 1 - sum * square / (n * (n + 1));
  }
  return sum;
}

}  // namespace

double portable_exp(double x) {
  if (x < -708) return 0;
  if (x > 709) x = 709;
  const double shifted = x * 0x1.71547652b82fep+0 + kRound;
  const double n = shifted - kRound;
  const double r = (x - n * kLn2High) - n * kLn2Low;
  // Taylor series on |r| <= ln(2) / 2: the next term is below 1e-17.
  double sum = 1;
  for (int k = 13; k >= 1; --k) sum = 1 + sum * r / k;
  const uint64_t exponent = std::bit_cast<uint64_t>(shifted) + 1023;
  return sum * std::bit_cast<double>(exponent << 52);
}

double portable_log(double x) {
  constexpr uint64_t kRootHalf = 0x3fe6a09e667f3bcdULL;  // of sqrt(1/2): x = 2^n m, m from there on
  const uint64_t bits = std::bit_cast<uint64_t>(x);
  const auto n = static_cast<int64_t>(bits - kRootHalf) >> 52;
  const double m = std::bit_cast<double>(bits - (static_cast<uint64_t>(n) << 52U));
  // ln m = 2 artanh s with |s| < 0.1716: the next term is below 2^-60 of the sum.
  const double s = (m - 1) / (m + 1);
  const double square = s * s;
  double sum = 0;
  for (int k = 21; k >= 3; k -= 2) sum = (sum + 1.0 / k) * square;
  const auto scale = static_cast<double>(n);
  return scale * kLn2High + (2 * (s + s * sum) + scale * kLn2Low);
}

SinCos portable_sin_cos(double angle) {
  const double shifted = angle * 0x1.45f306dc9c883p-1 + kRound;
  const double n = shifted - kRound;
  const double r = (angle - n * kHalfPiHigh) - n * kHalfPiLow;
  const double sin = r * alternating_series(r * r, 2);
  const double cos = alternating_series(r * r, 1);
  switch (std::bit_cast<uint64_t>(shifted) & 3) {
    case 0:
      return {sin, cos};
    case 1:
      return {cos, -sin};
    case 2:
      return {-sin, -cos};
    default:
      return {-cos, sin};
  }
}

}  // namespace isthmus::kernels
