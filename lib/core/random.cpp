#include <isthmus/core/random.h>
#include <sodium.h>

#include <array>
#include <cstring>

namespace isthmus {

uint64_t RandomSource::next_u64() {
  std::array<std::byte, sizeof(uint64_t)> bytes;
  fill(bytes);
  uint64_t value;
  std::memcpy(&value, bytes.data(), sizeof value);
  return value;
}

void SystemRandom::fill(std::span<std::byte> bytes) {
  randombytes_buf(bytes.data(), bytes.size());
}

}  // namespace isthmus
