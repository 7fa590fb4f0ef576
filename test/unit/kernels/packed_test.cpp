#include <isthmus/kernels/pack.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "reference.h"
#include "support/catch.h"
#include "variants.h"

namespace isthmus::kernels {
namespace {

const std::vector<DType> kLossless = {DType::kQ4_0, DType::kQ4_1, DType::kQ5_0,
                                      DType::kQ5_1, DType::kQ8_0, DType::kQ3_K,
                                      DType::kQ4_K, DType::kQ5_K, DType::kQ6_K};

/// Stored weights of any bits but for their binary16 scales, which are kept small.
std::vector<std::byte> stored_rows(DType type, size_t rows, size_t inputs, uint64_t seed) {
  const DTypeInfo info = *dtype_info(type);
  std::vector<std::byte> bytes(rows * inputs / info.block_elements * info.block_bytes);
  for (size_t i = 0; i < bytes.size(); ++i) {
    bytes[i] = static_cast<std::byte>(counter_uniform(seed, i) * 256);
  }
  const auto put_scale = [&](size_t at) { bytes[at + 1] = bytes[at + 1] & std::byte{0xAF}; };
  for (size_t b = 0; b < bytes.size(); b += info.block_bytes) {
    const bool at_end = type == DType::kQ3_K || type == DType::kQ6_K;
    put_scale(b + (at_end ? info.block_bytes - 2 : 0));
    if (lossless_format(type)->offsets) put_scale(b + 2);
  }
  return bytes;
}

struct Packed {
  PackedFormat format;
  std::vector<std::byte> blocks;
};

Packed pack(DType type, std::span<const std::byte> rows, size_t outputs, size_t inputs) {
  Packed packed{*lossless_format(type), {}};
  const size_t bytes = block_bytes(packed.format, inputs);
  const size_t row_bytes = rows.size() / outputs;
  for (size_t first = 0; first < outputs; first += kPackedOutputs) {
    const size_t count = std::min(kPackedOutputs, outputs - first);
    packed.blocks.resize(packed.blocks.size() + bytes);
    REQUIRE(pack_block(type, rows.subspan(first * row_bytes, count * row_bytes), inputs,
                       std::span(packed.blocks).last(bytes)));
  }
  return packed;
}

/// All rows of `x` [rows, inputs] against all outputs.
std::vector<float> multiply(const KernelTable& table, const Packed& weights,
                            const std::vector<float>& x, size_t rows, size_t outputs,
                            const std::vector<float>& bias, bool two_bytes) {
  const size_t inputs = x.size() / rows;
  const size_t groups = (inputs + 31) / 32;
  test::ByteRow bytes(rows * groups * 32, two_bytes);
  for (size_t r = 0; r < rows; ++r) {
    table.quantize(x.data() + r * inputs, inputs, bytes.get(r * groups));
  }
  std::vector<float> y(rows * outputs);
  PackedProduct p;
  p.x = bytes.get();
  p.rows = rows;
  p.groups = groups;
  p.format = weights.format;
  p.blocks = weights.blocks.data();
  p.bias = bias.empty() ? nullptr : bias.data();
  p.y = y.data();
  p.y_stride = outputs;
  p.outputs = outputs;
  p.end_block = (outputs + 15) / 16;
  table.packed_product(p);
  return y;
}

TEST_CASE("packing loses nothing", "[kernels][packed]") {
  const DType type = GENERATE(from_range(kLossless));
  const size_t rows = GENERATE(1, 15, 16);
  constexpr size_t kInputs = 768;
  CAPTURE(dtype_info(type)->name, rows);
  const auto stored = stored_rows(type, rows, kInputs, 1);
  Matrix expected(rows, kInputs);
  REQUIRE(dequantize(type, stored, expected.view().values()));
  const Packed packed = pack(type, stored, rows, kInputs);
  Matrix actual(rows, kInputs);
  REQUIRE(unpack_block(packed.format, packed.blocks, actual.view()));
  CHECK(same_bits(actual.view().values(), expected.view().values()));
}

TEST_CASE("activations become the bytes that the reference gives", "[kernels][packed]") {
  const size_t size = GENERATE(1, 31, 32, 33, 64, 576);
  const double magnitude = GENERATE(0.0, 1e-38, 1e-31, 1.0, 1e6, 1e30);
  CAPTURE(size, magnitude);
  const auto x = numbers(20, size, magnitude);
  const bool two_bytes = GENERATE(false, true);
  const test::ByteRow expected = test::quantize(x, two_bytes);
  for (const KernelTable* table : available_kernels()) {
    CAPTURE(table->name);
    test::ByteRow actual(size, two_bytes);
    table->quantize(x.data(), size, actual.get());
    CHECK(actual.codes == expected.codes);
    CHECK(same_bits(actual.scales, expected.scales));
    CHECK(same_bits(actual.sums, expected.sums));
    CHECK(actual.half_sums == expected.half_sums);
    CHECK(actual.fine_codes == expected.fine_codes);
    CHECK(actual.fine_half_sums == expected.fine_half_sums);
  }
}

TEST_CASE("packed products have the bits of the stated order at every shape", "[kernels][packed]") {
  const DType type = GENERATE(from_range(kLossless));
  const size_t rows = GENERATE(1, 2, 3, 5, 8, 13);
  const size_t outputs = GENERATE(1, 16, 35);
  const size_t inputs = dtype_info(type)->block_elements == 32 ? GENERATE(32, 96, 576) : 512;
  const bool has_bias = GENERATE(false, true);
  const bool two_bytes = GENERATE(false, true);
  CAPTURE(dtype_info(type)->name, rows, outputs, inputs, has_bias, two_bytes);
  const auto stored = stored_rows(type, outputs, inputs, 2);
  const Packed packed = pack(type, stored, outputs, inputs);
  const auto x = numbers(21, rows * inputs, 3);
  const auto bias = has_bias ? numbers(22, outputs) : std::vector<float>();
  const auto y = same_on_all([&](const KernelTable& table) {
    return multiply(table, packed, x, rows, outputs, bias, two_bytes);
  });

  Matrix weights(outputs, inputs);
  REQUIRE(dequantize(type, stored, weights.view().values()));
  for (size_t r = 0; r < rows; ++r) {
    const test::ByteRow row = test::quantize(std::span(x).subspan(r * inputs, inputs), two_bytes);
    for (size_t o = 0; o < outputs; ++o) {
      double exact = has_bias ? bias[o] : 0;
      double size = 0;
      for (size_t i = 0; i < inputs; ++i) {
        const double term = static_cast<double>(weights.row(o)[i]) * row.code(i) *
                            static_cast<double>(row.scales[i / 32]);
        exact += term;
        size += std::abs(term);
      }
      REQUIRE(std::abs(y[r * outputs + o] - exact) <= 1e-6 * size + 1e-6);
    }
  }
}

TEST_CASE("a packed product is the stated sum bit for bit", "[kernels][packed]") {
  // Nibbles with offsets, written out by hand.
  const bool two_bytes = GENERATE(false, true);
  constexpr size_t kInputs = 96;
  const auto x = numbers(23, kInputs, 10);
  const auto codes = [](size_t i) { return static_cast<int>(i * 7 % 16); };
  const auto scale = [](size_t i) { return i / 32 % 2 == 0 ? 0.5F : 0.375F; };
  const auto offset = [](size_t g) { return -1.25F - static_cast<float>(g); };
  std::vector<std::byte> stored;
  for (size_t g = 0; g < kInputs / 32; ++g) {
    for (const float value : {scale(g * 32), offset(g)}) {
      const uint16_t bits = f16_from_float(value);
      stored.push_back(static_cast<std::byte>(bits & 0xFFU));
      stored.push_back(static_cast<std::byte>(bits >> 8U));
    }
    for (size_t i = 0; i < 16; ++i) {
      stored.push_back(static_cast<std::byte>(codes(g * 32 + i) | codes(g * 32 + i + 16) << 4));
    }
  }
  const Packed packed = pack(DType::kQ4_1, stored, 1, kInputs);
  const float expected = test::packed_dot(test::quantize(x, two_bytes), /*half_groups=*/false,
                                          /*offsets=*/true, codes, scale, offset);
  const auto y = same_on_all(
      [&](const KernelTable& table) { return multiply(table, packed, x, 1, 1, {}, two_bytes); });
  CHECK(y[0] == expected);
}

TEST_CASE("a row's products do not depend on the rows beside it", "[kernels][packed]") {
  const DType type = GENERATE(from_range(kLossless));
  const bool two_bytes = GENERATE(false, true);
  constexpr size_t kRows = 15;
  constexpr size_t kOutputs = 20;
  constexpr size_t kInputs = 256;
  const Packed packed = pack(type, stored_rows(type, kOutputs, kInputs, 3), kOutputs, kInputs);
  const auto x = numbers(24, kRows * kInputs);
  for (const KernelTable* table : available_kernels()) {
    CAPTURE(table->name, dtype_info(type)->name);
    const auto together = multiply(*table, packed, x, kRows, kOutputs, {}, two_bytes);
    for (size_t r = 0; r < kRows; ++r) {
      const std::vector<float> row(x.begin() + static_cast<std::ptrdiff_t>(r * kInputs),
                                   x.begin() + static_cast<std::ptrdiff_t>((r + 1) * kInputs));
      const auto alone = multiply(*table, packed, row, 1, kOutputs, {}, two_bytes);
      REQUIRE(same_bits(alone, std::span(together).subspan(r * kOutputs, kOutputs)));
    }
  }
}

TEST_CASE("products of any width run on rounded weights", "[kernels][packed]") {
  const int32_t bits = GENERATE(4, 8);
  const size_t inputs = GENERATE(1, 5, 31, 33, 100);
  const size_t outputs = GENERATE(1, 16, 21);
  const bool two_bytes = GENERATE(false, true);
  CAPTURE(bits, inputs, outputs, two_bytes);
  const auto values = numbers(26, outputs * inputs);
  Packed packed{rounded_format(bits), {}};
  Matrix weights(outputs, inputs);
  const size_t bytes = block_bytes(packed.format, inputs);
  for (size_t first = 0; first < outputs; first += kPackedOutputs) {
    const size_t count = std::min(kPackedOutputs, outputs - first);
    const MatrixView<const float> rows(values.data() + first * inputs, count, inputs);
    packed.blocks.resize(packed.blocks.size() + bytes);
    const auto block = std::span(packed.blocks).last(bytes);
    REQUIRE(round_block(rows, bits, block));
    REQUIRE(unpack_block(packed.format, block, weights.view().middle_rows(first, count)));
  }
  const auto x = numbers(27, 3 * inputs, 2);
  const auto y = same_on_all([&](const KernelTable& table) {
    return multiply(table, packed, x, 3, outputs, {}, two_bytes);
  });
  for (size_t r = 0; r < 3; ++r) {
    const test::ByteRow row = test::quantize(std::span(x).subspan(r * inputs, inputs), two_bytes);
    for (size_t o = 0; o < outputs; ++o) {
      double exact = 0;
      for (size_t i = 0; i < inputs; ++i) {
        exact += static_cast<double>(weights.row(o)[i]) * row.code(i) *
                 static_cast<double>(row.scales[i / 32]);
      }
      REQUIRE(std::abs(y[r * outputs + o] - exact) <= 1e-5 * static_cast<double>(inputs));
    }
  }
}

TEST_CASE("what is not finite stays so on every variant, and spoils no other row",
          "[kernels][packed]") {
  const float bad = GENERATE(NAN, std::numeric_limits<float>::infinity(),
                             -std::numeric_limits<float>::infinity());
  const bool two_bytes = GENERATE(false, true);
  const DType type = GENERATE(DType::kQ4_0, DType::kQ4_1, DType::kQ8_0, DType::kQ6_K);
  constexpr size_t kInputs = 256;
  const Packed packed = pack(type, stored_rows(type, 16, kInputs, 4), 16, kInputs);
  auto x = numbers(28, 2 * kInputs);
  const auto good = same_on_all(
      [&](const KernelTable& table) { return multiply(table, packed, x, 2, 16, {}, two_bytes); });
  x[kInputs + 70] = bad;
  for (const KernelTable* table : available_kernels()) {
    CAPTURE(table->name, bad);
    const auto y = multiply(*table, packed, x, 2, 16, {}, two_bytes);
    CHECK(same_bits(std::span(y).first(16), std::span(good).first(16)));
    for (const float value : std::span(y).last(16)) CHECK(std::isnan(value));
  }
}

TEST_CASE("extreme codes overflow nowhere", "[kernels][packed]") {
  // Every product at its largest, also -128 times -127, which byte instructions like to get wrong.
  const auto code = static_cast<int8_t>(GENERATE(-128, 127));
  const float sign = GENERATE(-1.0F, 1.0F);
  const bool two_bytes = GENERATE(false, true);
  constexpr size_t kInputs = 64;
  std::vector<std::byte> stored;
  for (size_t g = 0; g < kInputs / 32; ++g) {
    stored.push_back(std::byte{0x00});
    stored.push_back(std::byte{0x3C});  // 1.0
    for (size_t i = 0; i < 32; ++i) stored.push_back(static_cast<std::byte>(code));
  }
  const Packed packed = pack(DType::kQ8_0, stored, 1, kInputs);
  const std::vector<float> x(kInputs, 127 * sign);
  const auto y = same_on_all(
      [&](const KernelTable& table) { return multiply(table, packed, x, 1, 1, {}, two_bytes); });
  CHECK(y[0] == 127.0F * sign * static_cast<float>(code) * kInputs);
}

TEST_CASE("rounded weights are off by less than a step, and by less than plain rounding",
          "[kernels][packed]") {
  const int32_t bits = GENERATE(4, 8);
  const size_t inputs = GENERATE(5, 32, 100);
  CAPTURE(bits, inputs);
  const int levels = bits == 4 ? 15 : 255;
  Matrix weights(11, inputs);
  const auto values = numbers(25, 11 * inputs, 0.1);
  for (size_t i = 0; i < values.size(); ++i) {
    weights.data()[i] = values[i] * values[i] * values[i] * 100;  // most are small
  }
  std::vector<std::byte> block(block_bytes(rounded_format(bits), inputs));
  REQUIRE(round_block(weights.view(), bits, block));
  Matrix rounded(11, inputs);
  REQUIRE(unpack_block(rounded_format(bits), block, rounded.view()));

  double error = 0;
  double plain_error = 0;
  for (size_t r = 0; r < 11; ++r) {
    for (size_t first = 0; first < inputs; first += 32) {
      const auto group =
          std::as_const(weights).row(r).subspan(first, std::min<size_t>(32, inputs - first));
      const auto [low, high] = std::minmax_element(group.begin(), group.end());
      const double step = (static_cast<double>(*high) - *low) / levels;
      for (size_t i = 0; i < group.size(); ++i) {
        const double off = rounded.row(r)[first + i] - static_cast<double>(group[i]);
        error += off * off;
        const double code = step == 0 ? 0 : std::nearbyint((group[i] - *low) / step);
        const double plain = *low + step * code - group[i];
        plain_error += plain * plain;
        // The largest may be cut: the search trades it for the others.
        REQUIRE(std::abs(off) <= 0.3 * levels * step + 1e-6);
      }
    }
  }
  CHECK(error <= plain_error * 1.05 + 1e-12);  // scales in binary16 cost a little
}

TEST_CASE("constant, zero and huge groups round as they should", "[kernels][packed]") {
  std::vector<std::byte> block(block_bytes(rounded_format(4), 32));
  Matrix rounded(1, 32);
  for (const float value : {0.0F, 0.25F, -3.0F, 65504.0F}) {
    Matrix weights(1, 32);
    std::fill_n(weights.data(), 32, value);
    REQUIRE(round_block(weights.view(), 4, block));
    REQUIRE(unpack_block(rounded_format(4), block, rounded.view()));
    for (const float weight : rounded.row(0)) CHECK(weight == value);
  }
  for (const float value : {1e6F, std::numeric_limits<float>::infinity(), NAN}) {
    Matrix weights(1, 32);
    weights.data()[3] = value;
    CHECK_FAILS_WITH(round_block(weights.view(), 4, block), ErrorCode::kNotFinite);
  }
}

TEST_CASE("packing refuses what does not fit", "[kernels][packed]") {
  const auto stored = stored_rows(DType::kQ4_0, 2, 64, 1);
  std::vector<std::byte> block(block_bytes(*lossless_format(DType::kQ4_0), 64));
  CHECK(pack_block(DType::kQ4_0, stored, 64, block));
  CHECK_FAILS_WITH(pack_block(DType::kQ4_0, stored, 48, block), ErrorCode::kInvalidArgument);
  CHECK_FAILS_WITH(pack_block(DType::kQ4_0, stored, 0, block), ErrorCode::kInvalidArgument);
  CHECK_FAILS_WITH(pack_block(DType::kQ4_0, std::span(stored).first(35), 64, block),
                   ErrorCode::kInvalidArgument);
  CHECK_FAILS_WITH(pack_block(DType::kQ4_0, {}, 64, block), ErrorCode::kInvalidArgument);
  CHECK_FAILS_WITH(pack_block(DType::kQ4_0, stored, 64, std::span(block).first(10)),
                   ErrorCode::kInvalidArgument);
  CHECK_FAILS_WITH(pack_block(DType::kF32, stored, 64, block), ErrorCode::kInvalidArgument);
  CHECK_FAILS_WITH(pack_block(DType::kQ2_K, stored, 256, block), ErrorCode::kInvalidArgument);
  CHECK_FALSE(lossless_format(DType::kQ2_K));
  CHECK_FALSE(lossless_format(DType::kBf16));
  CHECK_THROWS_AS(rounded_format(5), std::invalid_argument);

  auto infinite = stored;
  infinite[0] = std::byte{0x00};
  infinite[1] = std::byte{0x7C};
  CHECK_FAILS_WITH(pack_block(DType::kQ4_0, infinite, 64, block), ErrorCode::kNotFinite);

  Matrix weights(17, 64);
  CHECK_FAILS_WITH(round_block(weights.view(), 4, block), ErrorCode::kInvalidArgument);
  CHECK_FAILS_WITH(unpack_block(rounded_format(8), block, weights.view()),
                   ErrorCode::kInvalidArgument);
}

}  // namespace
}  // namespace isthmus::kernels
