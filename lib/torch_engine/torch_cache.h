// TorchEngine's KvCache: keys and values in the engine's precision, one contiguous table per layer.
#pragma once

#include <ATen/core/Tensor.h>
#include <isthmus/engine/engine.h>
#include <isthmus/model/config.h>
#include <cstdint>
#include <memory>
#include <vector>

namespace isthmus::torch_engine {

class TorchCache final : public engine::KvCache {
 public:
  TorchCache(std::shared_ptr<const void> owner, const model::ModelConfig& config,
             engine::LayerWindow layers, int32_t capacity, const at::TensorOptions& options);

  /// What a position takes in a layer.
  [[nodiscard]] static uint64_t bytes_per_position(const model::ModelConfig& config,
                                                   at::ScalarType type);

  /// Makes room for `count` positions behind the last one. Tables double, so that a position is
  /// copied once on average; contents do not change. Throws when memory runs out.
  void make_room(int64_t count);

  /// Keys [kv heads, room, K] of a layer in the window; positions behind length() are unspecified.
  [[nodiscard]] at::Tensor keys(int32_t layer) const { return table(layer).select(0, 0); }
  [[nodiscard]] at::Tensor values(int32_t layer) const { return table(layer).select(0, 1); }

  /// Keeps the `count` positions that have been written behind the last one.
  void append(int64_t count) { length_ += static_cast<int32_t>(count); }

 private:
  [[nodiscard]] const at::Tensor& table(int32_t layer) const {
    return tables_[static_cast<size_t>(layer - layers().first)];
  }

  std::vector<at::Tensor> tables_;  ///< per layer of the window [2, kv heads, room, K]
};

}  // namespace isthmus::torch_engine
