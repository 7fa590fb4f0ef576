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

uint64_t kv_bytes_per_token(const Engine& engine) {
  uint64_t layers = 0;
  for (const auto& [first, end] : engine.part().layers)
    layers += static_cast<uint64_t>(end - first);
  return engine.info().kv_bytes_per_token_and_layer * layers;
}

}  // namespace isthmus::engine
