// Any bytes as a ledger, as they are and with a right checksum: refused, or a state whose text
// reads back as the same state.
#include <cstdint>
#include <cstdlib>
#include <string>

#include "ledger_file.h"

namespace privacy = isthmus::privacy;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  for (const std::string& candidate : {text, privacy::seal_ledger(text)}) {
    const auto state = privacy::parse_ledger(candidate);
    if (!state) continue;
    const auto again = privacy::parse_ledger(privacy::format_ledger(*state));
    if (!again || *again != *state) std::abort();
  }
  return 0;
}
