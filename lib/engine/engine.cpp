#include <isthmus/engine/engine.h>

#include <string>

namespace isthmus::engine {

Status KvCache::truncate(int32_t length) {
  if (length < 0 || length > length_) {
    return fail(ErrorCode::kInvalidArgument, "engine: cannot truncate a cache of " +
                                                 std::to_string(length_) + " tokens to " +
                                                 std::to_string(length));
  }
  length_ = length;
  return {};
}

}  // namespace isthmus::engine
