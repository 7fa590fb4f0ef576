// What each stage promises about the numbers.
#include <isthmus/kernels/portable_math.h>

#include "coded_row.h"
#include "outliers.h"
#include "samples.h"
#include "transform.h"

namespace isthmus::codec {
namespace {

using test::boundary_like;
using test::decode;
using test::make_codec;
using test::relative_error;
using test::SeededRandom;
using test::value_of;

Matrix gaussian(size_t rows, size_t cols, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  Matrix m(rows, cols);
  for (float& value : m.view().values()) value = normal(random);
  return m;
}

double error_of(const char* spec, const Matrix& rows) {
  const BoundaryCodec codec = make_codec(spec, rows.cols(), nullptr);
  return relative_error(rows, decode(codec, value_of(codec.encode(rows.view())), rows.rows()));
}

double bits_of(const char* spec, const Matrix& rows) {
  const auto bytes = value_of(make_codec(spec, rows.cols(), nullptr).encode(rows.view()));
  return 8 * static_cast<double>(bytes.size()) / static_cast<double>(rows.rows() * rows.cols());
}

TEST_CASE("scales are within 1/32 octave, and codes are in order", "[codec][scale]") {
  for (uint32_t code = 1; code < kMaxScale; ++code) {
    REQUIRE(scale_of(code) < scale_of(code + 1));
    REQUIRE(scale_code(scale_of(code)) == code);
    REQUIRE(scale_code_above(scale_of(code)) == code);
    REQUIRE(scale_code_above(double{scale_of(code)} * (1 + 1e-9)) == code + 1);
    REQUIRE(scale_code(double{scale_of(code)} * 1.0218) == code);
    REQUIRE(scale_code(double{scale_of(code)} * 1.0220) == code + 1);
  }
  CHECK(scale_of(0) == 0);
  CHECK(scale_code(0) == 0);
  CHECK(scale_code(1e-40) == 0);
  CHECK(scale_code(1e300) == kMaxScale);
}

TEST_CASE("uniform levels have the error that theory gives for a Gaussian", "[codec][int]") {
  // J. Max 1960, table II; 6 bits and more follow from the same integral.
  const auto [spec, expected] = GENERATE(table<const char*, double>({{"int1", 0.3634},
                                                                     {"int2", 0.1188},
                                                                     {"int3", 0.03744},
                                                                     {"int4", 0.01154},
                                                                     {"int5", 0.003495},
                                                                     {"int6", 0.001041},
                                                                     {"int7", 0.0003035},
                                                                     {"int8", 0.0000869},
                                                                     {"sign", 0.3634}}));
  CAPTURE(spec);
  // With many levels the scale gains by fitting each row's own largest number.
  const double error = error_of(spec, gaussian(64, 512, 3));
  CHECK(error < expected * 1.02);
  CHECK(error > expected * (expected > 0.01 ? 0.97 : 0.6));
}

TEST_CASE("the scale of a row has nearly the least error there is", "[codec][int]") {
  // Against every scale code, for rows with outliers.
  const Matrix rows = boundary_like(6, 96, 12);
  for (const int bits : {1, 2, 4, 8}) {
    const BoundaryCodec codec = make_codec("int" + std::to_string(bits), 96, nullptr);
    for (size_t r = 0; r < rows.rows(); ++r) {
      const auto row = rows.view().middle_rows(r, 1);
      Matrix exact(1, 96);
      std::copy(row.values().begin(), row.values().end(), exact.data());
      const double found = relative_error(exact, decode(codec, value_of(codec.encode(row)), 1));
      double best = 1;
      for (uint32_t code = 1; code <= kMaxScale; ++code) {
        Matrix back(1, 96);
        const float step = scale_of(code);
        const auto half = static_cast<float>(1 << (bits - 1));
        for (size_t i = 0; i < 96; ++i) {
          const float level = std::floor(exact.data()[i] / step);
          back.data()[i] = (std::min(std::max(level, -half), half - 1) + 0.5F) * step;
        }
        best = std::min(best, relative_error(exact, back));
      }
      CAPTURE(bits, r);
      CHECK(found <= best * 1.15);
    }
  }
}

TEST_CASE("stochastic rounding is unbiased and off by less than a step", "[codec][sint]") {
  const auto* const spec = GENERATE("sint1", "sint2", "sint4");
  SeededRandom random(77);
  const Matrix row = boundary_like(1, 16, 6);
  const BoundaryCodec codec = make_codec(spec, 16, &random);
  std::vector<double> sums(16);
  double step = 0;
  constexpr int kDraws = 20'000;
  for (int n = 0; n < kDraws; ++n) {
    const Matrix back = decode(codec, value_of(codec.encode(row.view())), 1);
    for (size_t i = 0; i < 16; ++i) {
      sums[i] += double{back.data()[i]};
      step = std::max(step, std::abs(double{back.data()[i]} - double{row.data()[i]}));
    }
  }
  // The standard deviation of a mean is at most half the largest error over sqrt(draws); 16 means
  // stay within 5 of them but with probability 1e-5 (the seed is fixed).
  for (size_t i = 0; i < 16; ++i)
    CHECK(std::abs(sums[i] / kDraws - double{row.data()[i]}) < 5 * step / std::sqrt(kDraws));
}

TEST_CASE("tabq takes the fewest bits that keep the bound", "[codec][tabq]") {
  const Matrix rows = boundary_like(20, 96, 31);
  for (const char* bound : {"0.3", "0.05", "0.01", "0.0005"}) {
    const BoundaryCodec codec = make_codec(std::string("tabq:") + bound, 96, nullptr);
    for (size_t r = 0; r < rows.rows(); ++r) {
      Matrix row(1, 96);
      std::copy(rows.row(r).begin(), rows.row(r).end(), row.data());
      const auto bytes = value_of(codec.encode(row.view()));
      const auto bits = static_cast<int>((bytes.size() * 8 - 12 - 3) / 96);
      CAPTURE(bound, r, bits);
      if (bits < 8)
        CHECK(relative_error(row, decode(codec, bytes, 1)) <= std::stod(bound) * 1.0001);
      if (bits > 1) {
        CHECK(error_of(("int" + std::to_string(bits - 1)).c_str(), row) > std::stod(bound) * 0.999);
      }
    }
  }
}

TEST_CASE("block floating point is off by at most half a step of its block", "[codec][bfp]") {
  const Matrix rows = boundary_like(4, 100, 14, 1000);
  const BoundaryCodec codec = make_codec("bfp:5:8", 100, nullptr);
  const Matrix back = decode(codec, value_of(codec.encode(rows.view())), 4);
  for (size_t r = 0; r < 4; ++r) {
    for (size_t begin = 0; begin < 100; begin += 8) {
      float largest = 0;
      for (size_t i = begin; i < std::min<size_t>(begin + 8, 100); ++i)
        largest = std::max(largest, std::abs(rows.row(r)[i]));
      // The block's power of two is below twice the largest; the top code may be short of it by a
      // step.
      const float step = 2 * largest / 16;
      for (size_t i = begin; i < std::min<size_t>(begin + 8, 100); ++i)
        REQUIRE(std::abs(rows.row(r)[i] - back.row(r)[i]) <= step);
    }
  }
}

TEST_CASE("reordering channels by size helps block floating point", "[codec][bfp]") {
  Matrix rows = boundary_like(50, 382, 14, 1, 1);
  for (size_t r = 0; r < 50; ++r)
    for (size_t i = 0; i < 382; ++i) rows.row(r)[i] *= std::exp2(static_cast<float>(i * 7 % 9));
  const auto calibration = std::make_shared<const Calibration>(value_of(calibrate(rows.view())));
  const auto spec =
      value_of(CodecSpec::parse("reorder:" + test::hash_text(*calibration) + "|bfp:4:32"));
  const BoundaryCodec sorted =
      value_of(BoundaryCodec::make(spec, 382, {.calibration = calibration}));
  const double with =
      relative_error(rows, decode(sorted, value_of(sorted.encode(rows.view())), 50));
  CHECK(with < 0.9 * error_of("bfp:4:32", rows));
}

TEST_CASE("steps give the error and the rate of theory", "[codec][step]") {
  const Matrix rows = gaussian(32, 512, 5);
  CHECK(error_of("step:0.5", rows) == Approx(0.25 / 12).epsilon(0.05));
  CHECK(bits_of("rotate|step:0.5|rans", rows) == Approx(3.047 + 12.0 / 512).margin(0.04));
  // At the error of step:0.5 the trellis takes 0.13 bits less.
  CHECK(error_of("trellis:0.3", rows) <= error_of("step:0.5", rows) * 1.06);
  CHECK(bits_of("rotate|trellis:0.3|rans", rows) < bits_of("rotate|step:0.5|rans", rows) - 0.11);
}

TEST_CASE("splitting takes the largest coordinates and is exact to binary16", "[codec][split]") {
  Matrix rows = gaussian(1, 64, 9);
  rows.row(0)[3] = 24'180;
  rows.row(0)[40] = -1e6F;
  const OutlierSplitter splitter({.count = 2}, 64);
  Outliers outliers;
  std::vector<float> row(rows.row(0).begin(), rows.row(0).end());
  splitter.take(row, outliers);
  REQUIRE(outliers.count == 2);
  CHECK(outliers.positions[0] == 3);
  CHECK(outliers.positions[1] == 40);
  CHECK(row[3] == 0);
  CHECK(row[40] == 0);
  splitter.put_back(outliers, row);
  CHECK(row[3] == Approx(24'180).epsilon(0x1p-11));
  CHECK(row[40] == Approx(-1e6).epsilon(0x1p-11));
  CHECK(row[5] == rows.row(0)[5]);
}

TEST_CASE("a threshold takes what stands out from the rest, however many", "[codec][split]") {
  const OutlierSplitter splitter({.threshold = 6}, 320);
  for (const size_t count : {0, 1, 2, 7, 20}) {
    Matrix rows = gaussian(1, 320, 9);
    for (size_t n = 0; n < count; ++n) rows.row(0)[3 * n] = n % 2 == 0 ? 5'000.0F : -7'000.0F;
    Outliers outliers;
    splitter.take(rows.row(0), outliers);
    CAPTURE(count);
    CHECK(outliers.count == count);
    for (const float value : rows.row(0)) CHECK(std::abs(value) < 10);
  }
}

TEST_CASE("rotations keep norms and undo themselves", "[codec][rotate]") {
  for (const size_t width : {1, 2, 3, 12, 64, 576, 577, 640, 1000, 4096}) {
    const auto rotation = value_of(make_rotation(3, width));
    const Matrix rows = boundary_like(2, width, 4);
    Matrix turned = rows;
    rotation->forward(turned.view());
    CAPTURE(width);
    CHECK(energy(turned.row(0)) == Approx(energy(rows.row(0))).epsilon(1e-5));
    rotation->inverse(turned.view());
    CHECK(relative_error(rows, turned) < 1e-11);
  }
}

TEST_CASE("rotations with other seeds are others", "[codec][rotate]") {
  Matrix a = boundary_like(1, 64, 4);
  Matrix b = a;
  value_of(make_rotation(1, 64))->forward(a.view());
  value_of(make_rotation(2, 64))->forward(b.view());
  CHECK(relative_error(a, b) > 0.5);
}

/// An orthogonal matrix drawn at random: Gram-Schmidt on Gaussian rows.
Matrix random_orthogonal(size_t size) {
  Matrix q = gaussian(size, size, 123);
  for (size_t r = 0; r < size; ++r) {
    for (size_t p = 0; p < r; ++p) {
      double dot = 0;
      for (size_t i = 0; i < size; ++i) dot += double{q.row(r)[i]} * double{q.row(p)[i]};
      for (size_t i = 0; i < size; ++i) q.row(r)[i] -= static_cast<float>(dot) * q.row(p)[i];
    }
    const auto norm = static_cast<float>(std::sqrt(energy(q.row(r))));
    for (float& value : q.row(r)) value /= norm;
  }
  return q;
}

TEST_CASE("rotating flattens outlier channels as a dense random rotation does", "[codec][rotate]") {
  // Error of int4 after the rotation, against that after a dense one. Rows with 1, 4 or 40 channels
  // that hold almost all of the energy.
  for (const size_t width : {320, 256, 96}) {
    const Matrix q = random_orthogonal(width);
    Matrix rows = gaussian(12, width, 44);
    for (size_t r = 0; r < rows.rows(); ++r) {
      const size_t outliers = r % 3 == 0 ? 1 : r % 3 == 1 ? 4 : 40;
      for (size_t n = 0; n < outliers; ++n) rows.row(r)[(n * 29 + r) % width] *= 60;
    }
    Matrix dense(rows.rows(), width);
    for (size_t r = 0; r < rows.rows(); ++r) {
      for (size_t i = 0; i < width; ++i) {
        double sum = 0;
        for (size_t j = 0; j < width; ++j) sum += double{q.row(i)[j]} * double{rows.row(r)[j]};
        dense.row(r)[i] = static_cast<float>(sum);
      }
    }
    CAPTURE(width, error_of("int4", rows));
    CHECK(error_of("rotate|int4", rows) < 1.25 * error_of("int4", dense));
  }
}

TEST_CASE("clipping bounds the norm first, then each coordinate", "[codec][clip]") {
  const Matrix rows = boundary_like(6, 64, 2, 50);
  const BoundaryCodec norm = make_codec("clip:l2=3|int8", 64, nullptr);
  const Matrix shorter = decode(norm, value_of(norm.encode(rows.view())), 6);
  const BoundaryCodec limit = make_codec("clip:max=2|int8", 64, nullptr);
  const Matrix flatter = decode(limit, value_of(limit.encode(rows.view())), 6);
  for (size_t r = 0; r < 6; ++r) {
    CHECK(std::sqrt(energy(shorter.row(r))) == Approx(3).epsilon(0.01));
    for (const float value : flatter.row(r)) CHECK(std::abs(value) < 2.02F);
  }
  // Rows within the bounds are left alone.
  CHECK(error_of("clip:l2=1e9,max=1e9|int8", rows) == error_of("int8", rows));
}

}  // namespace
}  // namespace isthmus::codec
