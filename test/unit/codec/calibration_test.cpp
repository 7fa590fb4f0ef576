#include <isthmus/codec/calibration.h>
#include <isthmus/kernels/dtype.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <limits>

#include "coded_row.h"
#include "klt_variants.h"
#include "samples.h"
#include "support/temp_folder.h"
#include "transform.h"

namespace isthmus::codec {
namespace {

using test::boundary_like;
using test::calibration_for;
using test::decode;
using test::make_codec;
using test::relative_error;
using test::value_of;

TEST_CASE("a calibration is orthogonal, sorted, and sums to the rows' energy", "[codec][klt]") {
  const size_t block = GENERATE(0, 16, 48);
  const Matrix rows = boundary_like(300, 48, 5, 1, 1);
  const Calibration c = value_of(calibrate(rows.view(), block));
  REQUIRE(c.width() == 48);
  REQUIRE(c.block() == (block == 0 ? 48 : block));
  double sum = 0;
  for (size_t i = 0; i < 48; ++i) {
    sum += double{c.variance()[i]};
    if (i % c.block() > 0) CHECK(c.variance()[i] <= c.variance()[i - 1]);
  }
  CHECK(sum == Approx(48).epsilon(1e-3));
  for (size_t b = 0; b < 48 / c.block(); ++b) {
    for (size_t m = 0; m < c.block(); ++m) {
      for (size_t n = 0; n < c.block(); ++n) {
        double dot = 0;
        for (size_t i = 0; i < c.block(); ++i) {
          dot += double{kernels::float_from_bf16(c.matrix(b)[i * c.block() + m])} *
                 double{kernels::float_from_bf16(c.matrix(b)[i * c.block() + n])};
        }
        REQUIRE(dot == Approx(m == n ? 1 : 0).margin(0.01));
      }
    }
  }
}

TEST_CASE("a calibration's components carry the variance that it states", "[codec][klt]") {
  Matrix rows = boundary_like(2000, 24, 5, 1, 1);
  const Calibration c = value_of(calibrate(rows.view()));
  const auto klt = make_klt(c, std::vector<size_t>{24});
  // Rows of unit mean square, as the calibration saw them.
  for (size_t r = 0; r < rows.rows(); ++r) {
    double energy = 0;
    for (const float value : rows.row(r)) energy += double{value} * double{value};
    for (float& value : rows.row(r)) value /= static_cast<float>(std::sqrt(energy / 24));
  }
  klt->forward(rows.view());
  for (size_t n = 0; n < 24; ++n) {
    double sum = 0;
    for (size_t r = 0; r < rows.rows(); ++r) sum += double{rows.row(r)[n]} * double{rows.row(r)[n]};
    CHECK(sum / 2000 == Approx(c.variance()[n]).epsilon(0.02).margin(1e-3));
  }
}

TEST_CASE("a calibrated transform keeps norms, however few components are wanted", "[codec][klt]") {
  const Calibration c = value_of(calibrate(boundary_like(300, 48, 5, 1, 1).view(), 16));
  const Matrix rows = boundary_like(4, 48, 6, 100, 1);
  Matrix whole = rows;
  make_klt(c, std::vector<size_t>{16, 16, 16})->forward(whole.view());
  const std::vector<size_t> used = {16, 5, 0};
  Matrix part = rows;
  make_klt(c, used)->forward(part.view());
  for (size_t r = 0; r < 4; ++r) {
    for (size_t b = 0; b < 3; ++b) {
      CAPTURE(r, b);
      const auto block = [&](const Matrix& m) { return m.row(r).subspan(16 * b, 16); };
      CHECK(test::same_bits(block(part).first(used[b]), block(whole).first(used[b])));
      CHECK(energy(block(part)) == Approx(energy(block(rows))).epsilon(0.01));
    }
  }
}

TEST_CASE("a step is of the row's root mean square, whatever of it is coded", "[codec][klt]") {
  // Rows with nearly all of their energy in the last channels, which become the first components.
  Matrix rows = boundary_like(300, 96, 5, 1, 1);
  for (size_t r = 0; r < rows.rows(); ++r)
    for (size_t i = 0; i < 48; ++i) rows.row(r)[i] *= 0.05F;
  const auto c = std::make_shared<const Calibration>(value_of(calibrate(rows.view())));
  Matrix usual(1, 96);
  std::copy(rows.row(7).begin(), rows.row(7).end(), usual.data());
  Matrix unusual = usual;
  std::reverse(unusual.row(0).begin(), unusual.row(0).end());
  // Without entropy coding a message starts with the scale.
  const auto scale_of_row = [&](const std::string& stages, const Matrix& row) {
    const auto spec = value_of(CodecSpec::parse("klt:" + test::hash_text(*c) + stages));
    const auto codec = value_of(BoundaryCodec::make(spec, 96, {.calibration = c}));
    const auto bytes = value_of(codec.encode(row.view()));
    const auto code = std::to_integer<uint32_t>(bytes[0]) | std::to_integer<uint32_t>(bytes[1])
                                                                << 8;
    return scale_of(code & ((1U << kScaleBits) - 1));
  };
  for (const Matrix& row : {usual, unusual}) {
    const double rms = std::sqrt(energy(row.row(0)) / 96);
    for (const char* step : {"0.02", "0.5", "2", "8"}) {
      CAPTURE(step);
      CHECK(scale_of_row(std::string("|step:") + step, row) == Approx(rms).epsilon(0.03));
      CHECK(scale_of_row(std::string("|clip:l2=3|trellis:") + step, row) ==
            Approx(3 / std::sqrt(96)).epsilon(0.03));
    }
  }
}

TEST_CASE("correlated rows take fewer bits for the same error with a calibration", "[codec][klt]") {
  // Four numbers behind 64 channels, and some noise.
  std::mt19937 random(3);
  std::normal_distribution<float> normal;
  Matrix mixing(4, 64);
  for (float& value : mixing.view().values()) value = normal(random);
  Matrix rows(800, 64);
  for (size_t r = 0; r < rows.rows(); ++r) {
    for (float& value : rows.row(r)) value = 0.1F * normal(random);
    for (size_t k = 0; k < 4; ++k) {
      const float weight = normal(random);
      for (size_t i = 0; i < 64; ++i) rows.row(r)[i] += weight * mixing.row(k)[i];
    }
  }
  const auto c =
      std::make_shared<const Calibration>(value_of(calibrate(rows.view().middle_rows(0, 400))));
  const auto test_rows = rows.view().middle_rows(400, 400);
  Matrix exact(400, 64);
  std::copy(test_rows.values().begin(), test_rows.values().end(), exact.data());
  const auto measure = [&](const std::string& text) {
    const BoundaryCodec codec =
        value_of(BoundaryCodec::make(value_of(CodecSpec::parse(text)), 64, {.calibration = c}));
    const auto bytes = value_of(codec.encode(exact.view()));
    return std::pair(bytes.size(), relative_error(exact, decode(codec, bytes, 400)));
  };
  const auto [plain_bytes, plain_error] = measure("rotate|trellis:0.4|rans");
  const auto [klt_bytes, klt_error] = measure("klt:" + test::hash_text(*c) + "|trellis:0.4|rans");
  CHECK(klt_error < plain_error * 1.05);
  CHECK(klt_bytes < plain_bytes / 4);
}

TEST_CASE("a calibration is named by its bytes and reads back", "[codec][calibration]") {
  const auto c = calibration_for(24);
  const auto bytes = c->serialize();
  const Calibration again = value_of(Calibration::parse(bytes));
  CHECK(again.hash() == c->hash());
  CHECK(again.serialize() == bytes);
  auto other = bytes;
  other[20] ^= std::byte{1};  // lowest bits of a variance
  CHECK(value_of(Calibration::parse(other)).hash() != c->hash());
}

TEST_CASE("a calibration is saved and loaded", "[codec][calibration]") {
  const isthmus::test::TempFolder folder;
  const std::string path = (folder.path() / "cut-3.klt").string();
  const auto c = calibration_for(8);
  REQUIRE(c->save(path).has_value());
  CHECK(value_of(Calibration::load(path)).serialize() == c->serialize());
  REQUIRE(calibration_for(4)->save(path).has_value());  // over a longer one
  CHECK(value_of(Calibration::load(path)).hash() == calibration_for(4)->hash());
  CHECK_FAILS_WITH(Calibration::load(path + "x"), ErrorCode::kNotFound);
  CHECK_FAILS_WITH(c->save((folder.path() / "none" / "cut-3.klt").string()), ErrorCode::kIo);
  std::filesystem::resize_file(path, std::filesystem::file_size(path) - 1);
  CHECK_FAILS_WITH(Calibration::load(path), ErrorCode::kTruncated);
}

template <typename T>
std::vector<std::byte> with(std::vector<std::byte> bytes, size_t at, T value) {
  std::memcpy(bytes.data() + at, &value, sizeof value);
  return bytes;
}

TEST_CASE("broken calibrations are refused, field by field", "[codec][calibration][hostile]") {
  const auto good = calibration_for(8)->serialize();
  for (size_t length = 0; length < good.size(); ++length) {
    const std::vector<std::byte> cut(good.begin(),
                                     good.begin() + static_cast<std::ptrdiff_t>(length));
    CHECK_FAILS_WITH(Calibration::parse(cut), ErrorCode::kTruncated);
  }
  auto longer = good;
  longer.push_back(std::byte{0});
  CHECK_FAILS_WITH(Calibration::parse(longer), ErrorCode::kCorrupt);
  CHECK_FAILS_WITH(Calibration::parse(with(good, 0, 'X')), ErrorCode::kCorrupt);
  CHECK_FAILS_WITH(Calibration::parse(with(good, 8, uint32_t{0})), ErrorCode::kCorrupt);
  CHECK_FAILS_WITH(Calibration::parse(with(good, 8, uint32_t{65'537})), ErrorCode::kTooLarge);
  CHECK_FAILS_WITH(Calibration::parse(with(good, 8, UINT32_MAX)), ErrorCode::kTooLarge);
  CHECK_FAILS_WITH(Calibration::parse(with(good, 12, uint32_t{0})), ErrorCode::kCorrupt);
  CHECK_FAILS_WITH(Calibration::parse(with(good, 12, uint32_t{3})), ErrorCode::kCorrupt);
  CHECK_FAILS_WITH(Calibration::parse(with(good, 12, uint32_t{4'097})), ErrorCode::kTooLarge);
  for (const float bad : {-1.0F, 1e9F, std::numeric_limits<float>::quiet_NaN()}) {
    CHECK_FAILS_WITH(Calibration::parse(with(good, 16, bad)), ErrorCode::kCorrupt);
    CHECK_FAILS_WITH(Calibration::parse(with(good, 16 + 8 * 4, bad)), ErrorCode::kCorrupt);
  }
  for (const int bad : {0x7f80, 0xffc0, 0x4000}) {
    CHECK_FAILS_WITH(Calibration::parse(with(good, good.size() - 2, static_cast<uint16_t>(bad))),
                     ErrorCode::kCorrupt);
  }
}

TEST_CASE("what cannot be calibrated is refused", "[codec][calibration]") {
  CHECK_FAILS_WITH(calibrate(Matrix(1, 8).view()), ErrorCode::kInvalidArgument);
  CHECK_FAILS_WITH(calibrate(Matrix(8, 0).view()), ErrorCode::kInvalidArgument);
  CHECK_FAILS_WITH(calibrate(Matrix(8, 8).view(), 3), ErrorCode::kInvalidArgument);
  CHECK_FAILS_WITH(calibrate(Matrix(8, 8).view(), 16), ErrorCode::kInvalidArgument);
  CHECK_FAILS_WITH(calibrate(Matrix(8, 4'098).view(), 4'098), ErrorCode::kInvalidArgument);
  Matrix rows = boundary_like(8, 8, 1);
  rows.row(5)[1] = std::numeric_limits<float>::infinity();
  CHECK_FAILS_WITH(calibrate(rows.view()), ErrorCode::kNotFinite);
  CHECK(calibrate(Matrix(8, 8).view()).has_value());  // rows of zeros
}

TEST_CASE("every instruction set gives the same products", "[codec][klt]") {
  std::mt19937 random(8);
  std::normal_distribution<float> normal;
  const auto sizes = GENERATE(table<size_t, size_t, size_t>(
      {{1, 5, 3}, {3, 64, 64}, {4, 70, 65}, {9, 33, 200}, {2, 576, 416}}));
  const size_t rows = std::get<0>(sizes);
  const size_t inner = std::get<1>(sizes);
  const size_t outputs = std::get<2>(sizes);
  std::vector<float> x(rows * inner);
  for (float& value : x) value = normal(random);
  std::vector<uint16_t> matrix((outputs + 63) / 64 * 64 * inner);
  for (uint16_t& value : matrix) value = kernels::bf16_from_float(normal(random));
  const auto product = [&](auto* function) {
    std::vector<float> y(rows * outputs, -1);
    function({.x = x.data(),
              .x_stride = inner,
              .matrix = matrix.data(),
              .y = y.data(),
              .y_stride = outputs,
              .rows = rows,
              .inner = inner,
              .outputs = outputs});
    return y;
  };
  std::vector<float> expected(rows * outputs);
  for (size_t r = 0; r < rows; ++r) {
    for (size_t n = 0; n < outputs; ++n) {
      const uint16_t* const column = matrix.data() + n / 64 * 64 * inner + n % 64;
      for (size_t i = 0; i < inner; ++i)
        expected[r * outputs + n] += x[r * inner + i] * kernels::float_from_bf16(column[i * 64]);
    }
  }
  CHECK(product(generic::tiled_product) == expected);
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2")) CHECK(product(avx2::tiled_product) == expected);
  if (__builtin_cpu_supports("avx512bw")) CHECK(product(avx512::tiled_product) == expected);
#endif
}

}  // namespace
}  // namespace isthmus::codec
