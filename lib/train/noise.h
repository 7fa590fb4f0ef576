// Noise that can be drawn again: for training alone. What protects anyone comes from SystemRandom.
#pragma once

#include <isthmus/core/random.h>
#include <cstdint>
#include <mutex>

namespace isthmus::train {

/// What a random number is for; each has a stream of its own.
enum class Purpose : uint8_t { kWindow, kPrefix, kNoise, kValidation };

/// The seed of a run's stream.
[[nodiscard]] constexpr uint64_t stream(uint64_t seed, Purpose purpose) {
  return seed * 4 + static_cast<uint64_t>(purpose);
}

/// ChaCha20 keyed by (seed, draw): the stream starts again at every `restart`.
class NamedNoise final : public RandomSource {
 public:
  void restart(uint64_t seed, uint64_t draw);
  void fill(std::span<std::byte> bytes) override;

 private:
  std::mutex mutex_;
  uint64_t seed_ = 0;
  uint64_t draw_ = 0;
  uint64_t block_ = 0;  // calls of `fill` since
};

}  // namespace isthmus::train
