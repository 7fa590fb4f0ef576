// Two kinds of randomness that must never be confused.
//
// RandomSource: unpredictable bytes (session ids, keys, privacy noise).
// counter_uniform: reproducible numbers named by (seed, position), so that sampling a token gives
// the same answer wherever and however often it is done. It is statistical, not cryptographic.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace isthmus {

/// A source of unpredictable bytes. Thread-safe.
class RandomSource {
 public:
  virtual ~RandomSource() = default;
  virtual void fill(std::span<std::byte> bytes) = 0;
  /// Eight bytes as a number.
  [[nodiscard]] uint64_t next_u64();
};

/// The operating system's cryptographic generator (libsodium).
class SystemRandom final : public RandomSource {
 public:
  void fill(std::span<std::byte> bytes) override;
};

/// 64 random bits for each position that depend on nothing but the seed and the position (two
/// rounds of the SplitMix64 finaliser; Steele, Lea and Flood, OOPSLA 2014).
class CounterRandom {
 public:
  explicit constexpr CounterRandom(uint64_t seed) : base_(mix(seed + kGolden)) {}
  [[nodiscard]] constexpr uint64_t bits(uint64_t position) const {
    return mix(base_ + (position + 1) * kGolden);
  }

 private:
  static constexpr uint64_t kGolden = 0x9e3779b97f4a7c15ULL;
  static constexpr uint64_t mix(uint64_t x) {
    x = (x ^ (x >> 30U)) * 0xbf58476d1ce4e5b9ULL;
    x = (x ^ (x >> 27U)) * 0x94d049bb133111ebULL;
    return x ^ (x >> 31U);
  }
  uint64_t base_;
};

/// A uniform number in [0, 1): the first 53 of those bits.
[[nodiscard]] constexpr double counter_uniform(uint64_t seed, uint64_t position) {
  return static_cast<double>(CounterRandom(seed).bits(position) >> 11U) * 0x1.0p-53;
}

}  // namespace isthmus
