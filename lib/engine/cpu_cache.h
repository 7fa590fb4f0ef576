// CpuEngine's KvCache: float keys and values, one contiguous table of each per layer.
#pragma once

#include <isthmus/engine/engine.h>
#include <isthmus/model/config.h>
#include <memory>

#include "float_region.h"

namespace isthmus::engine {

class CpuCache final : public KvCache {
 public:
  /// `owner` is only compared, to know an engine's own caches.
  [[nodiscard]] static Result<std::unique_ptr<CpuCache>> make(const Engine* owner,
                                                              const model::ModelConfig& config,
                                                              LayerWindow layers, int32_t capacity);

  [[nodiscard]] const Engine* owner() const { return owner_; }
  /// Floats per position: kv heads times head size.
  [[nodiscard]] size_t row_size() const { return row_size_; }
  /// Keys [capacity, row_size] of a layer in the window; rows behind length() are unspecified.
  [[nodiscard]] float* keys(int32_t layer) { return table(layer, 0); }
  [[nodiscard]] float* values(int32_t layer) { return table(layer, 1); }
  /// Keeps the `count` positions that have been written behind the last one.
  void append(size_t count) { length_ += static_cast<int32_t>(count); }

 private:
  CpuCache(const Engine* owner, LayerWindow layers, int32_t capacity, size_t row_size,
           FloatRegion tables);
  [[nodiscard]] float* table(int32_t layer, size_t which);

  const Engine* owner_;
  size_t row_size_;
  FloatRegion tables_;  // [layer, keys then values, capacity, row_size]
};

}  // namespace isthmus::engine
