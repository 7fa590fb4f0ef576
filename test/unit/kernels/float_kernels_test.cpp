#include <isthmus/kernels/dispatch.h>

#include <cmath>
#include <vector>

#include "reference.h"
#include "support/catch.h"
#include "support/environment.h"
#include "variants.h"

namespace isthmus::kernels {
namespace {

TEST_CASE("products have the bits of the stated lane order at every shape", "[kernels][product]") {
  const size_t rows = GENERATE(1, 2, 3, 4, 5, 9);
  const size_t outputs = GENERATE(1, 2, 3, 4, 5, 7, 16, 19);
  const size_t inner = GENERATE(1, 2, 15, 16, 17, 31, 32, 64, 100, 576);
  const bool has_bias = GENERATE(false, true);
  CAPTURE(rows, outputs, inner, has_bias);
  const auto x = numbers(1, rows * inner, 1e3);
  const auto weights = numbers(2, outputs * inner);
  const auto bias = numbers(3, outputs);

  const auto y = same_on_all([&](const KernelTable& table) {
    std::vector<float> result(rows * outputs, -1);
    table.product({.x = x.data(),
                   .weights = weights.data(),
                   .bias = has_bias ? bias.data() : nullptr,
                   .y = result.data(),
                   .y_stride = outputs,
                   .rows = rows,
                   .inner = inner,
                   .first_output = 0,
                   .end_output = outputs});
    return result;
  });
  for (size_t r = 0; r < rows; ++r) {
    for (size_t o = 0; o < outputs; ++o) {
      const float* row = x.data() + r * inner;
      const float* weight = weights.data() + o * inner;
      const float added = has_bias ? bias[o] : 0;
      const float lanes = test::dot_in_lanes(row, weight, inner) + added;
      REQUIRE(y[r * outputs + o] == lanes);
      const double exact = test::dot_in_double(row, weight, inner) + added;
      REQUIRE(std::abs(lanes - exact) < 1e3 * 1e-7 * static_cast<double>(inner));
    }
  }
}

TEST_CASE("a product writes the outputs it was asked for and no others", "[kernels][product]") {
  const size_t first = GENERATE(0, 1, 5);
  const size_t end = GENERATE(5, 6, 13);
  const auto x = numbers(1, 3 * 40);
  const auto weights = numbers(2, 13 * 40);
  const auto y = same_on_all([&](const KernelTable& table) {
    std::vector<float> result(3 * 13, 99);
    table.product({.x = x.data(),
                   .weights = weights.data(),
                   .y = result.data(),
                   .y_stride = 13,
                   .rows = 3,
                   .inner = 40,
                   .first_output = first,
                   .end_output = end});
    return result;
  });
  for (size_t r = 0; r < 3; ++r) {
    for (size_t o = 0; o < 13; ++o) {
      const bool asked = o >= first && o < end;
      const float dot = test::dot_in_lanes(x.data() + r * 40, weights.data() + o * 40, 40);
      CHECK(y[r * 13 + o] == (asked ? dot : 99));
    }
  }
}

TEST_CASE("rms norm comes close to the mathematics, also at 1e6 and at zero", "[kernels][norm]") {
  const size_t size = GENERATE(1, 15, 16, 17, 64, 576);
  const double magnitude = GENERATE(0.0, 1e-3, 1.0, 1e6);
  CAPTURE(size, magnitude);
  const auto x = numbers(4, size, magnitude);
  const auto weight = numbers(5, size, 3);
  const auto y = same_on_all([&](const KernelTable& table) {
    std::vector<float> result(size);
    table.rms_norm(x.data(), weight.data(), 1e-5F, size, result.data());
    return result;
  });
  const auto exact = test::rms_norm_in_double(x, weight, 1e-5F);
  for (size_t i = 0; i < size; ++i) {
    REQUIRE(std::abs(y[i] - exact[i]) <= 2e-6 * std::abs(exact[i]));
  }
}

TEST_CASE("rms norm may write over its input", "[kernels][norm]") {
  const auto x = numbers(4, 50);
  const auto weight = numbers(5, 50);
  for (const KernelTable* table : available_kernels()) {
    std::vector<float> apart(50);
    std::vector<float> in_place = x;
    table->rms_norm(x.data(), weight.data(), 1e-5F, 50, apart.data());
    table->rms_norm(in_place.data(), weight.data(), 1e-5F, 50, in_place.data());
    CHECK(same_bits(apart, in_place));
  }
}

TEST_CASE("gates come close to the mathematics over their whole range", "[kernels][gate]") {
  const double magnitude = GENERATE(1e-3, 1.0, 10.0, 100.0, 1e6);
  CAPTURE(magnitude);
  constexpr size_t kSize = 1003;
  const auto gate = numbers(6, kSize, magnitude);
  const auto up = numbers(7, kSize, 2);
  const auto gated = [&](auto KernelTable::*function) {
    return same_on_all([&](const KernelTable& table) {
      std::vector<float> result(kSize);
      (table.*function)(gate.data(), up.data(), kSize, result.data());
      return result;
    });
  };
  const auto silu = gated(&KernelTable::silu_gate);
  const auto gelu = gated(&KernelTable::gelu_gate);
  for (size_t i = 0; i < kSize; ++i) {
    // Far below zero both are next to nothing; there the reference itself cancels.
    const double exact_silu = test::silu_in_double(gate[i]) * up[i];
    const double exact_gelu = test::gelu_in_double(gate[i]) * up[i];
    REQUIRE(std::abs(silu[i] - exact_silu) <= 1e-6 * std::abs(exact_silu) + 1e-30);
    REQUIRE(std::abs(gelu[i] - exact_gelu) <= 2e-6 * std::abs(exact_gelu) + 1e-7);
  }
}

TEST_CASE("the soft cap stays inside its bounds and close to the mathematics", "[kernels]") {
  const double magnitude = GENERATE(1e-3, 1.0, 100.0, 1e6);
  const auto x = numbers(8, 333, magnitude);
  const auto y = same_on_all([&](const KernelTable& table) {
    std::vector<float> result = x;
    table.softcap(result.data(), 30, result.size());
    return result;
  });
  for (size_t i = 0; i < x.size(); ++i) {
    REQUIRE(std::abs(y[i] - 30 * std::tanh(x[i] / 30.0)) < 30 * 2e-7);
    REQUIRE(std::abs(y[i]) <= 30);
  }
}

TEST_CASE("exponentials of what is below the largest, and their sum", "[kernels]") {
  const size_t size = GENERATE(1, 15, 16, 333);
  const double magnitude = GENERATE(1e-3, 1.0, 10.0, 300.0);
  auto x = numbers(9, size, magnitude);
  if (size > 1) x[size / 2] = -std::numeric_limits<float>::infinity();
  const double largest = *std::max_element(x.begin(), x.end());
  const auto y = same_on_all([&](const KernelTable& table) {
    std::vector<float> result = x;
    result.push_back(table.exponentiate(result.data(), result.size()));
    return result;
  });
  double sum = 0;
  for (size_t i = 0; i < size; ++i) {
    const double exact = std::exp(std::max(x[i] - largest, -87.0));
    sum += exact;
    REQUIRE(std::abs(y[i] - exact) <= 2e-6 * exact);
  }
  CHECK(std::abs(y[size] - sum) <= 1e-5 * sum);
}

TEST_CASE("a rotation turns each pair by its angle", "[kernels][rotate]") {
  const size_t pairs = GENERATE(1, 3, 8, 32, 33);
  const bool adjacent = GENERATE(false, true);
  const auto head = numbers(12, 2 * pairs, 5);
  std::vector<float> cos_sin(2 * pairs);
  for (size_t i = 0; i < pairs; ++i) {
    cos_sin[i] = static_cast<float>(std::cos(0.7 * static_cast<double>(i)));
    cos_sin[pairs + i] = static_cast<float>(std::sin(0.7 * static_cast<double>(i)));
  }
  const auto turned = same_on_all([&](const KernelTable& table) {
    std::vector<float> result = head;
    table.rotate(result.data(), pairs, adjacent, cos_sin.data());
    return result;
  });
  for (size_t i = 0; i < pairs; ++i) {
    const size_t x = adjacent ? 2 * i : i;
    const size_t y = adjacent ? 2 * i + 1 : i + pairs;
    REQUIRE(turned[x] == head[x] * cos_sin[i] - head[y] * cos_sin[pairs + i]);
    REQUIRE(turned[y] == head[y] * cos_sin[i] + head[x] * cos_sin[pairs + i]);
  }
}

TEST_CASE("ISTHMUS_CPU_ISA picks a variant by name and refuses others", "[kernels][dispatch]") {
  for (const KernelTable* table : available_kernels()) {
    const test::ScopedVariable isa("ISTHMUS_CPU_ISA", table->name);
    CHECK(test::value_of(select_kernels()) == table);
  }
  const test::ScopedVariable isa("ISTHMUS_CPU_ISA", "mmx");
  CHECK_FAILS_WITH(select_kernels(), ErrorCode::kUnsupported);
}

}  // namespace
}  // namespace isthmus::kernels
