#include <isthmus/codec/codec.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>

#include "support/catch.h"

namespace isthmus::codec {
namespace {

using test::value_of;

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kMax = std::numeric_limits<float>::max();
constexpr float kTiny = std::numeric_limits<float>::denorm_min();

Matrix matrix_of(size_t rows, size_t cols, const std::vector<float>& values) {
  Matrix m(rows, cols);
  std::copy(values.begin(), values.end(), m.data());
  return m;
}

Result<std::vector<std::byte>> encode(Format format, const Matrix& m) {
  return value_of(BoundaryCodec::make({format}, m.cols())).encode(m.view());
}

Status decode_into(Format format, std::span<const std::byte> bytes, MatrixView<float> rows) {
  return value_of(BoundaryCodec::make({format}, rows.cols())).decode_into(bytes, rows);
}

Matrix round_trip(Format format, const Matrix& m) {
  Matrix back(m.rows(), m.cols());
  value_of(decode_into(format, value_of(encode(format, m)), back.view()));
  return back;
}

/// Rows of very different sizes, with an outlier in each, as real activations have.
Matrix activations(size_t rows, size_t cols, uint32_t seed, float largest) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  Matrix m(rows, cols);
  for (size_t r = 0; r < rows; ++r) {
    const float scale = largest * std::exp2(-static_cast<float>(random() % 12));
    for (float& value : m.row(r)) value = scale * 0x1p-8F * normal(random);
    m.row(r)[random() % cols] = scale;
  }
  return m;
}

std::vector<std::byte> bytes_of(const std::vector<uint8_t>& values) {
  std::vector<std::byte> bytes;
  for (const uint8_t value : values) bytes.push_back(static_cast<std::byte>(value));
  return bytes;
}

TEST_CASE("each format has its bytes", "[codec][golden]") {
  const Matrix m = matrix_of(2, 2, {1.0F, -2.5F, 0.0F, 3e-5F});
  CHECK(value_of(encode(Format::kF32, m)) ==
        bytes_of({0, 0, 0x80, 0x3f, 0, 0, 0x20, 0xc0, 0, 0, 0, 0, 0x82, 0xa8, 0xfb, 0x37}));
  CHECK(value_of(encode(Format::kBf16, m)) == bytes_of({0x80, 0x3f, 0x20, 0xc0, 0, 0, 0xfc, 0x37}));
  // Row 0: 2.5 is in [2, 4), so the scale is 2^-13; 1 is stored as 2^13 and -2.5 as -2.5 * 2^13.
  // Row 1: 3e-5 is 1.966 * 2^-16, so the scale is 2^-30, and it is stored as 1.966 * 2^14.
  CHECK(value_of(encode(Format::kF16, m)) == bytes_of({0, 0, 0, 0x39, 0x00, 0x70, 0x00, 0xf5,  //
                                                       0, 0, 0x80, 0x30, 0, 0, 0xdd, 0x77}));
}

TEST_CASE("f32 keeps every bit", "[codec][f32]") {
  std::mt19937 random(5);
  Matrix m(17, 33);
  for (float& value : m.view().values()) {
    do {
      value = std::bit_cast<float>(static_cast<uint32_t>(random()));
    } while (!std::isfinite(value));
  }
  m.row(0)[0] = -0.0F;
  m.row(0)[1] = kTiny;
  m.row(0)[2] = -kMax;
  const Matrix back = round_trip(Format::kF32, m);
  CHECK(std::memcmp(back.data(), m.data(), m.view().values().size_bytes()) == 0);
}

TEST_CASE("bf16 is off by at most 1/256 of a normal number", "[codec][bf16]") {
  const auto largest = GENERATE(1e-30F, 1e-3F, 1.0F, 24'180.0F, 1e6F, 1e30F);
  const Matrix m = activations(8, 577, 11, largest);
  const Matrix back = round_trip(Format::kBf16, m);
  for (size_t i = 0; i < m.rows() * m.cols(); ++i) {
    const double value = m.data()[i];
    const double subnormal = 0x1p-134;  // half the smallest step that there is
    CAPTURE(value, back.data()[i]);
    REQUIRE(std::abs(back.data()[i] - value) <= std::max(std::abs(value) * 0x1p-8, subnormal));
  }
}

void check_f16_bound(std::span<const float> row, std::span<const float> back) {
  double largest = 0;
  for (const float value : row) largest = std::max(largest, std::abs(double{value}));
  for (size_t i = 0; i < row.size(); ++i) {
    const double bound = std::max(std::abs(double{row[i]}) * 0x1p-11, largest * 0x1p-38);
    CAPTURE(i, row[i], back[i], largest);
    REQUIRE(std::abs(double{back[i]} - double{row[i]}) <= bound);
  }
}

TEST_CASE("f16 keeps its bound at every size of activation", "[codec][f16]") {
  const auto largest = GENERATE(1e-44F, 1e-38F, 1e-30F, 1e-6F, 1.0F, 24'180.0F, 65'519.0F,
                                65'520.0F, 103'795.0F, 1e6F, 1e30F, 3e38F);
  const Matrix m = activations(8, 577, 3, largest);
  const Matrix back = round_trip(Format::kF16, m);
  for (size_t r = 0; r < m.rows(); ++r) check_f16_bound(m.row(r), back.row(r));
}

TEST_CASE("f16 keeps its bound across the whole range inside one row", "[codec][f16]") {
  // One number for every power of two below the largest, each with mantissas that round both ways.
  for (const float mantissa : {1.0F, 1.00048828125F, 1.5F, 1.999F, 1.9999999F}) {
    for (const int top : {127, 100, 0, -60, -120, -149}) {
      std::vector<float> row;
      for (int exponent = top; exponent >= -149; --exponent) {
        const float value = std::ldexp(mantissa, exponent);
        if (value < 0x1.ffep127F) row.push_back(exponent % 2 == 0 ? value : -value);
      }
      if (row.empty()) continue;
      const Matrix m = matrix_of(1, row.size(), row);
      CAPTURE(mantissa, top);
      check_f16_bound(m.row(0), round_trip(Format::kF16, m).row(0));
    }
  }
}

TEST_CASE("the rows of one matrix do not change each other", "[codec][f16]") {
  const Matrix m = activations(5, 64, 21, 1e6F);
  const Matrix together = round_trip(Format::kF16, m);
  for (size_t r = 0; r < m.rows(); ++r) {
    Matrix alone(1, m.cols());
    std::copy_n(m.row(r).data(), m.cols(), alone.data());
    CHECK(std::memcmp(round_trip(Format::kF16, alone).data(), together.row(r).data(),
                      m.cols() * sizeof(float)) == 0);
  }
}

TEST_CASE("zeros stay zeros with their sign", "[codec][f16]") {
  const auto format = GENERATE(Format::kF32, Format::kBf16, Format::kF16);
  const Matrix back = round_trip(format, matrix_of(2, 2, {0.0F, -0.0F, 5.0F, -0.0F}));
  CHECK(back.row(0)[0] == 0);
  CHECK_FALSE(std::signbit(back.row(0)[0]));
  CHECK(back.row(0)[1] == 0);
  CHECK(std::signbit(back.row(0)[1]));
  CHECK(back.row(1)[0] == 5);
}

TEST_CASE("encoding twice changes nothing more", "[codec][property]") {
  const auto format = GENERATE(Format::kF32, Format::kBf16, Format::kF16);
  Matrix rows = activations(8, 100, 8, 1e5F);
  rows.row(0)[7] = 0x1.ffffp20F;    // the row's largest, which f16 rounds up to 2^21
  rows.row(1)[7] = 0x1.ffdffep20F;  // and one that it just does not round up
  rows.row(2)[7] = 0x1.fffp-130F;
  const auto once = value_of(encode(format, rows));
  Matrix decoded(rows.rows(), rows.cols());
  value_of(decode_into(format, once, decoded.view()));
  CHECK(value_of(encode(format, decoded)) == once);
}

TEST_CASE("what is not finite is refused, by the row", "[codec][errors]") {
  const auto format = GENERATE(Format::kF32, Format::kBf16, Format::kF16);
  const auto bad = GENERATE(as<float>(), kInf, -kInf, std::numeric_limits<float>::quiet_NaN(),
                            std::numeric_limits<float>::signaling_NaN());
  Matrix m(4, 3);
  m.row(2)[1] = bad;
  const auto result = encode(format, m);
  CHECK_FAILS_WITH(result, ErrorCode::kNotFinite);
  CHECK(result.error().message.find("row 2") != std::string::npos);
}

TEST_CASE("what a format would round to infinity is refused, and no more", "[codec][errors]") {
  const auto sign = GENERATE(1.0F, -1.0F);
  const auto try_one = [&](Format format, float value) {
    return encode(format, matrix_of(1, 1, {sign * value})).has_value();
  };
  CHECK(try_one(Format::kF32, kMax));
  CHECK_FALSE(try_one(Format::kBf16, kMax));
  CHECK_FALSE(try_one(Format::kF16, kMax));
  CHECK_FALSE(try_one(Format::kBf16, 0x1.ffp127F));
  CHECK_FALSE(try_one(Format::kF16, 0x1.ffep127F));
  for (const auto& [format, limit] :
       {std::pair(Format::kBf16, 0x1.ffp127F), std::pair(Format::kF16, 0x1.ffep127F)}) {
    const float below = std::nextafter(limit, 0.0F);
    CHECK(try_one(format, below));
    CHECK(std::isfinite(round_trip(format, matrix_of(1, 1, {sign * below})).data()[0]));
  }
}

TEST_CASE("plain sizes are counted without overflow", "[codec][size]") {
  const auto most = [](Format format, size_t rows, size_t cols) {
    return value_of(BoundaryCodec::make({format}, cols)).max_encoded_bytes(rows);
  };
  CHECK(value_of(most(Format::kF32, 3, 5)) == 60);
  CHECK(value_of(most(Format::kBf16, 3, 5)) == 30);
  CHECK(value_of(most(Format::kF16, 3, 5)) == 42);
  CHECK(value_of(most(Format::kF16, 0, 5)) == 0);
  const auto format = GENERATE(Format::kF32, Format::kBf16, Format::kF16);
  CHECK_FAILS_WITH(most(format, SIZE_MAX, 1), ErrorCode::kTooLarge);
  CHECK_FAILS_WITH(most(format, SIZE_MAX / 64, 65'536), ErrorCode::kTooLarge);
  CHECK(value_of(encode(format, Matrix(0, 5))).empty());
}

TEST_CASE("a payload of any other length is refused", "[codec][hostile]") {
  const auto format = GENERATE(Format::kF32, Format::kBf16, Format::kF16);
  auto bytes = value_of(encode(format, activations(3, 5, 1, 1)));
  bytes.resize(2 * bytes.size());
  Matrix back(3, 5);
  for (size_t length = 0; length < bytes.size(); ++length) {
    if (length == bytes.size() / 2) continue;
    const std::vector<std::byte> exact(bytes.begin(),
                                       bytes.begin() + static_cast<std::ptrdiff_t>(length));
    CHECK_FAILS_WITH(decode_into(format, exact, back.view()), ErrorCode::kCorrupt);
  }
}

/// Overwrites the bytes from `at` on.
template <typename T>
void overwrite(std::vector<std::byte>& bytes, size_t at, T value) {
  std::memcpy(bytes.data() + at, &value, sizeof value);
}

TEST_CASE("a payload with numbers that are not finite is refused", "[codec][hostile]") {
  const Matrix m = matrix_of(2, 2, {1, 2, 3, 4});
  Matrix back(2, 2);
  const auto broken = [&](Format format, size_t at, auto value) {
    auto bytes = value_of(encode(format, m));
    overwrite(bytes, at, value);
    return decode_into(format, bytes, back.view());
  };
  for (const float bad : {kInf, -kInf, std::numeric_limits<float>::quiet_NaN()}) {
    const auto bits = std::bit_cast<uint32_t>(bad);
    CHECK_FAILS_WITH(broken(Format::kF32, 12, bits), ErrorCode::kNotFinite);
    CHECK_FAILS_WITH(broken(Format::kF16, 8, bits), ErrorCode::kNotFinite);  // the scale of row 1
  }
  for (const int bad : {0x7f80, 0xff80, 0x7fc0}) {
    CHECK_FAILS_WITH(broken(Format::kBf16, 6, static_cast<uint16_t>(bad)), ErrorCode::kNotFinite);
  }
  for (const int bad : {0x7c00, 0xfc00, 0x7e00}) {
    CHECK_FAILS_WITH(broken(Format::kF16, 14, static_cast<uint16_t>(bad)), ErrorCode::kNotFinite);
  }
  // Finite scale and finite number whose product is not.
  CHECK_FAILS_WITH(broken(Format::kF16, 8, kMax), ErrorCode::kNotFinite);
}

TEST_CASE("a scale that is not positive is refused", "[codec][hostile]") {
  const auto scale = GENERATE(0.0F, -0.0F, -1.0F);
  auto bytes = value_of(encode(Format::kF16, matrix_of(1, 2, {1, 2})));
  overwrite(bytes, 0, scale);
  Matrix back(1, 2);
  CHECK_FAILS_WITH(decode_into(Format::kF16, bytes, back.view()), ErrorCode::kCorrupt);
}

}  // namespace
}  // namespace isthmus::codec
