// Running a kernel with every variant of this machine, which must all give the same bits.
#pragma once

#include <isthmus/core/random.h>
#include <isthmus/kernels/dispatch.h>

#include <algorithm>
#include <bit>
#include <cstdint>
#include <span>
#include <vector>

#include "support/catch.h"

namespace isthmus::kernels {

/// Numbers in [-size, size), the same for the same seed.
inline std::vector<float> numbers(uint64_t seed, size_t count, double size = 1) {
  std::vector<float> values(count);
  for (size_t i = 0; i < count; ++i) {
    values[i] = static_cast<float>((2 * counter_uniform(seed, i) - 1) * size);
  }
  return values;
}

inline bool same_bits(std::span<const float> a, std::span<const float> b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](float x, float y) {
    return std::bit_cast<uint32_t>(x) == std::bit_cast<uint32_t>(y);
  });
}

/// Runs `compute` with every variant of this machine, requires the same bits from all, and returns
/// them.
template <typename Compute>
std::vector<float> same_on_all(const Compute& compute) {
  const auto variants = available_kernels();
  const std::vector<float> first = compute(*variants.front());
  for (const KernelTable* table : variants) {
    CAPTURE(table->name);
    REQUIRE(same_bits(compute(*table), first));
  }
  return first;
}

}  // namespace isthmus::kernels
