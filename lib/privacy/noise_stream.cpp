#include "noise_stream.h"

#include <sodium.h>

#include <algorithm>
#include <bit>
#include <cstring>

namespace isthmus::privacy {

NoiseStream::NoiseStream(RandomSource& random) : block_{} {
  random.fill(std::as_writable_bytes(std::span(key_)));
}

NoiseStream::~NoiseStream() {
  sodium_memzero(key_.data(), key_.size());
  sodium_memzero(block_.data(), block_.size());
}

void NoiseStream::refill() {
  std::array<unsigned char, crypto_stream_chacha20_NONCEBYTES> nonce{};
  std::memcpy(nonce.data(), &blocks_, sizeof blocks_);
  ++blocks_;
  crypto_stream_chacha20(block_.data(), kBlock, nonce.data(), key_.data());
  position_ = 0;
}

uint64_t NoiseStream::take(unsigned bytes) {
  uint64_t value;
  std::memcpy(&value, block_.data() + position_, sizeof value);
  position_ += bytes;
  return value & (~uint64_t{0} >> (64 - 8 * bytes));
}

uint64_t NoiseStream::below(uint64_t bound) {
  const auto width = static_cast<unsigned>(std::bit_width(bound - 1));
  if (width == 0) return 0;
  const uint64_t mask = ~uint64_t{0} >> (64 - width);
  for (;;) {
    const uint64_t value = next((width + 7) / 8) & mask;
    if (value < bound) return value;
  }
}

/// Adds draws of up to `kLane` trials each, as many at once as lanes of that many bits fit a word.
template <unsigned kLane>
void NoiseStream::add_binomial(unsigned trials, std::span<const uint32_t> thresholds,
                               std::span<int32_t> counts) {
  // One bit of each uniform number at a time, from the highest down: a number is decided at the
  // first bit that differs from its threshold's. Half of the undecided are decided in each step
  // whatever the threshold is, so the time taken tells nothing about the row.
  constexpr size_t kLanes = 64 / kLane;
  constexpr uint64_t kFull = ~uint64_t{0} >> (64 - kLane);
  const uint64_t lane = ~uint64_t{0} >> (64 - trials);
  for (size_t begin = 0; begin < counts.size(); begin += kLanes) {
    const size_t used = std::min(kLanes, counts.size() - begin);
    std::array<uint64_t, kLanes> threshold{};
    uint64_t undecided = 0;
    for (size_t i = 0; i < used; ++i) {
      threshold[i] = thresholds[begin + i];
      undecided |= lane << (i * kLane);
    }
    uint64_t successes = 0;
    for (int bit = 31; bit >= 0 && undecided != 0; --bit) {
      uint64_t limit = 0;
      for (size_t i = 0; i < kLanes; ++i) limit |= ((threshold[i] >> bit) & 1) << (i * kLane);
      limit *= kFull;  // a lane of ones for each threshold with this bit
      const uint64_t drawn = next(8);
      successes |= undecided & limit & ~drawn;
      undecided &= ~(limit ^ drawn);
    }
    for (size_t i = 0; i < used; ++i)
      counts[begin + i] += std::popcount((successes >> (i * kLane)) & kFull);
  }
}

void NoiseStream::binomial(unsigned trials, std::span<const uint32_t> thresholds,
                           std::span<int32_t> counts) {
  std::fill(counts.begin(), counts.end(), 0);
  for (; trials > 64; trials -= 64) add_binomial<64>(64, thresholds, counts);
  if (trials > 32) return add_binomial<64>(trials, thresholds, counts);
  if (trials > 16) return add_binomial<32>(trials, thresholds, counts);
  if (trials > 8) return add_binomial<16>(trials, thresholds, counts);
  add_binomial<8>(trials, thresholds, counts);
}

bool NoiseStream::exponential_coin(uint64_t numerator, uint64_t denominator) {
  // exp(-x) = exp(-1) ... exp(-1) exp(-fraction).
  for (; numerator > denominator; numerator -= denominator)
    if (!exponential_coin(1, 1)) return false;
  uint64_t tries = 1;
  while (below(denominator * tries) < numerator) ++tries;
  return tries % 2 == 1;
}

int64_t NoiseStream::discrete_laplace(uint64_t scale) {
  for (;;) {
    const uint64_t fine = below(scale);
    if (!exponential_coin(fine, scale)) continue;
    uint64_t coarse = 0;
    while (exponential_coin(1, 1)) ++coarse;
    const auto magnitude = static_cast<int64_t>(fine + scale * coarse);
    const bool negative = next(1) % 2 == 1;
    if (negative && magnitude == 0) continue;  // or zero would come twice as often
    return negative ? -magnitude : magnitude;
  }
}

int64_t NoiseStream::discrete_gaussian(uint64_t sigma) {
  for (;;) {
    const int64_t proposal = discrete_laplace(sigma);
    const auto magnitude = static_cast<uint64_t>(proposal < 0 ? -proposal : proposal);
    // exp(-(|y| - sigma)^2 / 2 sigma^2) is below e^-1900 here; this keeps the square in 64 bits.
    if (magnitude > 64 * sigma) continue;
    const uint64_t away = magnitude > sigma ? magnitude - sigma : sigma - magnitude;
    if (exponential_coin(away * away, 2 * sigma * sigma)) return proposal;
  }
}

}  // namespace isthmus::privacy
