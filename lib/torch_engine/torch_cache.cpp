#include "torch_cache.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <utility>

namespace isthmus::torch_engine {
namespace {

constexpr int64_t kFirstRoom = 256;  // positions; a few turns of a short conversation

}  // namespace

TorchCache::TorchCache(std::shared_ptr<const void> owner, const model::ModelConfig& config,
                       engine::LayerWindow layers, int32_t capacity,
                       const at::TensorOptions& options)
    : KvCache(std::move(owner), layers, capacity) {
  for (int32_t layer = layers.first; layer < layers.end; ++layer) {
    tables_.push_back(at::empty({2, config.kv_head_count, 0, config.head_size}, options));
  }
}

uint64_t TorchCache::bytes_per_position(const model::ModelConfig& config, at::ScalarType type) {
  return 2 * static_cast<uint64_t>(config.kv_head_count) * static_cast<uint64_t>(config.head_size) *
         at::elementSize(type);
}

void TorchCache::make_room(int64_t count) {
  const int64_t wanted = length() + count;
  for (at::Tensor& table : tables_) {
    const int64_t room = table.size(2);
    if (wanted <= room) continue;
    const int64_t grown =
        std::min<int64_t>(std::max({wanted, 2 * room, kFirstRoom}), std::max(capacity(), 0));
    at::Tensor larger = at::empty({2, table.size(1), grown, table.size(3)}, table.options());
    larger.narrow(2, 0, length()).copy_(table.narrow(2, 0, length()));
    table = std::move(larger);
  }
}

}  // namespace isthmus::torch_engine
