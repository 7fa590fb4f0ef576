#include <isthmus/codec/spec.h>

#include <string>

#include "support/catch.h"

namespace isthmus::codec {
namespace {

using isthmus::test::value_of;

TEST_CASE("a spec reads its own text", "[codec][spec]") {
  const auto* const text =
      GENERATE("f32", "bf16", "f16", "f16|pad:64", "int4", "sint8|rans", "sign", "tabq:0.01|rans",
               "bfp:4:32", "step:0.5|rans", "trellis:0.35|rans|pad:128", "split:4|rotate|int4|rans",
               "split:x16|rotate:7|clip:l2=40,max=3|step:0.25", "clip:l2=1e+20|int1",
               "clip:max=1e-05|int1", "split:x12.5|klt:0123456789abcdef|trellis:0.4|rans",
               "clip:max=2|binomial:4:mu=52|rans", "rotate|clip:l2=3|dgauss:mu=5:delta=1e-06",
               "klt:0123456789abcdef|clip:max=1|rqm:4:range=3|pad:64",
               "reorder:00000000000000ff|bfp:8:2", "proj:128:0123456789abcdef|f16|pad:8",
               "proj:64:00000000000000ff|split:2|rotate|clip:max=1|int4|rans",
               "proj:128:0123456789abcdef|clip:max=0.5|binomial:4:mu=52|rans");
  CAPTURE(text);
  const CodecSpec spec = value_of(CodecSpec::parse(text));
  CHECK(spec.to_string() == text);
  CHECK(value_of(CodecSpec::parse(spec.to_string())) == spec);
  CHECK(spec.validate().has_value());
}

TEST_CASE("a spec's numbers may be written in any way", "[codec][spec]") {
  CHECK(value_of(CodecSpec::parse("split:04|rotate:0|step:5e-1")).to_string() ==
        "split:4|rotate|step:0.5");
  CHECK(CodecSpec{}.to_string() == "f16");
}

TEST_CASE("a spec names the calibration that it needs", "[codec][spec]") {
  CHECK(value_of(CodecSpec::parse("klt:0123456789abcdef|step:1")).calibration() ==
        0x0123456789abcdefU);
  CHECK(value_of(CodecSpec::parse("reorder:00000000000000ff|bfp:4:32")).calibration() == 0xffU);
  CHECK_FALSE(value_of(CodecSpec::parse("rotate|int4")).calibration().has_value());
}

TEST_CASE("specs that say nothing or nonsense are refused with the reason", "[codec][spec]") {
  const auto [text, reason] = GENERATE(table<std::string, std::string>({
      {"", "''"},
      {"F32", "unknown"},
      {"f32 ", "unknown"},
      {"f3", "unknown"},
      {"int4|", "unknown"},
      {"|int4", "unknown"},
      {"rotate", "no stage that says how"},
      {"rans", "no stage that says how"},
      {"int4|int4", "repeated or out of order"},
      {"int4|rotate", "out of order"},
      {"rans|int4", "out of order"},
      {"int4|pad:8|rans", "out of order"},
      {"rotate|split:4|int4", "out of order"},
      {"rotate|klt:0123456789abcdef|step:1", "out of order"},
      {"clip:max=1|rotate|int4", "out of order"},
      {"rotate|rotate|int4", "out of order"},
      {"int4|rans|rans", "out of order"},
      {"int0", "the bits of int is 0"},
      {"int9", "the bits of int is 9"},
      {"int", "is not a number"},
      {"int-1", "is not a number"},
      {"int4x", "is not a number"},
      {"int4:1", "takes 0"},
      {"sint0", "the bits of int"},
      {"split|int4", "takes 1"},
      {"split:0|int4", "split takes a count or a threshold"},
      {"split:65|int4", "the count of split is 65"},
      {"split:4.5|int4", "is not a number"},
      {"split:x3.5|int4", "the threshold of split is 3.5"},
      {"split:xnan|int4", "the threshold of split"},
      {"split:x1e4|int4", "the threshold of split"},
      {"split:4:5|int4", "takes 1"},
      {"rotate:-1|int4", "is not a number"},
      {"rotate:4294967296|int4", "is not a number"},
      {"klt:0123|step:1", "16 hex digits"},
      {"proj:128:0123|int4", "16 hex digits"},
      {"proj:128|int4", "1 arguments, it takes 2"},
      {"proj:0:0123456789abcdef|int4", "the width of proj is 0"},
      {"rotate|proj:128:0123456789abcdef|int4", "out of order"},
      {"proj:128:0123456789abcdef|split:2|clip:max=1|binomial:4:mu=52", "split in front"},
      {"klt:0123456789abcdeg|step:1", "16 hex digits"},
      {"klt:0123456789abcdef|int4", "only step and trellis"},
      {"clip:l2=0|int4", "bounds nothing"},
      {"clip:l2=-1|int4", "the norm of clip is -1"},
      {"clip:max=inf|int4", "the limit of clip is inf"},
      {"clip:max=nan|int4", "the limit of clip is nan"},
      {"clip:l2=1,l2=2|int4", "is not l2=C"},
      {"clip:size=2|int4", "is not l2=C"},
      {"clip:|int4", "is not l2=C"},
      {"clip:l2|int4", "is not l2=C"},
      {"tabq|rans", "takes 1"},
      {"tabq:0", "the distortion of tabq is 0"},
      {"tabq:1", "the distortion of tabq is 1"},
      {"tabq:nan", "the distortion of tabq is nan"},
      {"bfp:4", "takes 2"},
      {"bfp:1:32", "the bits of bfp is 1"},
      {"bfp:9:32", "the bits of bfp is 9"},
      {"bfp:4:1", "the block of bfp is 1"},
      {"bfp:4:1025", "the block of bfp is 1025"},
      {"step:0", "the step is 0"},
      {"step:0.001", "the step is 0.001"},
      {"step:9", "the step is 9"},
      {"step:nan", "the step is nan"},
      {"trellis:inf", "the step is inf"},
      {"int4|pad:0", "pads nothing"},
      {"int4|pad:65537", "pad is 65537"},
      {"int4|pad", "takes 1"},
      {"split:4|f16", "stand alone"},
      {"rotate|f32", "stand alone"},
      {"clip:max=1|bf16", "stand alone"},
      {"f16|rans", "stand alone"},
      {"binomial:4:mu=5", "needs a clip"},
      {"rotate|dgauss:mu=5|rans", "needs a clip"},
      {"split:4|rotate|clip:l2=1|dgauss:mu=5", "nothing accounts for that"},
      {"split:x16|clip:max=1|binomial:4:mu=5|rans", "nothing accounts for that"},
      {"clip:max=1|int4|binomial:4:mu=5", "out of order"},
      {"binomial:4:mu=5|clip:max=1", "out of order"},
  }));
  CAPTURE(text);
  const auto parsed = CodecSpec::parse(text);
  CHECK_FAILS_WITH(parsed, ErrorCode::kUnsupported);
  CHECK_THAT(parsed.error().message, Catch::Contains(reason) && Catch::StartsWith("codec: "));
}

TEST_CASE("a spec that was not parsed is checked too", "[codec][spec]") {
  CHECK_FAILS_WITH(CodecSpec{.quantizer = Uniform{.bits = 40}}.validate(), ErrorCode::kUnsupported);
  CHECK_FAILS_WITH((CodecSpec{.quantizer = Sign{}, .split = Split{4, 5.0F}}.validate()),
                   ErrorCode::kUnsupported);
  CHECK_FAILS_WITH((CodecSpec{.quantizer = Sign{}, .pad = 1U << 20U}.validate()),
                   ErrorCode::kUnsupported);
}

}  // namespace
}  // namespace isthmus::codec
