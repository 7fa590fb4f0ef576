// What this process holds in memory now, and what it could still get.
#pragma once

#include <isthmus/core/error.h>

#include <cstdint>

namespace isthmus::tools {

/// Resident bytes, touched pages of mapped files included, after the allocator has given back what
/// it can. \returns kUnsupported without Linux's /proc.
[[nodiscard]] Result<uint64_t> resident_bytes();

/// Bytes that the system could give to programs now, and the control groups (version 2) of this
/// one allow it. \returns kUnsupported without Linux's /proc.
[[nodiscard]] Result<uint64_t> available_bytes();

}  // namespace isthmus::tools
