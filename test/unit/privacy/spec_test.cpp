#include <isthmus/privacy/mechanism.h>

#include <cmath>

#include "support/catch.h"

namespace isthmus::privacy {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
const double kNan = std::nan("");

Result<std::unique_ptr<Mechanism>> made(const MechanismSpec& spec, Clip clip = {1, 4}) {
  return make_mechanism(spec, 16, clip);
}

MechanismSpec binomial() {
  return {.kind = MechanismKind::kBinomial, .bits = 4, .mu = 5};
}
MechanismSpec dgauss() {
  return {.kind = MechanismKind::kDiscreteGaussian, .mu = 5};
}
MechanismSpec rqm() {
  return {.kind = MechanismKind::kRandomizedQuantization, .bits = 4, .range = 8};
}

TEST_CASE("a spec and its text are the same thing", "[privacy][spec]") {
  const std::string text =
      GENERATE("binomial:4:mu=52", "binomial:1:eps=8", "binomial:8:mu=0.1:delta=1e-09",
               "dgauss:mu=5", "dgauss:eps=0.3333333333333333:delta=1e-06", "rqm:4:eps=20",
               "rqm:2:keep=0.25:range=3.5", "rqm:5:keep=0.125:range=100:delta=0.001");
  CAPTURE(text);
  const auto spec = test::value_of(MechanismSpec::parse(text));
  CHECK(spec.to_string() == text);
  CHECK(test::value_of(MechanismSpec::parse(spec.to_string())) == spec);
}

TEST_CASE("text that is not a spec is refused", "[privacy][spec]") {
  const auto [text, code] = GENERATE(table<std::string, ErrorCode>({
      {"", ErrorCode::kUnsupported},
      {"laplace:mu=1", ErrorCode::kUnsupported},
      {"Binomial:4:mu=1", ErrorCode::kUnsupported},
      {"binomial", ErrorCode::kInvalidArgument},
      {"binomial:4", ErrorCode::kInvalidArgument},
      {"binomial:mu=1", ErrorCode::kInvalidArgument},
      {"binomial:-1:mu=1", ErrorCode::kInvalidArgument},
      {"binomial:4294967300:mu=1", ErrorCode::kInvalidArgument},
      {"binomial:4:", ErrorCode::kUnsupported},
      {"binomial:4:mu=1:", ErrorCode::kUnsupported},
      {"binomial:4:sigma=1", ErrorCode::kUnsupported},
      {"binomial:4:mu", ErrorCode::kInvalidArgument},
      {"binomial:4:mu=", ErrorCode::kInvalidArgument},
      {"binomial:4:mu=1x", ErrorCode::kInvalidArgument},
      {"binomial:4:mu= 1", ErrorCode::kInvalidArgument},
      {"binomial:4:mu=0", ErrorCode::kInvalidArgument},
      {"binomial:4:mu=1:mu=1", ErrorCode::kInvalidArgument},
      {"binomial:4:mu=1:eps=1", ErrorCode::kInvalidArgument},
      {"binomial:4:mu=1e999", ErrorCode::kInvalidArgument},
      {"dgauss:4:mu=1", ErrorCode::kUnsupported},
      {"rqm:4:mu=1", ErrorCode::kInvalidArgument},
      {"rqm:4:eps=0", ErrorCode::kInvalidArgument},
  }));
  CAPTURE(text);
  CHECK_FAILS_WITH(MechanismSpec::parse(text), code);
}

// Every field, every kind of impossible value; the message names the field and the value.
TEST_CASE("an impossible parameter is refused by name and value", "[privacy][spec]") {
  const auto refused = [](MechanismSpec spec, double MechanismSpec::*field, double value,
                          const std::string& name) {
    spec.epsilon = spec.mu = spec.range = 0;
    spec.*field = value;
    if (field == &MechanismSpec::delta || field == &MechanismSpec::keep) {
      (spec.kind == MechanismKind::kRandomizedQuantization ? spec.range : spec.mu) = 8;
      spec.*field = value;
    }
    CAPTURE(name, value);
    const auto result = made(spec);
    CHECK_FAILS_WITH(result, ErrorCode::kInvalidArgument);
    CHECK(result.error().message.find("privacy: " + name + " is ") == 0);
  };
  for (const double bad : {-1.0, -1e-300, 1e-300, 1e300, kNan, kInfinity, -kInfinity}) {
    for (const MechanismSpec& spec : {binomial(), dgauss(), rqm()})
      refused(spec, &MechanismSpec::epsilon, bad, "eps");
    for (const MechanismSpec& spec : {binomial(), dgauss()})
      refused(spec, &MechanismSpec::mu, bad, "mu");
    refused(rqm(), &MechanismSpec::range, bad, "range");
  }
  refused(rqm(), &MechanismSpec::range, 1, "range");
  for (const double bad : {0.0, -1.0, 1.0, 2.0, kNan, kInfinity, -kInfinity}) {
    for (const MechanismSpec& spec : {binomial(), dgauss(), rqm()})
      refused(spec, &MechanismSpec::delta, bad, "delta");
    refused(rqm(), &MechanismSpec::keep, bad, "keep");
  }
}

TEST_CASE("no strength at all is refused", "[privacy][spec]") {
  for (MechanismSpec spec : {binomial(), dgauss(), rqm()}) {
    spec.mu = spec.range = 0;
    CHECK_FAILS_WITH(made(spec), ErrorCode::kInvalidArgument);
  }
}

TEST_CASE("bits outside a mechanism's range are refused", "[privacy][spec]") {
  for (const unsigned bits : {0U, 9U, 4294967295U}) {
    MechanismSpec spec = binomial();
    spec.bits = bits;
    CHECK_FAILS_WITH(made(spec), ErrorCode::kInvalidArgument);
  }
  for (const unsigned bits : {0U, 1U, 6U, 4294967295U}) {
    MechanismSpec spec = rqm();
    spec.bits = bits;
    CHECK_FAILS_WITH(made(spec), ErrorCode::kInvalidArgument);
  }
  MechanismSpec spec = dgauss();
  spec.bits = 4;
  CHECK_FAILS_WITH(made(spec), ErrorCode::kInvalidArgument);
  spec.kind = static_cast<MechanismKind>(9);
  CHECK_FAILS_WITH(made(spec), ErrorCode::kInvalidArgument);
}

TEST_CASE("a clip that bounds nothing, or nothing sensible, is refused", "[privacy][spec]") {
  for (const double bad : {0.0, -1.0, kNan, -kInfinity, 1e-300, 1e300}) {
    CAPTURE(bad);
    for (const MechanismSpec& spec : {binomial(), dgauss(), rqm()}) {
      CHECK_FAILS_WITH(made(spec, {bad, 4}), ErrorCode::kInvalidArgument);
      CHECK_FAILS_WITH(made(spec, {1, bad}), ErrorCode::kInvalidArgument);
    }
  }
  CHECK_FAILS_WITH(made(binomial(), {.norm_l2 = 1}), ErrorCode::kInvalidArgument);
  CHECK_FAILS_WITH(made(rqm(), {.norm_l2 = 1}), ErrorCode::kInvalidArgument);
  CHECK_FAILS_WITH(made(dgauss(), {}), ErrorCode::kInvalidArgument);
  CHECK(made(dgauss(), {.norm_l2 = 1}).has_value());
  CHECK(made(dgauss(), {.coordinate = 1}).has_value());
}

TEST_CASE("a width of nothing or too much is refused", "[privacy][spec]") {
  for (const size_t width : {size_t{0}, kMaxWidth + 1, ~size_t{0}})
    CHECK_FAILS_WITH(make_mechanism(binomial(), width, {1, 4}), ErrorCode::kInvalidArgument);
}

TEST_CASE("noise past what can be represented is refused", "[privacy][spec]") {
  MechanismSpec spec = binomial();
  spec.mu = 0.001;
  CHECK_FAILS_WITH(make_mechanism(spec, kMaxWidth, {.coordinate = 1}), ErrorCode::kInvalidArgument);
  spec = dgauss();
  spec.mu = 0.001;
  CHECK_FAILS_WITH(make_mechanism(spec, kMaxWidth, {.coordinate = 1}), ErrorCode::kInvalidArgument);
}

TEST_CASE("a given epsilon is met from below and resolved into a scale", "[privacy][spec]") {
  const auto [text, epsilon] =
      GENERATE(table<std::string, double>({{"binomial:4:eps=10", 10},
                                           {"binomial:1:eps=100:delta=1e-08", 100},
                                           {"dgauss:eps=3", 3},
                                           {"rqm:3:eps=20", 20},
                                           {"rqm:2:keep=0.25:eps=5", 5}}));
  CAPTURE(text);
  const auto spec = test::value_of(MechanismSpec::parse(text));
  const auto mechanism = test::value_of(make_mechanism(spec, 64, {.coordinate = 0.5}));
  CHECK(mechanism->epsilon(1, spec.delta) <= epsilon);
  CHECK(mechanism->epsilon(1, spec.delta) > 0.999 * epsilon);
  CHECK_FALSE(spec.is_resolved());
  CHECK(mechanism->spec().is_resolved());

  const auto again = test::value_of(make_mechanism(
      test::value_of(MechanismSpec::parse(mechanism->spec().to_string())), 64, {0.5}));
  CHECK(again->spec() == mechanism->spec());
  CHECK(again->epsilon(7, 1e-6) == mechanism->epsilon(7, 1e-6));
}

TEST_CASE("a given epsilon is met under a bounded norm too, with less noise", "[privacy][spec]") {
  const auto spec = test::value_of(MechanismSpec::parse("binomial:2:eps=10"));
  const auto ball = test::value_of(make_mechanism(spec, 256, {1, 3}));
  const auto cube = test::value_of(make_mechanism(spec, 256, {.coordinate = 1}));
  CHECK(ball->epsilon(1, 1e-5) <= 10);
  CHECK(ball->epsilon(1, 1e-5) > 9.99);
  float ball_step = 0;
  float cube_step = 0;
  std::vector<float> row(256);
  REQUIRE(ball->estimate(std::vector<int32_t>(256, 3), row));
  ball_step = row[0];
  REQUIRE(cube->estimate(std::vector<int32_t>(256, 3), row));
  cube_step = row[0];
  CHECK(ball_step < 0.3 * cube_step);
}

TEST_CASE("an epsilon no scale reaches is refused", "[privacy][spec]") {
  const auto spec = test::value_of(MechanismSpec::parse("dgauss:eps=0.001:delta=1e-30"));
  CHECK_FAILS_WITH(make_mechanism(spec, kMaxWidth, {.coordinate = 1}), ErrorCode::kInvalidArgument);
}

}  // namespace
}  // namespace isthmus::privacy
