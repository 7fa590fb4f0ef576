#include "hf_config.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "config_limits.h"
#include "json_object.h"
#include "quote.h"

namespace isthmus::model {
namespace {

Status read_sizes(const JsonObject& json, const Architecture& architecture, ModelConfig& config) {
  ISTHMUS_ASSIGN(config.layer_count, json.get<int32_t>("num_hidden_layers"));
  ISTHMUS_ASSIGN(config.hidden_size, json.get<int32_t>("hidden_size"));
  ISTHMUS_ASSIGN(config.mlp_size, json.get<int32_t>("intermediate_size"));
  ISTHMUS_ASSIGN(config.vocab_size, json.get<int32_t>("vocab_size"));
  ISTHMUS_ASSIGN(config.context_length, json.get<int32_t>("max_position_embeddings"));
  ISTHMUS_ASSIGN(config.head_count, json.get<int32_t>("num_attention_heads"));
  ISTHMUS_ASSIGN(config.kv_head_count,
                 json.get_or<int32_t>("num_key_value_heads", config.head_count));
  const int32_t usual =
      architecture.hf_head_size > 0 ? architecture.hf_head_size : even_head_size(config);
  ISTHMUS_ASSIGN(config.head_size, json.get_or<int32_t>("head_dim", usual));
  return validate_sizes(config);
}

// What a config may say that would make it another computation than ours.
Status refuse_variants(const JsonObject& json, const Architecture& architecture) {
  const std::string usual =
      architecture.activation == Activation::kSilu ? "silu" : "gelu_pytorch_tanh";
  const char* key = json.has("hidden_activation") ? "hidden_activation" : "hidden_act";
  ISTHMUS_ASSIGN(const auto activation, json.get_or<std::string>(key, usual));
  if (activation != usual) {
    return json.error(ErrorCode::kUnsupported, key, "is " + quote(activation) + ", not " + usual);
  }
  ISTHMUS_ASSIGN(const auto both_ways, json.get_or<bool>("use_bidirectional_attention", false));
  if (both_ways) {
    return json.error(ErrorCode::kUnsupported, "use_bidirectional_attention", "is true");
  }
  return {};
}

Status read_scales(const JsonObject& json, const Architecture& architecture, ModelConfig& config) {
  config.norm_weight_offset = architecture.hf_norm_offset;
  ISTHMUS_ASSIGN(config.norm_epsilon, json.get<float>("rms_norm_eps"));
  auto width = static_cast<float>(config.head_size);
  if (architecture.hf_query_scalar > 0) {
    ISTHMUS_ASSIGN(width,
                   json.get_or<float>("query_pre_attn_scalar", architecture.hf_query_scalar));
  }
  config.attention_scale = 1 / std::sqrt(width);
  ISTHMUS_ASSIGN(config.attention_softcap, json.get_or<float>("attn_logit_softcapping", 0.0F));
  ISTHMUS_ASSIGN(config.final_softcap, json.get_or<float>("final_logit_softcapping", 0.0F));
  return {};
}

Status read_layer_types(const JsonObject& json, const Architecture& architecture, int32_t window,
                        ModelConfig& config) {
  ISTHMUS_ASSIGN(const auto types, json.list("layer_types"));
  std::vector<bool> is_windowed;
  for (const nlohmann::json& type : types) {
    const bool windowed = type == "sliding_attention";
    if (!windowed && type != "full_attention") {
      return json.error(ErrorCode::kUnsupported, "layer_types",
                        "has something else than sliding_attention and full_attention");
    }
    is_windowed.push_back(windowed);
  }
  assign_layers(architecture, window, is_windowed, config);
  return {};
}

Status read_layers(const JsonObject& json, const Architecture& architecture, ModelConfig& config) {
  const bool uses_window = architecture.hf_window > 0;
  ISTHMUS_ASSIGN(const auto opted_in,
                 json.get_or<bool>("use_sliding_window", !architecture.hf_window_opt_in));
  int32_t window = 0;
  if (uses_window && opted_in) {
    // Null says that there is none; no member at all, that it is the usual one.
    const bool says = json.node().contains("sliding_window");
    ISTHMUS_ASSIGN(window,
                   json.get_or<int32_t>("sliding_window", says ? 0 : architecture.hf_window));
  }
  if (uses_window && json.has("layer_types")) {
    return read_layer_types(json, architecture, window, config);
  }
  if (architecture.hf_window_opt_in) {
    ISTHMUS_ASSIGN(const auto first_windowed, json.get_or<int32_t>("max_window_layers", 28));
    std::vector<bool> is_windowed(static_cast<size_t>(config.layer_count));
    for (size_t i = 0; i < is_windowed.size(); ++i) {
      is_windowed[i] = static_cast<int64_t>(i) >= first_windowed;
    }
    assign_layers(architecture, window, is_windowed, config);
    return {};
  }
  ISTHMUS_ASSIGN(const auto global_every,
                 json.get_or<int32_t>("sliding_window_pattern", architecture.global_every));
  assign_layers(architecture, window, std::max(global_every, 0), config);
  return {};
}

// The angles that one set of rope parameters describes. `base` stands in for a missing rope_theta.
Result<std::vector<float>> read_angles(const JsonObject& rope, float base,
                                       const ModelConfig& config) {
  ISTHMUS_ASSIGN(base, rope.get_or<float>("rope_theta", base));
  ISTHMUS_ASSIGN(const auto old_type, rope.get_or<std::string>("type", "default"));
  ISTHMUS_ASSIGN(const auto type, rope.get_or<std::string>("rope_type", old_type));
  ISTHMUS_ASSIGN(const auto part, rope.get_or<float>("partial_rotary_factor", 1.0F));
  if (part != 1) {
    return rope.error(ErrorCode::kUnsupported, "partial_rotary_factor",
                      "is " + std::to_string(part));
  }
  std::vector<float> angles = rope_angles(config.head_size, base);
  if (type == "default") return angles;
  Llama3Scaling scaling;
  ISTHMUS_ASSIGN(scaling.factor, rope.get<float>("factor"));
  if (!(scaling.factor > 0)) return rope.error(ErrorCode::kCorrupt, "factor", "is not positive");
  if (type == "linear") {
    for (float& angle : angles) angle /= scaling.factor;
    return angles;
  }
  if (type != "llama3") {
    return rope.error(ErrorCode::kUnsupported, "rope_type",
                      "is " + quote(type) + ", not default, linear or llama3");
  }
  ISTHMUS_ASSIGN(scaling.low_freq_factor, rope.get<float>("low_freq_factor"));
  ISTHMUS_ASSIGN(scaling.high_freq_factor, rope.get<float>("high_freq_factor"));
  ISTHMUS_ASSIGN(scaling.original_context,
                 rope.get_or<float>("original_max_position_embeddings",
                                    static_cast<float>(config.context_length)));
  if (!(scaling.high_freq_factor > scaling.low_freq_factor)) {
    return rope.error(ErrorCode::kCorrupt, "high_freq_factor", "is not above low_freq_factor");
  }
  scale_llama3(angles, scaling);
  return angles;
}

// Transformers 4 writes rope_theta and rope_scaling, and rope_local_base_freq for windowed layers;
// transformers 5 one object rope_parameters, with an object for each kind of layer where they
// differ.
Status read_rope(const JsonObject& json, const Architecture& architecture, ModelConfig& config) {
  config.rope_pairs = RopePairs::kHalfApart;
  const nlohmann::json nothing = nlohmann::json::object();
  const JsonObject plain(nothing, "config.json");
  ISTHMUS_ASSIGN(const auto base, json.get_or<float>("rope_theta", architecture.hf_rope_base));
  ISTHMUS_ASSIGN(const auto local_base,
                 json.get_or<float>("rope_local_base_freq", architecture.local_rope_base));
  ISTHMUS_ASSIGN(const auto scaling, json.object("rope_scaling"));
  ISTHMUS_ASSIGN(const auto parameters, json.object("rope_parameters"));
  JsonObject global = parameters.value_or(scaling.value_or(plain));
  JsonObject local = plain;
  if (parameters) {
    ISTHMUS_ASSIGN(const auto full, parameters->object("full_attention"));
    ISTHMUS_ASSIGN(const auto sliding, parameters->object("sliding_attention"));
    global = full.value_or(*parameters);
    local = sliding.value_or(plain);
  }
  ISTHMUS_ASSIGN(config.rope_global, read_angles(global, base, config));
  if (uses_local_rope(config)) {
    ISTHMUS_ASSIGN(config.rope_local, read_angles(local, local_base, config));
  }
  return {};
}

}  // namespace

Result<HfConfig> read_hf_config(const nlohmann::json& document) {
  const JsonObject json(document, "config.json");
  ISTHMUS_ASSIGN(const auto type, json.get<std::string>("model_type"));
  HfConfig result;
  ISTHMUS_ASSIGN(result.architecture, find_hf_architecture(type));
  const Architecture& architecture = *result.architecture;
  ModelConfig& config = result.config;
  ISTHMUS_TRY(read_sizes(json, architecture, config));
  ISTHMUS_TRY(refuse_variants(json, architecture));
  apply_traits(architecture, config);
  ISTHMUS_TRY(read_scales(json, architecture, config));
  ISTHMUS_TRY(read_layers(json, architecture, config));
  ISTHMUS_TRY(read_rope(json, architecture, config));
  ISTHMUS_ASSIGN(const auto biased, json.get_or<bool>("attention_bias", false));
  config.qkv_bias = config.qkv_bias || biased;
  config.output_bias = biased && !architecture.qkv_bias;  // Qwen 2 has no such member
  ISTHMUS_ASSIGN(config.tied_head,
                 json.get_or<bool>("tie_word_embeddings", architecture.hf_tied_head));
  ISTHMUS_TRY(config.validate());
  return result;
}

}  // namespace isthmus::model
