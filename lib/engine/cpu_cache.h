// CpuEngine's KvCache: keys and values of every head in tables of their own, so that attention
// reads memory front to back.
#pragma once

#include <isthmus/engine/engine.h>
#include <isthmus/kernels/kernel_table.h>
#include <isthmus/model/config.h>
#include <memory>

#include "region.h"

namespace isthmus::engine {

/// Bytes of the tables of one head for `capacity` positions, and where they begin.
struct HeadTables {
  /// \returns kOutOfMemory when the sizes do not fit.
  [[nodiscard]] static Result<HeadTables> plan(kernels::KvFormat format, size_t head_size,
                                               size_t capacity);

  size_t values = 0;  ///< keys begin at 0
  size_t key_scales = 0;
  size_t value_scales = 0;
  size_t bytes = 0;
};

class CpuCache final : public KvCache {
 public:
  /// \returns kOutOfMemory
  [[nodiscard]] static Result<std::unique_ptr<CpuCache>> make(std::shared_ptr<const void> owner,
                                                              const model::ModelConfig& config,
                                                              kernels::KvFormat format,
                                                              LayerWindow layers, int32_t capacity);

  [[nodiscard]] static size_t bytes_per_position(const model::ModelConfig& config,
                                                 kernels::KvFormat format);

  /// The tables of a layer in the window. What lies behind length() is unspecified.
  [[nodiscard]] kernels::KvHead head(int32_t layer, size_t kv_head);
  /// Keeps the `count` positions that have been written behind the last one.
  void append(size_t count) { length_ += static_cast<int32_t>(count); }

 private:
  CpuCache(std::shared_ptr<const void> owner, LayerWindow layers, int32_t capacity, size_t kv_heads,
           kernels::KvFormat format, const HeadTables& tables, Region memory);

  size_t kv_heads_;
  kernels::KvFormat format_;
  HeadTables tables_;
  Region memory_;  // [layer, kv head, tables_.bytes]
};

}  // namespace isthmus::engine
