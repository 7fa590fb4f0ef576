// Rows and specs that several codec tests use.
#pragma once

#include <isthmus/codec/codec.h>
#include <isthmus/kernels/dtype.h>

#include <cmath>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "support/catch.h"

namespace isthmus::codec::test {

using isthmus::test::value_of;

/// A reproducible stream, so that stochastic rounding can be tested. Never used outside tests.
class SeededRandom final : public RandomSource {
 public:
  explicit SeededRandom(uint64_t seed) : engine_(seed) {}
  void fill(std::span<std::byte> bytes) override {
    for (std::byte& b : bytes) b = static_cast<std::byte>(engine_());
  }

 private:
  std::mt19937_64 engine_;
};

/// Rows with correlated channels of different sizes and a few outlier channels, from integer
/// arithmetic alone so that they are the same everywhere.
inline Matrix boundary_like(size_t rows, size_t cols, uint64_t seed, float size = 1,
                            float outlier = 16) {
  std::mt19937_64 random(seed);
  // Sum of uniform numbers: nearly Gaussian, and exact.
  const auto draw = [&random] {
    int64_t sum = 0;
    for (int i = 0; i < 8; ++i) sum += static_cast<int64_t>(random() % 4096) - 2048;
    return static_cast<float>(sum) / 3344.0F;
  };
  Matrix m(rows, cols);
  for (size_t r = 0; r < rows; ++r) {
    const float common = draw();
    for (size_t c = 0; c < cols; ++c) {
      const float channel = static_cast<float>(1 + c % 7) / 4.0F;
      m.row(r)[c] = size * channel * (draw() + 0.5F * common);
      if (c % 191 == 5) m.row(r)[c] *= outlier;
    }
  }
  return m;
}

/// A calibration of this width made from basic arithmetic alone, so that it is the same everywhere:
/// a reflection, which is orthogonal and its own inverse, and variances that fall by halves.
inline std::shared_ptr<const Calibration> calibration_for(size_t width) {
  std::vector<std::byte> bytes;
  const auto append = [&bytes](const auto& value) {
    const auto raw = std::as_bytes(std::span(&value, 1));
    for (const std::byte b : raw) bytes.push_back(b);
  };
  for (const char c : std::string("ISTHKLT1")) append(c);
  append(static_cast<uint32_t>(width));
  append(static_cast<uint32_t>(width));
  for (size_t i = 0; i < width; ++i) append(std::ldexp(8.0F, -static_cast<int>(8 * i / width)));
  for (size_t i = 0; i < width; ++i) append(static_cast<float>(1 + i * 5 % 7));
  double norm2 = 0;
  for (size_t i = 0; i < width; ++i) norm2 += static_cast<double>((1 + i % 3) * (1 + i % 3));
  for (size_t i = 0; i < width; ++i) {
    for (size_t j = 0; j < width; ++j) {
      const double entry = 2 * static_cast<double>((1 + i % 3) * (1 + j % 3)) / norm2;
      append(kernels::bf16_from_float(static_cast<float>((i == j ? 1 : 0) - entry)));
    }
  }
  return std::make_shared<const Calibration>(value_of(Calibration::parse(bytes)));
}

inline std::string hash_text(const Calibration& calibration) {
  std::string text(16, '0');
  for (size_t i = 0; i < 16; ++i)
    text[15 - i] = "0123456789abcdef"[calibration.hash() >> (4 * i) & 15];
  return text;
}

/// One of every stage, and the combinations that matter; HASH is a calibration's name.
inline const std::vector<std::string>& all_specs() {
  static const std::vector<std::string> specs = {"f32",
                                                 "bf16",
                                                 "f16|pad:64",
                                                 "int1",
                                                 "int2|rans",
                                                 "int8",
                                                 "sint1",
                                                 "sint5|rans",
                                                 "sign",
                                                 "tabq:0.05",
                                                 "tabq:0.002|rans",
                                                 "bfp:4:32",
                                                 "bfp:3:5|rans",
                                                 "split:4|rotate|int4|rans",
                                                 "split:64|rotate:9|int3",
                                                 "split:x6|int6|rans|pad:32",
                                                 "split:x4|step:0.5",
                                                 "rotate|step:0.7|rans",
                                                 "step:1.2",
                                                 "step:0.01|rans",
                                                 "split:x16|trellis:0.4|rans",
                                                 "rotate|trellis:1.5",
                                                 "split:3|rotate|clip:l2=20,max=3|int5|rans",
                                                 "clip:max=0.5|trellis:0.2|rans|pad:1",
                                                 "reorder:HASH|bfp:5:16",
                                                 "clip:max=3|binomial:4:mu=60|rans",
                                                 "rotate|clip:l2=20|dgauss:mu=30|rans|pad:8",
                                                 "clip:l2=2|dgauss:mu=1",
                                                 "clip:max=2|rqm:4:range=2",
                                                 "klt:HASH|trellis:0.4|rans",
                                                 "split:x16|klt:HASH|step:0.9|rans",
                                                 "split:2|klt:HASH|step:0.3"};
  return specs;
}

/// Whether encoding draws random numbers.
inline bool is_random(const std::string& spec) {
  for (const char* stage : {"sint", "binomial", "dgauss", "rqm"})
    if (spec.find(stage) != std::string::npos) return true;
  return false;
}

/// A spec of `all_specs` made ready; `random` may be null for decoding.
inline BoundaryCodec make_codec(std::string text, size_t width, RandomSource* random) {
  std::shared_ptr<const Calibration> calibration;
  if (const size_t at = text.find("HASH"); at != std::string::npos) {
    calibration = calibration_for(width);
    text.replace(at, 4, hash_text(*calibration));
  }
  CAPTURE(text);
  return value_of(BoundaryCodec::make(value_of(CodecSpec::parse(text)), width,
                                      {.calibration = calibration, .random = random}));
}

inline Matrix decode(const BoundaryCodec& codec, std::span<const std::byte> bytes, size_t rows) {
  Matrix back(rows, codec.width());
  value_of(codec.decode_into(bytes, back.view()));
  return back;
}

inline bool same_bits(std::span<const float> a, std::span<const float> b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size_bytes()) == 0;
}

/// Squared error over squared size, of all rows together.
inline double relative_error(const Matrix& a, const Matrix& b) {
  double error = 0;
  double size = 0;
  for (size_t i = 0; i < a.rows() * a.cols(); ++i) {
    const double x = a.data()[i];
    error += (x - b.data()[i]) * (x - b.data()[i]);
    size += x * x;
  }
  return size == 0 ? error : error / size;
}

}  // namespace isthmus::codec::test
