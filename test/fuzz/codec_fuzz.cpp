// Any bytes as a payload: refused, or numbers that are encoded and decoded again without a change.
// The first three bytes choose format, rows and columns.
#include <isthmus/codec/codec.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>

using isthmus::Matrix;
namespace codec = isthmus::codec;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 3) return 0;
  const codec::CodecSpec spec{static_cast<codec::Format>(data[0] % 3)};
  Matrix rows(data[1] % 16, data[2] % 64);
  if (!codec::decode_into(spec, std::as_bytes(std::span(data + 3, size - 3)), rows.view()))
    return 0;

  const auto bytes = codec::encode(spec, rows.view());
  // A hostile scale may give numbers that our own encoder refuses.
  if (!bytes) return 0;
  Matrix rounded(rows.rows(), rows.cols());
  if (!codec::decode_into(spec, *bytes, rounded.view())) std::abort();
  const auto again = codec::encode(spec, rounded.view());
  if (!again || *again != *bytes) std::abort();
  return 0;
}
