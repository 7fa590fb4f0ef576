// The random bits of one row, and exact draws from them: every probability here is a ratio of
// integers that the accounting uses as it stands, never a comparison of floating-point numbers.
#pragma once

#include <isthmus/core/random.h>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace isthmus::privacy {

/// ChaCha20 under a fresh key from `random`, wiped at the end. One per row: a system call for each
/// draw would cost more than the draw. Not thread-safe.
class NoiseStream {
 public:
  explicit NoiseStream(RandomSource& random);
  ~NoiseStream();
  NoiseStream(const NoiseStream&) = delete;
  NoiseStream& operator=(const NoiseStream&) = delete;

  /// Uniform in [0, 2^(8 bytes)), 1 <= bytes <= 8.
  [[nodiscard]] uint64_t next(unsigned bytes) {
    if (position_ + bytes > kBlock) refill();
    return take(bytes);
  }

  /// Uniform in [0, bound), bound >= 1.
  [[nodiscard]] uint64_t below(uint64_t bound);

  /// counts[i] is drawn from Binomial(trials, thresholds[i] / 2^32): how many of `trials` uniform
  /// 32-bit numbers are below the threshold. 1 <= trials <= 255.
  void binomial(unsigned trials, std::span<const uint32_t> thresholds, std::span<int32_t> counts);

  /// True with probability exp(-numerator / denominator) (Canonne, Kamath, Steinke 2020,
  /// Algorithm 1).
  [[nodiscard]] bool exponential_coin(uint64_t numerator, uint64_t denominator);

  /// k with probability proportional to exp(-k^2 / 2 sigma^2) (same, Algorithms 2 and 3). `sigma`
  /// is a power of two of at most 2^14.
  [[nodiscard]] int64_t discrete_gaussian(uint64_t sigma);

 private:
  void refill();
  [[nodiscard]] uint64_t take(unsigned bytes);
  [[nodiscard]] int64_t discrete_laplace(uint64_t scale);
  template <unsigned kLane>
  void add_binomial(unsigned trials, std::span<const uint32_t> thresholds,
                    std::span<int32_t> counts);

  static constexpr size_t kBlock = 2048;
  std::array<unsigned char, 32> key_;
  std::array<unsigned char, kBlock + 8> block_;  // 8 more, so that a read of 8 stays inside
  size_t position_ = kBlock;
  uint64_t blocks_ = 0;
};

}  // namespace isthmus::privacy
