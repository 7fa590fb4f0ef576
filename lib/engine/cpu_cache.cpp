#include "cpu_cache.h"

#include <string>
#include <utility>

namespace isthmus::engine {

Result<std::unique_ptr<CpuCache>> CpuCache::make(const Engine* owner,
                                                 const model::ModelConfig& config,
                                                 LayerWindow layers, int32_t capacity) {
  const size_t row_size =
      static_cast<size_t>(config.kv_head_count) * static_cast<size_t>(config.head_size);
  size_t floats = 0;
  if (__builtin_mul_overflow(row_size * 2, static_cast<size_t>(layers.count()), &floats) ||
      __builtin_mul_overflow(floats, static_cast<size_t>(capacity), &floats)) {
    return fail(ErrorCode::kOutOfMemory,
                "engine: a cache of " + std::to_string(capacity) + " tokens is too large");
  }
  ISTHMUS_ASSIGN(FloatRegion tables, FloatRegion::reserve(floats));
  return std::unique_ptr<CpuCache>(
      new CpuCache(owner, layers, capacity, row_size, std::move(tables)));
}

CpuCache::CpuCache(const Engine* owner, LayerWindow layers, int32_t capacity, size_t row_size,
                   FloatRegion tables)
    : KvCache(layers, capacity), owner_(owner), row_size_(row_size), tables_(std::move(tables)) {}

float* CpuCache::table(int32_t layer, size_t which) {
  const auto index = static_cast<size_t>(layer - layers().first) * 2 + which;
  return tables_.data() + index * static_cast<size_t>(capacity()) * row_size_;
}

}  // namespace isthmus::engine
