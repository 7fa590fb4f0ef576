// Any bytes as a calibration file: refused, or one that reads back and makes a codec whose rows are
// finite.
#include <isthmus/codec/codec.h>

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <vector>

using isthmus::Matrix;
namespace codec = isthmus::codec;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  auto parsed = codec::Calibration::parse(std::as_bytes(std::span(data, size)));
  if (!parsed) return 0;
  const auto calibration = std::make_shared<const codec::Calibration>(std::move(*parsed));
  const std::vector<std::byte> bytes = calibration->serialize();
  if (bytes.size() != size) std::abort();
  const codec::CodecSpec spec{.quantizer = codec::Step{.step = 0.5F},
                              .transform = codec::Klt{calibration->hash()},
                              .rans = true};
  const auto made =
      codec::BoundaryCodec::make(spec, calibration->width(), {.calibration = calibration});
  if (!made) std::abort();
  Matrix rows(2, calibration->width());
  for (size_t i = 0; i < rows.cols(); ++i) rows.row(0)[i] = static_cast<float>(i % 5) - 2;
  const auto message = made->encode(rows.view());
  if (!message) std::abort();
  Matrix back(2, calibration->width());
  if (!made->decode_into(*message, back.view())) std::abort();
  return 0;
}
