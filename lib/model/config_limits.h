// Upper limits of a model's sizes. They are far above any known model and keep every product of two
// sizes inside 64 bits, and every table that is made from sizes alone small.
#pragma once

#include <isthmus/core/error.h>
#include <isthmus/model/config.h>
#include <cstdint>

namespace isthmus::model {

inline constexpr int32_t kMaxLayers = 4096;
inline constexpr int32_t kMaxHeads = 65536;
inline constexpr int32_t kMaxWidth = 1 << 24;  ///< D, H * K, the MLP's size, V

/// The heads' equal shares of the hidden size; 0 where it does not divide.
[[nodiscard]] int32_t even_head_size(const ModelConfig& config);

/// The part of ModelConfig::validate that must pass before tables are made. \returns kCorrupt.
[[nodiscard]] Status validate_sizes(const ModelConfig& config);

}  // namespace isthmus::model
