// A learned projection in front of all other stages: what is coded is its latents, and what comes
// back is decoded from them.
#include <isthmus/codec/projection.h>
#include <isthmus/privacy/mechanism.h>

#include <limits>

#include "samples.h"

namespace isthmus::codec {
namespace {

using test::boundary_like;
using test::decode;
using test::same_bits;
using test::SeededRandom;
using test::value_of;

constexpr uint64_t kId = 0x0123456789abcdef;
constexpr size_t kWidth = 24;
constexpr size_t kDims = 8;

Matrix some(size_t rows, size_t cols, uint64_t seed) {
  return boundary_like(rows, cols, seed, 0.3F, 1);
}

std::shared_ptr<const Projection> projection(bool encoder = true, bool decoder = true) {
  return std::make_shared<const Projection>(
      value_of(Projection::make(kId, encoder ? some(kDims, kWidth, 1) : Matrix(),
                                decoder ? some(kWidth, kDims, 2) : Matrix())));
}

/// Plain sums in double.
Matrix product(const Matrix& rows, const Matrix& matrix) {
  Matrix out(rows.rows(), matrix.rows());
  for (size_t r = 0; r < rows.rows(); ++r) {
    for (size_t i = 0; i < matrix.rows(); ++i) {
      double sum = 0;
      for (size_t j = 0; j < matrix.cols(); ++j)
        sum += double{rows.row(r)[j]} * double{matrix.row(i)[j]};
      out.row(r)[i] = static_cast<float>(sum);
    }
  }
  return out;
}

BoundaryCodec make(const std::string& stages, std::shared_ptr<const Projection> part,
                   RandomSource* random = nullptr) {
  const auto spec = value_of(CodecSpec::parse("proj:8:0123456789abcdef|" + stages));
  return value_of(
      BoundaryCodec::make(spec, kWidth, {.projection = std::move(part), .random = random}));
}

TEST_CASE("a projection multiplies by its matrices", "[codec][projection]") {
  const Matrix rows = some(5, kWidth, 3);
  const BoundaryCodec codec = make("f32", projection());
  CHECK(codec.width() == kWidth);
  CHECK(codec.coded_width() == kDims);
  const auto bytes = value_of(codec.encode(rows.view()));
  CHECK(bytes.size() == 5 * kDims * sizeof(float));
  const Matrix expected = product(product(rows, some(kDims, kWidth, 1)), some(kWidth, kDims, 2));
  CHECK(test::relative_error(expected, decode(codec, bytes, 5)) < 1e-12);
}

TEST_CASE("the stages behind a projection see latents alone", "[codec][projection]") {
  const auto stages = GENERATE(as<std::string>(), "f32", "f16|pad:64", "int4", "sint3|rans",
                               "split:1|rotate|int4|rans", "trellis:0.4|rans",
                               "clip:max=0.7|binomial:4:mu=52|rans", "clip:l2=1|dgauss:mu=30");
  CAPTURE(stages);
  const Matrix rows = some(6, kWidth, 4);
  SeededRandom random(9);
  SeededRandom same_random(9);
  const auto whole = projection();
  const BoundaryCodec codec = make(stages, whole, &random);
  const auto inner = value_of(
      BoundaryCodec::make(value_of(CodecSpec::parse(stages)), kDims, {.random = &same_random}));
  const auto bytes = value_of(codec.encode(rows.view()));
  Matrix latents(6, kDims);
  value_of(whole->encode(rows.view(), latents.view()));
  REQUIRE(bytes == value_of(inner.encode(std::as_const(latents).view())));
  Matrix expected(6, kWidth);
  value_of(whole->decode(decode(inner, bytes, 6).view(), expected.view()));
  CHECK(same_bits(decode(codec, bytes, 6).view().values(), expected.view().values()));
  CHECK(value_of(codec.max_encoded_bytes(6)) == value_of(inner.max_encoded_bytes(6)));
}

TEST_CASE("a mechanism guards latents: its width and its clip are theirs", "[codec][projection]") {
  SeededRandom random(1);
  const BoundaryCodec codec = make("clip:max=0.5|binomial:4:mu=52", projection(), &random);
  REQUIRE(codec.mechanism() != nullptr);
  CHECK(codec.mechanism()->width() == kDims);
  const auto alone = value_of(privacy::make_mechanism(
      value_of(privacy::MechanismSpec::parse("binomial:4:mu=52")), kDims, {.coordinate = 0.5}));
  CHECK(codec.mechanism()->epsilon(3, 1e-5) == alone->epsilon(3, 1e-5));
  // However large a row is, it is cut down before anything is drawn.
  Matrix huge(1, kWidth);
  for (float& value : huge.row(0)) value = 1e6F;
  const auto bytes = value_of(codec.encode(std::as_const(huge).view()));
  const auto likelihood =
      value_of(codec.log_likelihoods(std::span(&bytes, 1), std::as_const(huge).view()));
  CHECK(std::isfinite(likelihood[0][0]));
  // On average, what crosses is the clipped latents.
  Matrix latents(1, kDims);
  value_of(projection()->encode(std::as_const(huge).view(), latents.view()));
  for (float& value : latents.row(0)) value = std::clamp(value, -0.5F, 0.5F);
  Matrix expected(1, kWidth);
  value_of(projection()->decode(std::as_const(latents).view(), expected.view()));
  CHECK(same_bits(value_of(codec.expectations(std::as_const(huge).view())).view().values(),
                  expected.view().values()));
  CHECK(bytes.size() == kDims * 4 / 8);
}

TEST_CASE("either side needs its own part alone", "[codec][projection]") {
  const Matrix rows = some(2, kWidth, 5);
  const BoundaryCodec device = make("int8", projection(true, false));
  const BoundaryCodec server = make("int8", projection(false, true));
  const auto bytes = value_of(device.encode(rows.view()));
  const BoundaryCodec both = make("int8", projection());
  CHECK(
      same_bits(decode(server, bytes, 2).view().values(), decode(both, bytes, 2).view().values()));
  Matrix back(2, kWidth);
  CHECK_FAILS_WITH(device.decode_into(bytes, back.view()), ErrorCode::kNotFound);
  CHECK_FAILS_WITH(server.encode(rows.view()), ErrorCode::kNotFound);
}

TEST_CASE("an artefact that is not here, or does not fit, is refused", "[codec][projection]") {
  const auto refused = [](const std::string& text, size_t width,
                          std::shared_ptr<const Projection> part) {
    return BoundaryCodec::make(value_of(CodecSpec::parse(text)), width,
                               {.projection = std::move(part)});
  };
  const std::string name = "proj:8:0123456789abcdef|int4";
  CHECK_FAILS_WITH(refused(name, kWidth, nullptr), ErrorCode::kNotFound);
  CHECK_FAILS_WITH(refused("proj:8:0123456789abcdee|int4", kWidth, projection()),
                   ErrorCode::kNotFound);
  CHECK_FAILS_WITH(refused("proj:9:0123456789abcdef|int4", kWidth, projection()),
                   ErrorCode::kInvalidArgument);
  CHECK_FAILS_WITH(refused(name, kWidth + 1, projection()), ErrorCode::kInvalidArgument);
  const BoundaryCodec codec = make("int4", projection());
  CHECK_FAILS_WITH(codec.encode(Matrix(1, kDims).view()), ErrorCode::kInvalidArgument);
  Matrix narrow(1, kDims);
  CHECK_FAILS_WITH(codec.decode_into({}, narrow.view()), ErrorCode::kInvalidArgument);
  Matrix rows(2, kWidth);
  rows.row(1)[3] = std::numeric_limits<float>::quiet_NaN();
  CHECK_FAILS_WITH(codec.encode(std::as_const(rows).view()), ErrorCode::kNotFinite);
}

TEST_CASE("matrices that are no projection are refused", "[codec][projection]") {
  CHECK_FAILS_WITH(Projection::make(1, {}, {}), ErrorCode::kInvalidArgument);
  CHECK_FAILS_WITH(Projection::make(1, Matrix(5, 4), {}), ErrorCode::kInvalidArgument);
  CHECK_FAILS_WITH(Projection::make(1, Matrix(2, 4), Matrix(4, 3)), ErrorCode::kInvalidArgument);
  CHECK_FAILS_WITH(Projection::make(1, Matrix(2, 4), Matrix(2, 4)), ErrorCode::kInvalidArgument);
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(),
                          std::numeric_limits<float>::infinity(), 2 * Projection::kMaxEntry}) {
    Matrix broken(2, 4);
    broken.row(1)[2] = bad;
    CHECK_FAILS_WITH(Projection::make(1, broken, {}), ErrorCode::kNotFinite);
    Matrix decoder(4, 2);
    decoder.row(0)[0] = bad;
    CHECK_FAILS_WITH(Projection::make(1, {}, decoder), ErrorCode::kNotFinite);
  }
}

}  // namespace
}  // namespace isthmus::codec
