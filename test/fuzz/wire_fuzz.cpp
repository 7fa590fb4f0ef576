// Any bytes as an envelope: refused, or a message that means the same when it is said again.
#include <isthmus/wire/messages.h>

#include <cstdint>
#include <cstdlib>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto first = isthmus::wire::decode(std::as_bytes(std::span(data, size)));
  if (!first) return 0;
  const auto again = isthmus::wire::decode(isthmus::wire::encode(*first));
  if (!again || *again != *first) std::abort();
  return 0;
}
