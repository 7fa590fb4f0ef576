#include "noise_stream.h"

#include <sodium.h>

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

unsigned NoiseStream::binomial(unsigned trials, uint32_t threshold) {
  // All trials at once, one bit of each number at a time from the highest down: a number is decided
  // at the first bit that differs from the threshold's. Half of the undecided are decided in each
  // step whatever the threshold is, so the time taken tells nothing about the row.
  const unsigned bytes = (trials + 7) / 8;
  uint64_t undecided = ~uint64_t{0} >> (64 - trials);
  uint64_t successes = 0;
  for (int bit = 31; bit >= 0 && undecided != 0; --bit) {
    const uint64_t drawn = next(bytes);
    const uint64_t limit = uint64_t{0} - ((threshold >> bit) & 1);
    successes |= undecided & limit & ~drawn;
    undecided &= ~(limit ^ drawn);
  }
  return static_cast<unsigned>(std::popcount(successes));
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
