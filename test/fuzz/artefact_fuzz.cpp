// Any bytes as an artefact: refused, or one that is written and read again under its name, whole or
// as the half that it is.
#include <isthmus/artefact/artefact.h>

#include <cstdint>
#include <cstdlib>
#include <vector>

using isthmus::artefact::Artefact;
using isthmus::artefact::Half;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto parsed = Artefact::parse(std::as_bytes(std::span(data, size)));
  if (!parsed) return 0;
  const bool has_device = parsed->projection()->has_encoder();
  const bool has_server = parsed->projection()->has_decoder();
  const Half half = has_device && has_server ? Half::kBoth
                    : has_device             ? Half::kDevice
                                             : Half::kServer;
  const std::vector<std::byte> bytes = parsed->serialize(half);
  const auto again = Artefact::parse(bytes);
  if (!again || again->id() != parsed->id() || again->serialize(half) != bytes) std::abort();
  if (again->adapted_end() != parsed->adapted_end() ||
      again->parts().adapters.size() != parsed->parts().adapters.size())
    std::abort();
  return 0;
}
