// Memory that ran out as an error like any other.
#pragma once

#include <isthmus/core/error.h>
#include <new>

namespace isthmus::server {

/// What `call` returns, or kOutOfMemory when memory ran out.
template <typename Call>
auto guarded(Call call) -> decltype(call()) {
  try {
    return call();
  } catch (const std::bad_alloc&) {
    return fail(ErrorCode::kOutOfMemory, "server: no memory for this request or its answer");
  }
}

}  // namespace isthmus::server
