#include <isthmus/model/config.h>

#include <algorithm>
#include <cmath>

#include "config_limits.h"

namespace isthmus::model {
namespace {

Status in_range(const char* name, int64_t value, int64_t low, int64_t high) {
  if (value >= low && value <= high) return {};
  return fail(ErrorCode::kCorrupt, std::string("model: ") + name + " is " + std::to_string(value) +
                                       ", not in [" + std::to_string(low) + ", " +
                                       std::to_string(high) + "]");
}

Status at_least(const char* name, float value, float low) {
  if (std::isfinite(value) && value >= low) return {};
  return fail(ErrorCode::kCorrupt, std::string("model: ") + name + " is " + std::to_string(value) +
                                       ", not a number from " + std::to_string(low) + " up");
}

Status check_angles(const char* name, const std::vector<float>& angles, size_t count) {
  ISTHMUS_TRY(in_range(name, static_cast<int64_t>(angles.size()), static_cast<int64_t>(count),
                       static_cast<int64_t>(count)));
  const bool finite =
      std::all_of(angles.begin(), angles.end(), [](float a) { return std::isfinite(a); });
  if (!finite) return fail(ErrorCode::kCorrupt, std::string("model: ") + name + " is not finite");
  return {};
}

}  // namespace

int32_t even_head_size(const ModelConfig& config) {
  const bool divides = config.head_count > 0 && config.hidden_size % config.head_count == 0;
  return divides ? config.hidden_size / config.head_count : 0;
}

Status validate_sizes(const ModelConfig& config) {
  ISTHMUS_TRY(in_range("layer_count", config.layer_count, 1, kMaxLayers));
  ISTHMUS_TRY(in_range("hidden_size", config.hidden_size, 1, kMaxWidth));
  ISTHMUS_TRY(in_range("head_count", config.head_count, 1, kMaxHeads));
  ISTHMUS_TRY(in_range("kv_head_count", config.kv_head_count, 1, config.head_count));
  ISTHMUS_TRY(
      in_range("head_count modulo kv_head_count", config.head_count % config.kv_head_count, 0, 0));
  ISTHMUS_TRY(in_range("head_size", config.head_size, 2, kMaxWidth / config.head_count));
  ISTHMUS_TRY(in_range("head_size modulo 2", config.head_size % 2, 0, 0));
  ISTHMUS_TRY(in_range("mlp_size", config.mlp_size, 1, kMaxWidth));
  ISTHMUS_TRY(in_range("vocab_size", config.vocab_size, 1, kMaxWidth));
  return in_range("context_length", config.context_length, 1, INT32_MAX);
}

Status ModelConfig::validate() const {
  ISTHMUS_TRY(validate_sizes(*this));
  ISTHMUS_TRY(at_least("norm_epsilon", norm_epsilon, 0));
  ISTHMUS_TRY(at_least("norm_weight_offset", norm_weight_offset, 0));
  ISTHMUS_TRY(at_least("embedding_scale", embedding_scale, 0));
  ISTHMUS_TRY(at_least("attention_scale", attention_scale, 0));
  ISTHMUS_TRY(at_least("attention_softcap", attention_softcap, 0));
  ISTHMUS_TRY(at_least("final_softcap", final_softcap, 0));
  ISTHMUS_TRY(in_range("the number of layer traits", static_cast<int64_t>(layers.size()),
                       layer_count, layer_count));
  bool any_local = false;
  for (const LayerAttention& layer : layers) {
    ISTHMUS_TRY(in_range("a layer's window", layer.window, 0, INT32_MAX));
    any_local = any_local || layer.local_rope;
  }
  const auto pairs = static_cast<size_t>(head_size / 2);
  ISTHMUS_TRY(check_angles("the number of global rope angles", rope_global, pairs));
  return check_angles("the number of local rope angles", rope_local, any_local ? pairs : 0);
}

}  // namespace isthmus::model
