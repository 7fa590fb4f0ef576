#include "rans.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <numeric>

namespace isthmus::codec {
namespace {

constexpr uint32_t kTotal = 1U << FrequencyTable::kBits;

/// Frequencies close to the weights, at least 1 each, that sum to kTotal. What rounding leaves over
/// goes to the most frequent symbol or comes from the most frequent ones.
std::vector<uint32_t> frequencies(std::span<const double> weights) {
  const double sum = std::accumulate(weights.begin(), weights.end(), 0.0);
  std::vector<uint32_t> result(weights.size());
  int64_t left = kTotal;
  for (size_t i = 0; i < weights.size(); ++i) {
    result[i] =
        std::max<uint32_t>(1, static_cast<uint32_t>(std::floor(weights[i] / sum * kTotal + 0.5)));
    left -= result[i];
  }
  while (left != 0) {
    uint32_t& largest = *std::max_element(result.begin(), result.end());
    const int64_t change = std::max<int64_t>(left, -static_cast<int64_t>(largest / 2));
    largest = static_cast<uint32_t>(largest + change);
    left -= change;
  }
  return result;
}

/// log2(4096 / frequency) to 2^-16, from basic operations alone: an encoder's choices depend on it,
/// and they should be the same on every machine.
float bits_of(uint32_t frequency) {
  const int whole = std::bit_width(frequency) - 1;
  double rest = static_cast<double>(frequency) / static_cast<double>(1U << whole);  // in [1, 2)
  double bits = whole;
  for (double place = 0.5; place >= 0x1p-16; place /= 2) {
    rest *= rest;
    if (rest < 2) continue;
    rest /= 2;
    bits += place;
  }
  return static_cast<float>(FrequencyTable::kBits - bits);
}

FrequencyTable::Symbol make_symbol(uint32_t frequency, uint32_t start) {
  // With s = ceil(log2 f) and r = ceil(2^(31+s) / f): x r / 2^(31+s) is above x / f by less than
  // x / 2^31 / f < 1 / f, too little to reach the next integer.
  const auto s = static_cast<uint32_t>(std::bit_width(frequency - 1));
  const uint64_t power = uint64_t{1} << (31 + s);
  return {.reciprocal = (power + frequency - 1) / frequency,
          .shift = 31 + s,
          .frequency = static_cast<uint16_t>(frequency),
          .start = static_cast<uint16_t>(start)};
}

}  // namespace

FrequencyTable::FrequencyTable(std::span<const double> weights) {
  uint32_t start = 0;
  for (const uint32_t frequency : frequencies(weights)) {
    std::fill_n(lookup_.begin() + start, frequency, static_cast<uint8_t>(symbols_.size()));
    symbols_.push_back(make_symbol(frequency, start));
    costs_.push_back(bits_of(frequency));
    start += frequency;
  }
}

unsigned RansEncoder::finish(uint32_t carried, std::vector<std::byte>& bytes) {
  uint32_t state = kRansLeast + carried;
  std::vector<uint16_t> words;  // the last one written is the first one read
  words.reserve(items_.size());
  const auto make_room = [&](uint32_t limit) {
    if (state < limit) return;
    words.push_back(static_cast<uint16_t>(state));
    state >>= 16;
  };
  for (auto item = items_.rbegin(); item != items_.rend(); ++item) {
    if (item->symbol == nullptr) {
      const unsigned count = item->raw >> 16;
      make_room(1U << (31 - count));
      state = state << count | (item->raw & 0xffff);
      continue;
    }
    const FrequencyTable::Symbol& symbol = *item->symbol;
    make_room(uint32_t{symbol.frequency} << (31 - FrequencyTable::kBits));
    const auto quotient = static_cast<uint32_t>((state * symbol.reciprocal) >> symbol.shift);
    // quotient * 2^12 + remainder + start
    state += quotient * (kTotal - symbol.frequency) + symbol.start;
  }
  const unsigned state_bytes = state >= 1U << 24 ? 4 : state >= 1U << 16 ? 3 : 2;
  for (unsigned i = 0; i < state_bytes; ++i)
    bytes.push_back(static_cast<std::byte>(state >> 8 * i));
  for (auto word = words.rbegin(); word != words.rend(); ++word) {
    bytes.push_back(static_cast<std::byte>(*word));
    bytes.push_back(static_cast<std::byte>(*word >> 8));
  }
  return state_bytes;
}

RansDecoder::RansDecoder(std::span<const std::byte> bytes, unsigned state_bytes)
    : bytes_(bytes), position_(std::min<size_t>(bytes.size(), state_bytes)) {
  overrun_ = bytes.size() < state_bytes;
  for (size_t i = 0; i < position_; ++i) state_ |= std::to_integer<uint32_t>(bytes[i]) << 8 * i;
  // No encoder writes such states; with them the others' arithmetic could not be relied on.
  if (state_ < kRansLeast || state_ >= 1U << 31) {
    overrun_ = true;
    state_ = kRansLeast;
  }
}

uint32_t RansDecoder::next_word() {
  if (bytes_.size() - position_ < 2) {
    overrun_ = true;
    return 0;
  }
  const uint32_t word = std::to_integer<uint32_t>(bytes_[position_]) |
                        std::to_integer<uint32_t>(bytes_[position_ + 1]) << 8;
  position_ += 2;
  return word;
}

}  // namespace isthmus::codec
