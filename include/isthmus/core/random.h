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

/// A uniform number in [0, 1) with 53 random bits that depends on nothing but its arguments
/// (two rounds of the SplitMix64 finaliser; Steele, Lea and Flood, OOPSLA 2014).
[[nodiscard]] double counter_uniform(uint64_t seed, uint64_t position);

}  // namespace isthmus
