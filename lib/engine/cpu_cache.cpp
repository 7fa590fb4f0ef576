#include "cpu_cache.h"

#include <string>
#include <utility>

namespace isthmus::engine {
namespace {

constexpr size_t kLanes = 16;  // positions in a block of keys, coordinates that values come in

size_t element_bytes(kernels::KvFormat format) {
  switch (format) {
    case kernels::KvFormat::kF32:
      return 4;
    case kernels::KvFormat::kF16:
      return 2;
    case kernels::KvFormat::kInt8:
      return 1;
  }
  return 0;
}

tl::unexpected<Error> too_large(size_t capacity) {
  return fail(ErrorCode::kOutOfMemory,
              "engine: a cache of " + std::to_string(capacity) + " tokens is too large");
}

}  // namespace

Result<HeadTables> HeadTables::plan(kernels::KvFormat format, size_t head_size, size_t capacity) {
  const size_t positions = (capacity + kLanes - 1) / kLanes * kLanes;
  const size_t width = (head_size + kLanes - 1) / kLanes * kLanes;
  size_t table = 0;
  if (__builtin_mul_overflow(width * element_bytes(format), positions, &table) ||
      table > SIZE_MAX / 8) {
    return too_large(capacity);
  }
  const size_t scales = format == kernels::KvFormat::kF32 ? 0 : positions * sizeof(float);
  HeadTables tables;
  tables.values = table;
  tables.key_scales = 2 * table;
  tables.value_scales = 2 * table + scales;
  tables.bytes = 2 * table + 2 * scales;
  return tables;
}

Result<std::unique_ptr<CpuCache>> CpuCache::make(std::shared_ptr<const void> owner,
                                                 const model::ModelConfig& config,
                                                 kernels::KvFormat format, LayerWindow layers,
                                                 int32_t capacity) {
  const auto kv_heads = static_cast<size_t>(config.kv_head_count);
  const auto positions = static_cast<size_t>(capacity);
  ISTHMUS_ASSIGN(const HeadTables tables,
                 HeadTables::plan(format, static_cast<size_t>(config.head_size), positions));
  size_t bytes = 0;
  if (__builtin_mul_overflow(kv_heads * static_cast<size_t>(layers.count()), tables.bytes,
                             &bytes)) {
    return too_large(positions);
  }
  ISTHMUS_ASSIGN(Region memory, Region::reserve(bytes));
  return std::unique_ptr<CpuCache>(new CpuCache(std::move(owner), layers, capacity, kv_heads,
                                                format, tables, std::move(memory)));
}

size_t CpuCache::bytes_per_position(const model::ModelConfig& config, kernels::KvFormat format) {
  // What a block of positions takes, which is not too large to plan for.
  const auto block = HeadTables::plan(format, static_cast<size_t>(config.head_size), kLanes);
  return static_cast<size_t>(config.kv_head_count) * block.value().bytes / kLanes;
}

CpuCache::CpuCache(std::shared_ptr<const void> owner, LayerWindow layers, int32_t capacity,
                   size_t kv_heads, kernels::KvFormat format, const HeadTables& tables,
                   Region memory)
    : KvCache(std::move(owner), layers, capacity),
      kv_heads_(kv_heads),
      format_(format),
      tables_(tables),
      memory_(std::move(memory)) {}

kernels::KvHead CpuCache::head(int32_t layer, size_t kv_head) {
  const auto index = static_cast<size_t>(layer - layers().first) * kv_heads_ + kv_head;
  std::byte* start = memory_.data() + index * tables_.bytes;
  kernels::KvHead head;
  head.keys = start;
  head.values = start + tables_.values;
  if (format_ != kernels::KvFormat::kF32) {
    head.key_scales = reinterpret_cast<float*>(start + tables_.key_scales);
    head.value_scales = reinterpret_cast<float*>(start + tables_.value_scales);
  }
  return head;
}

}  // namespace isthmus::engine
