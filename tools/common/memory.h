// What this process holds in memory now.
#pragma once

#include <isthmus/core/error.h>

#include <cstdint>

namespace isthmus::tools {

/// Resident bytes, touched pages of mapped files included, after the allocator has given back what
/// it can. \returns kUnsupported without Linux's /proc.
[[nodiscard]] Result<uint64_t> resident_bytes();

}  // namespace isthmus::tools
