// Bytes that a seed decides, for tests whose outcome must not depend on chance. Tests only: nothing
// under lib/ or tools/ may see this header.
#pragma once

#include <isthmus/core/random.h>
#include <cstring>

namespace isthmus::test {

class SeededRandom final : public RandomSource {
 public:
  explicit SeededRandom(uint64_t seed) : state_(seed) {}

  void fill(std::span<std::byte> bytes) override {
    for (size_t i = 0; i < bytes.size(); i += sizeof(uint64_t)) {
      const uint64_t value = next();
      std::memcpy(bytes.data() + i, &value, std::min(sizeof value, bytes.size() - i));
    }
  }

 private:
  /// SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
  uint64_t next() {
    uint64_t z = state_ += 0x9e3779b97f4a7c15ULL;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    return z ^ (z >> 31);
  }

  uint64_t state_;
};

}  // namespace isthmus::test
