#include <isthmus/kernels/dtype.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <fstream>
#include <iterator>
#include <limits>
#include <random>
#include <vector>

#include "support/catch.h"

namespace isthmus::kernels {
namespace {

constexpr std::array kTypes = {DType::kF32,  DType::kF16,  DType::kBf16, DType::kQ4_0, DType::kQ4_1,
                               DType::kQ5_0, DType::kQ5_1, DType::kQ8_0, DType::kQ2_K, DType::kQ3_K,
                               DType::kQ4_K, DType::kQ5_K, DType::kQ6_K};

// One record of test/data/quants.bin (tools/refgen/quants.py).
struct Golden {
  DType type;
  std::vector<std::byte> bytes;
  std::vector<float> values;
};

std::vector<Golden> load_golden() {
  std::ifstream in(ISTHMUS_TEST_DATA "/quants.bin", std::ios::binary);
  std::vector<Golden> records;
  std::array<uint32_t, 3> header{};
  while (in.read(reinterpret_cast<char*>(header.data()), sizeof header)) {
    Golden golden{static_cast<DType>(header[0]), std::vector<std::byte>(header[1]),
                  std::vector<float>(header[2])};
    in.read(reinterpret_cast<char*>(golden.bytes.data()), header[1]);
    in.read(reinterpret_cast<char*>(golden.values.data()), header[2] * sizeof(float));
    REQUIRE(in);
    records.push_back(std::move(golden));
  }
  return records;
}

// Rounds to `bits` significant bits and a smallest unit of 2^min_exponent, ties to even, without
// looking at bit patterns.
double round_to_format(double value, int bits, int min_exponent) {
  if (value == 0) return value;
  const int exponent = std::max(std::ilogb(value) - (bits - 1), min_exponent);
  return std::ldexp(std::nearbyint(std::ldexp(value, -exponent)), exponent);
}

std::vector<float> rounding_cases() {
  std::vector<float> cases = {0.0F,       -0.0F,    1e-45F,    65504.0F,
                              65519.996F, 65520.0F, -65536.0F, std::numeric_limits<float>::max()};
  for (uint32_t half = 0; half < 0x7C00; ++half) {  // every tie, and its neighbours on both sides
    const float low = float_from_f16(static_cast<uint16_t>(half));
    const float high = float_from_f16(static_cast<uint16_t>(half + 1));
    if (std::isinf(high)) break;
    const float middle = low + (high - low) / 2;
    for (const float value :
         {low, std::nextafterf(middle, low), middle, std::nextafterf(middle, high)}) {
      cases.push_back(value);
      cases.push_back(-value);
    }
  }
  std::mt19937 random(7);
  for (int i = 0; i < 100'000; ++i) {
    const float value = std::bit_cast<float>(static_cast<uint32_t>(random()));
    if (std::isfinite(value)) cases.push_back(value);
  }
  return cases;
}

TEST_CASE("every type reads blocks as the gguf package does, bit for bit",
          "[kernels][dequantize]") {
  const auto records = load_golden();
  REQUIRE(records.size() == kTypes.size());
  for (const Golden& golden : records) {
    const DTypeInfo* info = dtype_info(golden.type);
    REQUIRE(info != nullptr);
    CAPTURE(info->name);
    CHECK(golden.bytes.size() * info->block_elements == golden.values.size() * info->block_bytes);
    std::vector<float> values(golden.values.size());
    REQUIRE(dequantize(golden.type, golden.bytes, values));
    for (size_t i = 0; i < values.size(); ++i) {
      CAPTURE(i);
      REQUIRE(values[i] == golden.values[i]);
    }
  }
}

TEST_CASE("blocks may start at any address", "[kernels][dequantize]") {
  for (const Golden& golden : load_golden()) {
    std::vector<std::byte> shifted(golden.bytes.size() + 1);
    std::memcpy(shifted.data() + 1, golden.bytes.data(), golden.bytes.size());
    std::vector<float> values(golden.values.size());
    REQUIRE(dequantize(golden.type, std::span(shifted).subspan(1), values));
    CHECK(values == golden.values);
  }
}

TEST_CASE("sizes that are not whole blocks are refused", "[kernels][dequantize]") {
  const DType type = GENERATE(from_range(kTypes));
  const DTypeInfo& info = *dtype_info(type);
  CAPTURE(info.name);
  std::vector<std::byte> bytes(2 * info.block_bytes);
  std::vector<float> values(2 * info.block_elements);
  const std::span all_bytes(bytes);
  const std::span all_values(values);
  CHECK(dequantize(type, all_bytes, all_values));
  CHECK(dequantize(type, {}, {}));
  CHECK_FAILS_WITH(dequantize(type, all_bytes.first(bytes.size() - 1), all_values),
                   ErrorCode::kInvalidArgument);
  CHECK_FAILS_WITH(dequantize(type, all_bytes.first(info.block_bytes), all_values),
                   ErrorCode::kInvalidArgument);
  CHECK_FAILS_WITH(dequantize(type, all_bytes, all_values.first(values.size() - 1)),
                   ErrorCode::kInvalidArgument);
}

TEST_CASE("a number that is no type has no block size", "[kernels][dequantize]") {
  const auto type = static_cast<DType>(GENERATE(4U, 5U, 9U, 15U, 31U, 0xFFFFFFFFU));
  CHECK(dtype_info(type) == nullptr);
  CHECK_FAILS_WITH(dequantize(type, {}, {}), ErrorCode::kInvalidArgument);
}

TEST_CASE("every binary16 and bfloat16 pattern survives the way to float and back",
          "[kernels][f16]") {
  for (uint32_t pattern = 0; pattern < 0x10000; ++pattern) {
    const auto bits = static_cast<uint16_t>(pattern);
    const float half = float_from_f16(bits);
    const float brain = float_from_bf16(bits);
    CAPTURE(pattern);
    if (std::isnan(half)) {
      REQUIRE(std::isnan(float_from_f16(f16_from_float(half))));
    } else {
      REQUIRE(f16_from_float(half) == bits);
    }
    if (std::isnan(brain)) {
      REQUIRE(std::isnan(float_from_bf16(bf16_from_float(brain))));
    } else {
      REQUIRE(bf16_from_float(brain) == bits);
    }
  }
  CHECK(float_from_f16(0x0001) == 0x1p-24F);
  CHECK(float_from_f16(0x7BFF) == 65504.0F);
  CHECK(std::isinf(float_from_f16(0xFC00)));
}

TEST_CASE("binary16 and bfloat16 round to nearest, ties to even", "[kernels][f16]") {
  for (const float value : rounding_cases()) {
    CAPTURE(value);
    const double half = round_to_format(value, 11, -24);
    const double expected_half = std::abs(half) > 65504 ? std::copysign(INFINITY, half) : half;
    REQUIRE(static_cast<double>(float_from_f16(f16_from_float(value))) == expected_half);
    const double brain = round_to_format(value, 8, -133);
    const double largest = std::ldexp(255.0, 120);
    const double expected_brain =
        std::abs(brain) > largest ? std::copysign(INFINITY, brain) : brain;
    REQUIRE(static_cast<double>(float_from_bf16(bf16_from_float(value))) == expected_brain);
  }
}

}  // namespace
}  // namespace isthmus::kernels
