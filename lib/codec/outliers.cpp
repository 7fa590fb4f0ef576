#include "outliers.h"

#include <isthmus/kernels/dtype.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <functional>
#include <numeric>

namespace isthmus::codec {
namespace {

constexpr unsigned kExponentBits = 8;  // of the outliers' common scale
constexpr int kExponentBias = -kLeastHalfExponent;
constexpr unsigned kMantissaBits = 10;  // binary16
constexpr uint32_t kInfinite = 0x1f;    // binary16's exponent of what is not finite
constexpr size_t kFew = 8;
// A typical number of outliers where the count is not fixed.
constexpr double kTypicalCount = 4;

/// Above a threshold there are at most an eighth of the row: what is left must be enough to compare
/// with.
uint32_t most_outliers(const Split& split, size_t width) {
  if (split.count > 0) return static_cast<uint32_t>(std::min<size_t>(split.count, width));
  return static_cast<uint32_t>(std::min<size_t>(Split::kMaxCount, (width + 7) / 8));
}

/// Without outliers most of the time, and each further one half as likely.
std::vector<double> count_weights(uint32_t most) {
  std::vector<double> weights = {7};
  for (uint32_t n = 1; n <= most; ++n) weights.push_back(std::ldexp(1.0, -static_cast<int>(n)));
  return weights;
}

/// Distances between `count` positions drawn at random, by bit width: 0, 1, 2 to 3, 4 to 7, ...
std::vector<double> gap_weights(double count, size_t width) {
  const double stay = 1 - std::min(count / static_cast<double>(width), 0.5);
  std::vector<double> weights = {1 - stay};
  double reached = stay;  // P(distance >= 2^(k-1)), from k = 1 on
  for (size_t least = 1; least < width; least *= 2) {
    const double beyond = reached * (least == 1 ? stay : reached);
    weights.push_back(reached - beyond);
    reached = beyond;
  }
  return weights;
}

std::vector<double> exponent_weights() {
  std::vector<double> weights;
  double weight = 1;
  for (uint32_t i = 0; i <= kInfinite; ++i, weight *= 0.6) weights.push_back(weight);
  return weights;
}

uint32_t exponent_for(float largest) {
  return static_cast<uint32_t>(half_exponent(largest) + kExponentBias);
}

float scale_for(uint32_t exponent) {
  return std::ldexp(1.0F, static_cast<int>(exponent) - kExponentBias);
}

// Both find the positions of the largest magnitudes in falling order, ties to the lower position.

/// A sorted list that is seldom added to: the fastest way for a few.
size_t find_few(std::span<const float> row, std::span<uint32_t> largest) {
  size_t held = 0;
  float least = -1;
  for (uint32_t i = 0; i < row.size(); ++i) {
    const float magnitude = std::abs(row[i]);
    if (held == largest.size() && magnitude <= least) continue;
    size_t at = held < largest.size() ? held++ : held - 1;
    for (; at > 0 && std::abs(row[largest[at - 1]]) < magnitude; --at)
      largest[at] = largest[at - 1];
    largest[at] = i;
    if (held == largest.size()) least = std::abs(row[largest[held - 1]]);
  }
  return held;
}

size_t find_many(std::span<const float> row, std::span<uint32_t> largest) {
  // Magnitude above, position below: magnitudes are in the order of their bits.
  std::vector<uint64_t> keys(row.size());
  for (size_t i = 0; i < row.size(); ++i)
    keys[i] = uint64_t{std::bit_cast<uint32_t>(std::abs(row[i]))} << 32 | (UINT32_MAX - i);
  const auto end =
      keys.begin() + static_cast<std::ptrdiff_t>(std::min(largest.size(), keys.size()));
  if (end != keys.end()) std::nth_element(keys.begin(), end, keys.end(), std::greater<>());
  std::sort(keys.begin(), end, std::greater<>());
  std::transform(keys.begin(), end, largest.begin(),
                 [](uint64_t key) { return UINT32_MAX - static_cast<uint32_t>(key); });
  return static_cast<size_t>(end - keys.begin());
}

}  // namespace

OutlierSplitter::OutlierSplitter(const Split& split, size_t width)
    : split_(split),
      width_(width),
      most_(most_outliers(split, width)),
      position_bits_(static_cast<unsigned>(std::bit_width(width - 1))),
      count_bits_(split.count > 0 ? 0 : static_cast<unsigned>(std::bit_width(most_))),
      counts_(count_weights(most_)),
      gaps_(gap_weights(split.count > 0 ? most_ : kTypicalCount, width)),
      exponents_(exponent_weights()) {}

size_t OutlierSplitter::count_above_threshold(std::span<const float> row,
                                              std::span<const uint32_t> candidates) const {
  // The most outliers of which each is above the threshold of what they leave behind. Adding from
  // the smallest up avoids the difference of huge sums.
  double rest = energy(row);
  for (const uint32_t c : candidates) rest -= double{row[c]} * double{row[c]};
  rest = std::max(rest, 0.0);
  const double threshold2 = double{split_.threshold} * double{split_.threshold};
  for (size_t n = candidates.size(); n > 0; --n) {
    const double value = row[candidates[n - 1]];
    const auto left = static_cast<double>(row.size() - n);
    if (value * value * left > threshold2 * rest) return n;
    rest += value * value;
  }
  return 0;
}

void OutlierSplitter::take(std::span<float> row, Outliers& outliers) const {
  std::array<uint32_t, Split::kMaxCount> largest{};
  const size_t held = most_ <= kFew ? find_few(row, std::span(largest).first(most_))
                                    : find_many(row, std::span(largest).first(most_));
  const size_t count =
      split_.count > 0 ? held : count_above_threshold(row, std::span(largest).first(held));
  outliers.count = static_cast<uint32_t>(count);
  outliers.exponent = count > 0 ? exponent_for(std::abs(row[largest[0]])) : 0;
  const float scale = scale_for(outliers.exponent);
  std::sort(largest.begin(), largest.begin() + static_cast<std::ptrdiff_t>(count));
  for (size_t n = 0; n < count; ++n) {
    outliers.positions[n] = static_cast<uint16_t>(largest[n]);
    outliers.values[n] = kernels::f16_from_float(row[largest[n]] / scale);
    row[largest[n]] = 0;
  }
}

void OutlierSplitter::put_back(const Outliers& outliers, std::span<float> row) const {
  const float scale = scale_for(outliers.exponent);
  for (size_t n = 0; n < outliers.count; ++n)
    row[outliers.positions[n]] += kernels::float_from_f16(outliers.values[n]) * scale;
}

size_t OutlierSplitter::packed_bits(size_t count) const {
  return count_bits_ + (count > 0 ? kExponentBits : 0) + count * (position_bits_ + 16);
}

void OutlierSplitter::write(const Outliers& outliers, BitWriter& bits) const {
  if (count_bits_ > 0) bits.put(outliers.count, count_bits_);
  if (outliers.count > 0) bits.put(outliers.exponent, kExponentBits);
  for (size_t n = 0; n < outliers.count; ++n) {
    bits.put(outliers.positions[n], position_bits_);
    bits.put(outliers.values[n], 16);
  }
}

void OutlierSplitter::write(const Outliers& outliers, RansEncoder& encoder) const {
  if (count_bits_ > 0) encoder.symbol(counts_, outliers.count);
  if (outliers.count > 0) encoder.bits(outliers.exponent, kExponentBits);
  uint32_t next = 0;
  for (size_t n = 0; n < outliers.count; ++n) {
    const uint32_t gap = outliers.positions[n] - next;
    const auto width = static_cast<unsigned>(std::bit_width(gap));
    encoder.symbol(gaps_, width);
    if (width > 1) encoder.bits(gap - (1U << (width - 1)), width - 1);
    next = outliers.positions[n] + 1U;
    const uint32_t value = outliers.values[n];
    encoder.symbol(exponents_, kInfinite - (value >> kMantissaBits & kInfinite));
    encoder.bits((value >> 15) << kMantissaBits | (value & 0x3ff), kMantissaBits + 1);
  }
}

bool OutlierSplitter::read(BitReader& bits, Outliers& outliers) const {
  outliers.count = count_bits_ > 0 ? bits.get(count_bits_) : most_;
  if (outliers.count > most_) return false;
  outliers.exponent = outliers.count > 0 ? bits.get(kExponentBits) : 0;
  uint32_t next = 0;
  for (size_t n = 0; n < outliers.count; ++n) {
    const uint32_t position = bits.get(position_bits_);
    if (position < next || position >= width_) return false;
    outliers.positions[n] = static_cast<uint16_t>(position);
    outliers.values[n] = static_cast<uint16_t>(bits.get(16));
    if ((outliers.values[n] >> kMantissaBits & kInfinite) == kInfinite) return false;
    next = position + 1;
  }
  return true;
}

bool OutlierSplitter::read(RansDecoder& decoder, Outliers& outliers) const {
  outliers.count = count_bits_ > 0 ? decoder.symbol(counts_) : most_;
  outliers.exponent = outliers.count > 0 ? decoder.bits(kExponentBits) : 0;
  uint32_t next = 0;
  for (size_t n = 0; n < outliers.count; ++n) {
    const unsigned width = decoder.symbol(gaps_);
    const uint32_t gap = width > 1 ? (1U << (width - 1)) + decoder.bits(width - 1) : width;
    const uint32_t position = next + gap;
    const uint32_t exponent = kInfinite - decoder.symbol(exponents_);
    const uint32_t rest = decoder.bits(kMantissaBits + 1);
    if (position >= width_ || exponent == kInfinite) return false;
    outliers.positions[n] = static_cast<uint16_t>(position);
    outliers.values[n] = static_cast<uint16_t>((rest >> kMantissaBits) << 15 |
                                               exponent << kMantissaBits | (rest & 0x3ff));
    next = position + 1;
  }
  return true;
}

}  // namespace isthmus::codec
