// Any bytes as a message: refused, or finite numbers. The first byte chooses the spec, the second
// the number of rows. Plain numbers that were decoded are encoded and decoded without a change.
#include <isthmus/codec/codec.h>
#include <isthmus/codec/projection.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <utility>
#include <vector>

using isthmus::Matrix;
namespace codec = isthmus::codec;

namespace {

constexpr size_t kWidth = 40;

// Of rows whose channels are alike, some of them too small to be coded.
std::shared_ptr<const codec::Calibration> make_calibration() {
  Matrix rows(200, kWidth);
  for (size_t r = 0; r < rows.rows(); ++r) {
    for (size_t c = 0; c < kWidth; ++c)
      rows.row(r)[c] = static_cast<float>((r * 7 + c * r) % 23) / static_cast<float>(1 + c % 9);
  }
  auto made = codec::calibrate(rows.view());
  if (!made) std::abort();
  return std::make_shared<const codec::Calibration>(std::move(*made));
}

std::shared_ptr<const codec::Projection> make_projection() {
  Matrix encoder(8, kWidth);
  Matrix decoder(kWidth, 8);
  for (size_t i = 0; i < 8 * kWidth; ++i) {
    encoder.data()[i] = static_cast<float>(i * 7 % 13) / 13 - 0.5F;
    decoder.data()[i] = static_cast<float>(i * 5 % 11) / 11 - 0.5F;
  }
  auto made = codec::Projection::make(1, encoder, decoder);
  if (!made) std::abort();
  return std::make_shared<const codec::Projection>(std::move(*made));
}

std::vector<codec::BoundaryCodec> make_codecs() {
  // One per reader: plain numbers, packed fields, the entropy coder with each kind of table.
  constexpr std::array kSpecs = {"f32",
                                 "bf16",
                                 "f16|pad:16",
                                 "split:4|rotate|int4|rans",
                                 "split:x6|int3|pad:8",
                                 "tabq:0.01|rans",
                                 "tabq:0.1",
                                 "sign",
                                 "bfp:4:8|rans",
                                 "bfp:3:7",
                                 "step:0.02|rans",
                                 "split:x6|trellis:0.3|rans",
                                 "trellis:0.5|pad:32",
                                 "sint2|rans",
                                 "clip:max=3|binomial:3:mu=60|rans",
                                 "rotate|clip:l2=30|dgauss:mu=40",
                                 "rotate|clip:l2=30|dgauss:mu=40|rans",
                                 "clip:max=3|rqm:3:range=2|rans"};
  const auto calibration = make_calibration();
  std::vector<codec::CodecSpec> specs;
  for (const char* text : kSpecs) {
    auto spec = codec::CodecSpec::parse(text);
    if (!spec) std::abort();
    specs.push_back(std::move(*spec));
  }
  for (const bool trellis : {false, true}) {
    specs.push_back({.quantizer = codec::Step{.step = 0.4F, .trellis = trellis},
                     .split = codec::Split{.threshold = 6},
                     .transform = codec::Klt{calibration->hash()},
                     .rans = true});
  }
  const auto projection = make_projection();
  for (const char* behind : {"int4", "clip:max=3|binomial:4:mu=60|rans"}) {
    auto spec = codec::CodecSpec::parse(behind);
    if (!spec) std::abort();
    spec->project = codec::Project{.dims = 8, .artefact = projection->id()};
    specs.push_back(std::move(*spec));
  }
  std::vector<codec::BoundaryCodec> codecs;
  for (const codec::CodecSpec& spec : specs) {
    auto made = codec::BoundaryCodec::make(spec, kWidth,
                                           {.calibration = calibration, .projection = projection});
    if (!made) std::abort();
    codecs.push_back(std::move(*made));
  }
  return codecs;
}

void check_stable(const codec::BoundaryCodec& codec, const Matrix& rows) {
  const auto bytes = codec.encode(rows.view());
  // A hostile scale may give numbers that our own encoder refuses.
  if (!bytes) return;
  Matrix rounded(rows.rows(), rows.cols());
  if (!codec.decode_into(*bytes, rounded.view())) std::abort();
  const auto again = codec.encode(rounded.view());
  if (!again || *again != *bytes) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const std::vector<codec::BoundaryCodec> codecs = make_codecs();
  if (size < 2) return 0;
  const codec::BoundaryCodec& codec = codecs[data[0] % codecs.size()];
  Matrix rows(data[1] % 6, kWidth);
  if (!codec.decode_into(std::as_bytes(std::span(data + 2, size - 2)), rows.view())) return 0;
  const auto values = rows.view().values();
  if (!std::all_of(values.begin(), values.end(), [](float v) { return std::isfinite(v); }))
    std::abort();
  if (std::holds_alternative<codec::Format>(codec.spec().quantizer)) check_stable(codec, rows);
  return 0;
}
