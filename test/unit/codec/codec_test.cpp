#include <isthmus/codec/codec.h>

#include <limits>

#include "samples.h"

namespace isthmus::codec {
namespace {

using test::all_specs;
using test::boundary_like;
using test::decode;
using test::make_codec;
using test::same_bits;
using test::SeededRandom;
using test::value_of;

/// FNV-1a, to keep golden values short.
uint64_t fingerprint(std::span<const std::byte> bytes) {
  uint64_t hash = 0xcbf29ce484222325;
  for (const std::byte b : bytes) hash = (hash ^ std::to_integer<uint64_t>(b)) * 0x100000001b3;
  return hash;
}

TEST_CASE("every spec round-trips at every width and size of number", "[codec][round-trip]") {
  const auto spec = GENERATE(from_range(all_specs()));
  for (const size_t width : {1, 2, 3, 8, 63, 64, 96}) {
    for (const float size : {1e-30F, 1e-3F, 1.0F, 1e6F, 1e20F}) {
      CAPTURE(spec, width, size);
      SeededRandom random(5);
      const BoundaryCodec codec = make_codec(spec, width, &random);
      const Matrix rows = boundary_like(5, width, 17, size);
      const auto bytes = value_of(codec.encode(rows.view()));
      REQUIRE(bytes.size() <= value_of(codec.max_encoded_bytes(5)));
      const Matrix back = decode(codec, bytes, 5);
      REQUIRE(same_bits(back.view().values(), decode(codec, bytes, 5).view().values()));
      for (const float value : back.view().values()) REQUIRE(std::isfinite(value));
    }
  }
}

TEST_CASE("what a row decodes to does not depend on the rows beside it", "[codec][invariance]") {
  const auto spec = GENERATE(from_range(all_specs()));
  if (test::is_random(spec)) return;  // draws anew for each row
  CAPTURE(spec);
  const BoundaryCodec codec = make_codec(spec, 96, nullptr);
  const Matrix rows = boundary_like(9, 96, 3, 100);
  const Matrix together = decode(codec, value_of(codec.encode(rows.view())), 9);
  for (const size_t chunk : {1, 2, 4, 5}) {
    for (size_t first = 0; first + chunk <= 9; first += chunk) {
      const auto bytes = value_of(codec.encode(rows.view().middle_rows(first, chunk)));
      const Matrix apart = decode(codec, bytes, chunk);
      REQUIRE(same_bits(apart.view().values(), together.view().middle_rows(first, chunk).values()));
    }
  }
}

TEST_CASE("rows of zeros, and zeros beside a single number, are normal input", "[codec][edges]") {
  const auto spec = GENERATE(from_range(all_specs()));
  CAPTURE(spec);
  SeededRandom random(5);
  const BoundaryCodec codec = make_codec(spec, 96, &random);
  Matrix rows(4, 96);
  rows.row(1)[7] = 1e6F;
  rows.row(2)[0] = -3e-40F;
  for (float& value : rows.row(3)) value = 24'180;
  const Matrix back = decode(codec, value_of(codec.encode(rows.view())), 4);
  if (spec.find("clip") != std::string::npos) return;  // not what this is about
  for (const float value : back.row(0)) CHECK(value == 0);
  // The order of magnitude survives every code.
  double sum = 0;
  for (const float value : back.row(3)) sum += value;
  CHECK(sum / 96 > 5'000);
  CHECK(sum / 96 < 60'000);
}

TEST_CASE("no rows are no bytes", "[codec][edges]") {
  const auto spec = GENERATE(from_range(all_specs()));
  CAPTURE(spec);
  SeededRandom random(5);
  const BoundaryCodec codec = make_codec(spec, 8, &random);
  CHECK(value_of(codec.max_encoded_bytes(0)) == 0);
  CHECK(value_of(codec.encode(Matrix(0, 8).view())).empty());
  Matrix none(0, 8);
  CHECK(codec.decode_into({}, none.view()).has_value());
}

TEST_CASE("each spec has its bytes", "[codec][golden]") {
  // Fingerprints of the message and of what it decodes to. A change here breaks every peer of
  // another version.
  struct Golden {
    uint64_t bytes;
    uint64_t rows;
  };
  static const std::vector<Golden> golden = {
      {0x25a53df4391b5d26, 0x25a53df4391b5d26}, {0xe17be62a4c6c6c97, 0x95ea6da03fff9eef},
      {0x4f478bfe147167a1, 0xd5bef679698614ce}, {0xdb9f3f84f3ab5559, 0x8fe4f3028b085e65},
      {0x55f0a2a474d705b6, 0xe9361f9c46f449f3}, {0xe1cc8f7e2fdea3a8, 0x76537a63465d72a8},
      {0x8be4a12a2a098618, 0x1b49484787ddd065}, {0xb4bde37e16cc56ad, 0x074cd48baec1d422},
      {0xf8435d121be9c8e4, 0xd0335e06f1feb7a5}, {0x61d5a4e62b43d031, 0x4a23cac8fcc549e3},
      {0x4024f3bb57fb049d, 0xf154ad3280ca6fff}, {0x681431dc3f750a08, 0x78a4be832719bb32},
      {0xe616f8829b1d435b, 0x38211ea55bb0c112}, {0xe710f1a9632bb25f, 0x327367d0413d8246},
      {0xbd8260e56594d806, 0xce2376deb380d89f}, {0x8125586111b01f43, 0xdfe2b97464079f3b},
      {0xc9f903c08c3131a6, 0x6fc2acd6fbb10770}, {0x41f5997e11f2143f, 0x6f8e6e19f90b9e0b},
      {0x53a7aaa303890f93, 0x18428e5e556e76da}, {0xaac141e69c921831, 0x30dac04b62fa23dd},
      {0x5f99ae918b7d6a27, 0xb88ed9dcae1337b3}, {0x2e5717498ae9e4de, 0x85a6f3b735790519},
      {0xfe764f236573b95a, 0x117c3a5b5b1649a6}, {0x3f77ce9f99810686, 0x727ae1f1174dd11e},
      {0xc79cd8211c9a941f, 0x12614bd61f0716eb}, {0x4f6f53ce097c78d6, 0x7ad3976f4e769b73},
      {0x85522e6c657e46ca, 0x3f4765fccb368cb8}, {0x808a0ad8330feb27, 0xae7e95fa612ba65e},
      {0xb9132eb69ca7c5c6, 0x898499ba757ca32e}, {0x3b26e07c643cd483, 0x8e5ad83b3407243e},
      {0x5ed999a09c411c27, 0xa74b5a639926ea83}, {0xfb962daa426d107c, 0x2aa823dcdd096fd1},
  };
  REQUIRE(golden.size() == all_specs().size());
  for (size_t i = 0; i < golden.size(); ++i) {
    SeededRandom random(5);
    const BoundaryCodec codec = make_codec(all_specs()[i], 96, &random);
    const auto bytes = value_of(codec.encode(boundary_like(3, 96, 1, 10).view()));
    const Matrix back = decode(codec, bytes, 3);
    CAPTURE(all_specs()[i], bytes.size());
    CHECK(fingerprint(bytes) == golden[i].bytes);
    CHECK(fingerprint(std::as_bytes(back.view().values())) == golden[i].rows);
  }
}

TEST_CASE("entropy coding never costs more than a byte over plain packing", "[codec][size]") {
  const auto* const spec = GENERATE("int2", "split:x6|int4", "tabq:0.1", "step:0.5", "trellis:2",
                                    "split:4|bfp:4:32", "rotate|int8");
  for (const uint64_t seed : {1, 2, 3}) {
    // What no table expects: every number equally often.
    Matrix rows(2, 96);
    std::mt19937_64 random(seed);
    for (float& value : rows.view().values())
      value = static_cast<float>(static_cast<int64_t>(random() % 2001) - 1000);
    const auto packed = value_of(make_codec(spec, 96, nullptr).encode(rows.view()));
    const auto coded =
        value_of(make_codec(std::string(spec) + "|rans", 96, nullptr).encode(rows.view()));
    CAPTURE(spec);
    CHECK(coded.size() <= packed.size() + 1);
  }
}

TEST_CASE("entropy coding changes no number", "[codec][rans]") {
  const auto* const spec =
      GENERATE("int4", "split:4|rotate|int3", "tabq:0.02", "step:0.4", "split:x6|bfp:4:8");
  const Matrix rows = boundary_like(4, 96, 8);
  const BoundaryCodec packed = make_codec(spec, 96, nullptr);
  const BoundaryCodec coded = make_codec(std::string(spec) + "|rans", 96, nullptr);
  const Matrix a = decode(packed, value_of(packed.encode(rows.view())), 4);
  const Matrix b = decode(coded, value_of(coded.encode(rows.view())), 4);
  CHECK(same_bits(a.view().values(), b.view().values()));
}

TEST_CASE("padding rounds up to whole classes", "[codec][pad]") {
  const Matrix rows = boundary_like(3, 96, 8);
  const auto plain = value_of(make_codec("int4|rans", 96, nullptr).encode(rows.view()));
  const BoundaryCodec codec = make_codec("int4|rans|pad:100", 96, nullptr);
  const auto padded = value_of(codec.encode(rows.view()));
  CHECK(padded.size() == (plain.size() + 99) / 100 * 100);
  CHECK(std::equal(plain.begin(), plain.end(), padded.begin()));
  CHECK(value_of(codec.max_encoded_bytes(3)) % 100 == 0);
}

TEST_CASE("what is not finite is refused by every spec, by the row", "[codec][errors]") {
  const auto spec = GENERATE(from_range(all_specs()));
  SeededRandom random(5);
  const BoundaryCodec codec = make_codec(spec, 8, &random);
  for (const float bad :
       {std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity(),
        std::numeric_limits<float>::quiet_NaN()}) {
    Matrix rows = boundary_like(4, 8, 2);
    rows.row(2)[5] = bad;
    const auto result = codec.encode(rows.view());
    CHECK_FAILS_WITH(result, ErrorCode::kNotFinite);
    CHECK_THAT(result.error().message, Catch::Contains("row 2"));
  }
}

TEST_CASE("numbers too large for the scale are refused", "[codec][errors]") {
  const BoundaryCodec codec = make_codec("int8", 2, nullptr);
  Matrix rows(1, 2);
  rows.row(0)[1] = -0x1p100F;
  CHECK_FAILS_WITH(codec.encode(rows.view()), ErrorCode::kNotFinite);
  rows.row(0)[1] = std::nextafter(-0x1p100F, 0.0F);
  CHECK(decode(codec, value_of(codec.encode(rows.view())), 1).row(0)[1] ==
        Approx(-0x1p100F).epsilon(0.05));
}

TEST_CASE("a codec is for one width", "[codec][errors]") {
  const BoundaryCodec codec = make_codec("int4", 8, nullptr);
  CHECK_FAILS_WITH(codec.encode(Matrix(1, 9).view()), ErrorCode::kInvalidArgument);
  Matrix other(1, 7);
  CHECK_FAILS_WITH(codec.decode_into({}, other.view()), ErrorCode::kInvalidArgument);
  const CodecSpec spec = value_of(CodecSpec::parse("int4"));
  CHECK_FAILS_WITH(BoundaryCodec::make(spec, 0), ErrorCode::kUnsupported);
  CHECK_FAILS_WITH(BoundaryCodec::make(spec, 65'537), ErrorCode::kUnsupported);
  CHECK_FAILS_WITH(BoundaryCodec::make({.quantizer = Uniform{.bits = 9}}, 8),
                   ErrorCode::kUnsupported);
  CHECK_FAILS_WITH(BoundaryCodec::make(value_of(CodecSpec::parse("rotate|int4")), 2 * 1031),
                   ErrorCode::kUnsupported);
}

TEST_CASE("a codec says what it lacks", "[codec][errors]") {
  const BoundaryCodec stochastic = make_codec("sint4", 8, nullptr);
  CHECK_FAILS_WITH(stochastic.encode(Matrix(1, 8).view()), ErrorCode::kInvalidArgument);
  const CodecSpec spec = value_of(CodecSpec::parse("klt:0123456789abcdef|step:1"));
  CHECK_FAILS_WITH(BoundaryCodec::make(spec, 8), ErrorCode::kNotFound);
  const auto calibration = test::calibration_for(8);
  CHECK_FAILS_WITH(BoundaryCodec::make(spec, 8, {.calibration = calibration}),
                   ErrorCode::kNotFound);
  const CodecSpec right =
      value_of(CodecSpec::parse("klt:" + test::hash_text(*calibration) + "|step:1"));
  CHECK_FAILS_WITH(BoundaryCodec::make(right, 9, {.calibration = calibration}),
                   ErrorCode::kInvalidArgument);
}

TEST_CASE("sizes are counted without overflow", "[codec][size]") {
  const auto spec = GENERATE(from_range(all_specs()));
  const BoundaryCodec codec = make_codec(spec, 8, nullptr);
  CHECK_FAILS_WITH(codec.max_encoded_bytes(SIZE_MAX), ErrorCode::kTooLarge);
  CHECK_FAILS_WITH(codec.max_encoded_bytes(SIZE_MAX / 8), ErrorCode::kTooLarge);
}

TEST_CASE("a mechanism's rows are unbiased through the whole codec", "[codec][mechanism]") {
  const auto* const spec = GENERATE("clip:max=3|binomial:3:mu=60|rans", "clip:max=3|rqm:3:range=2",
                                    "rotate|clip:l2=30|dgauss:mu=40|rans");
  SeededRandom random(8);
  const BoundaryCodec codec = make_codec(spec, 16, &random);
  REQUIRE(codec.mechanism() != nullptr);
  const Matrix row = boundary_like(1, 16, 6, 0.5F, 1);  // within the clip
  std::vector<double> sums(16);
  std::vector<double> squares(16);
  constexpr int kDraws = 20'000;
  for (int n = 0; n < kDraws; ++n) {
    const Matrix back = decode(codec, value_of(codec.encode(row.view())), 1);
    for (size_t i = 0; i < 16; ++i) {
      const double off = double{back.data()[i]} - double{row.data()[i]};
      sums[i] += off;
      squares[i] += off * off;
    }
  }
  // 16 means within 5 standard deviations of theirs but with probability 1e-5 (the seed is fixed).
  for (size_t i = 0; i < 16; ++i)
    CHECK(std::abs(sums[i]) < 5 * std::sqrt(squares[i]) + 1e-4 * kDraws);
}

TEST_CASE("what is agreed on has a mechanism's derived parameters", "[codec][mechanism]") {
  const CodecSpec asked = value_of(CodecSpec::parse("clip:l2=2|dgauss:eps=8|rans"));
  const BoundaryCodec codec = value_of(BoundaryCodec::make(asked, 16));
  const CodecSpec agreed = codec.spec();
  CHECK(agreed.mechanism()->epsilon == 0);
  CHECK(agreed.mechanism()->mu > 0);
  const BoundaryCodec peer =
      value_of(BoundaryCodec::make(value_of(CodecSpec::parse(agreed.to_string())), 16));
  CHECK(peer.spec() == agreed);
  CHECK(codec.mechanism()->epsilon(1, 1e-5) <= 8.0001);
}

TEST_CASE("parameters that a mechanism cannot have are refused", "[codec][mechanism]") {
  // A bound on the norm says nothing of a coordinate's probabilities here.
  const CodecSpec spec = value_of(CodecSpec::parse("clip:l2=1|binomial:4:mu=5"));
  CHECK_FAILS_WITH(BoundaryCodec::make(spec, 16), ErrorCode::kInvalidArgument);
  CHECK_FAILS_WITH(CodecSpec::parse("clip:max=1|dgauss:eps=1e-9"), ErrorCode::kInvalidArgument);
  CHECK_FAILS_WITH(CodecSpec::parse("clip:max=1|binomial:4:nu=5"), ErrorCode::kUnsupported);
  CHECK_FAILS_WITH(CodecSpec::parse("clip:max=1|dgauss:mu=-1"), ErrorCode::kInvalidArgument);
}

TEST_CASE("a noised message is likeliest for the row it was made of", "[codec][mechanism]") {
  const auto* const spec =
      GENERATE("rotate|clip:max=3|binomial:3:mu=300|rans", "rotate|clip:l2=30|dgauss:mu=60",
               "clip:max=3|rqm:4:keep=0.9:range=1.2|rans");
  CAPTURE(spec);
  test::SeededRandom random(4);
  const BoundaryCodec codec = make_codec(spec, 64, &random);
  const Matrix rows = boundary_like(20, 64, 9);
  std::vector<std::vector<std::byte>> messages;
  for (size_t r = 0; r < rows.rows(); ++r)
    messages.push_back(value_of(codec.encode(rows.view().middle_rows(r, 1))));
  const auto logs = value_of(codec.log_likelihoods(messages, rows.view()));
  REQUIRE(logs.size() == rows.rows());
  for (size_t m = 0; m < messages.size(); ++m) {
    size_t best = 0;
    for (size_t r = 0; r < rows.rows(); ++r) {
      REQUIRE(logs[r].size() == messages.size());
      if (logs[r][m] > logs[best][m]) best = r;
      // One at a time, without a table, it is the same.
      const auto alone = value_of(
          codec.log_likelihoods(std::span(messages).subspan(m, 1), rows.view().middle_rows(r, 1)));
      CHECK(alone[0][0] == Approx(logs[r][m]));
    }
    CHECK(best == m);
  }
  const std::vector<std::vector<std::byte>> two = {
      value_of(codec.encode(rows.view().middle_rows(0, 2)))};
  CHECK_FAILS_WITH(codec.log_likelihoods(two, rows.view()), ErrorCode::kCorrupt);
  CHECK_FAILS_WITH(codec.log_likelihoods(two, Matrix(1, 63).view()), ErrorCode::kInvalidArgument);
  const BoundaryCodec plain = make_codec("rotate|int4", 64, nullptr);
  CHECK_FAILS_WITH(plain.log_likelihoods({}, rows.view()), ErrorCode::kInvalidArgument);
  CHECK_FAILS_WITH(plain.expectations(rows.view()), ErrorCode::kInvalidArgument);
}

TEST_CASE("what rows decode to on average is as said", "[codec][mechanism]") {
  const auto* const spec = GENERATE("rotate|clip:max=1|binomial:3:mu=300", "clip:l2=5|dgauss:mu=60",
                                    "rotate|clip:l2=8,max=2|rqm:4:keep=0.9:range=1.2");
  CAPTURE(spec);
  test::SeededRandom random(5);
  const BoundaryCodec codec = make_codec(spec, 64, &random);
  const Matrix row = boundary_like(1, 64, 9);
  const Matrix expected = value_of(codec.expectations(row.view()));
  constexpr int kDraws = 4000;
  std::vector<double> sums(64);
  std::vector<double> squares(64);
  Matrix decoded(1, 64);
  for (int i = 0; i < kDraws; ++i) {
    value_of(codec.decode_into(value_of(codec.encode(row.view())), decoded.view()));
    for (size_t c = 0; c < 64; ++c) {
      const double off = decoded.row(0)[c] - expected.row(0)[c];
      sums[c] += off;
      squares[c] += off * off;
    }
  }
  // All 64 within 5 standard deviations but with probability 4e-5 (the seed is fixed).
  for (size_t c = 0; c < 64; ++c)
    CHECK(std::abs(sums[c]) < 5 * std::sqrt(squares[c]) + 1e-4 * kDraws);
}

}  // namespace
}  // namespace isthmus::codec
