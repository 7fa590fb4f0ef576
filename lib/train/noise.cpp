#include "noise.h"

#include <sodium.h>

#include <array>
#include <cstring>

namespace isthmus::train {

void NamedNoise::restart(uint64_t seed, uint64_t draw) {
  const std::lock_guard lock(mutex_);
  seed_ = seed;
  draw_ = draw;
  block_ = 0;
}

void NamedNoise::fill(std::span<std::byte> bytes) {
  const std::lock_guard lock(mutex_);
  std::array<unsigned char, randombytes_SEEDBYTES> key{};
  const std::array numbers = {seed_, draw_, block_++};
  static_assert(sizeof numbers <= sizeof key);
  std::memcpy(key.data(), numbers.data(), sizeof numbers);
  randombytes_buf_deterministic(bytes.data(), bytes.size(), key.data());
}

}  // namespace isthmus::train
