#include "memory.h"

#include <malloc.h>
#include <unistd.h>

#include <fstream>

namespace isthmus::tools {

Result<uint64_t> resident_bytes() {
  malloc_trim(0);
  std::ifstream statm("/proc/self/statm");
  uint64_t total_pages = 0;
  uint64_t resident_pages = 0;
  if (!(statm >> total_pages >> resident_pages)) {
    return fail(ErrorCode::kUnsupported, "tools: /proc/self/statm cannot be read");
  }
  return resident_pages * static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
}

}  // namespace isthmus::tools
