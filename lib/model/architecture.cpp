#include "architecture.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <numbers>

#include "quote.h"

namespace isthmus::model {
namespace {

constexpr std::array kArchitectures = {
    Architecture{.name = "llama", .hf_type = "llama", .gguf_pairs = RopePairs::kAdjacent},
    Architecture{.name = "llama",
                 .hf_type = "mistral",
                 .gguf_pairs = RopePairs::kAdjacent,
                 .hf_window = 4096},
    Architecture{.name = "qwen2",
                 .hf_type = "qwen2",
                 .qkv_bias = true,
                 .hf_window_opt_in = true,
                 .hf_window = 4096},
    Architecture{.name = "qwen3",
                 .hf_type = "qwen3",
                 .qk_norm = true,
                 .hf_window_opt_in = true,
                 .hf_head_size = 128,
                 .hf_window = 4096},
    Architecture{.name = "gemma3",
                 .hf_type = "gemma3_text",
                 .activation = Activation::kGeluTanh,
                 .qk_norm = true,
                 .post_norms = true,
                 .scaled_embedding = true,
                 .global_every = 6,
                 .local_rope_base = 10000,
                 .gguf_hidden_scaled_depth = 62,  // the 27B model
                 .hf_norm_offset = 1,
                 .hf_head_size = 256,
                 .hf_query_scalar = 256,
                 .hf_rope_base = 1'000'000,
                 .hf_window = 4096,
                 .hf_tied_head = true},
};

// Which models have a tensor.
enum class Has : uint8_t { kAll, kQkvBias, kOutputBias, kQkNorm, kPostNorms, kNoPostNorms };

struct TensorRow {
  std::string_view gguf;
  std::string_view hf;
  Has has = Has::kAll;
};

constexpr std::array kModelTensors = {
    TensorRow{"token_embd.weight", "model.embed_tokens.weight"},
    TensorRow{"output_norm.weight", "model.norm.weight"},
    TensorRow{"output.weight", "lm_head.weight"},
    TensorRow{"rope_freqs.weight", ""},  // in Hugging Face files a part of config.json
};

constexpr std::string_view kGgufLayerPrefix = "blk.";
constexpr std::string_view kHfLayerPrefix = "model.layers.";

constexpr std::array kLayerTensors = {
    TensorRow{"attn_norm.weight", "input_layernorm.weight"},
    TensorRow{"attn_q.weight", "self_attn.q_proj.weight"},
    TensorRow{"attn_q.bias", "self_attn.q_proj.bias", Has::kQkvBias},
    TensorRow{"attn_k.weight", "self_attn.k_proj.weight"},
    TensorRow{"attn_k.bias", "self_attn.k_proj.bias", Has::kQkvBias},
    TensorRow{"attn_v.weight", "self_attn.v_proj.weight"},
    TensorRow{"attn_v.bias", "self_attn.v_proj.bias", Has::kQkvBias},
    TensorRow{"attn_q_norm.weight", "self_attn.q_norm.weight", Has::kQkNorm},
    TensorRow{"attn_k_norm.weight", "self_attn.k_norm.weight", Has::kQkNorm},
    TensorRow{"attn_output.weight", "self_attn.o_proj.weight"},
    TensorRow{"attn_output.bias", "self_attn.o_proj.bias", Has::kOutputBias},
    TensorRow{"post_attention_norm.weight", "post_attention_layernorm.weight", Has::kPostNorms},
    TensorRow{"ffn_norm.weight", "pre_feedforward_layernorm.weight", Has::kPostNorms},
    TensorRow{"ffn_norm.weight", "post_attention_layernorm.weight", Has::kNoPostNorms},
    TensorRow{"ffn_gate.weight", "mlp.gate_proj.weight"},
    TensorRow{"ffn_up.weight", "mlp.up_proj.weight"},
    TensorRow{"ffn_down.weight", "mlp.down_proj.weight"},
    TensorRow{"post_ffw_norm.weight", "post_feedforward_layernorm.weight", Has::kPostNorms},
};

bool has(const ModelConfig& config, const TensorRow& row) {
  switch (row.has) {
    case Has::kAll:
      return true;
    case Has::kQkvBias:
      return config.qkv_bias;
    case Has::kOutputBias:
      return config.output_bias;
    case Has::kQkNorm:
      return config.qk_norm;
    case Has::kPostNorms:
      return config.post_norms;
    case Has::kNoPostNorms:
      return !config.post_norms;
  }
  return false;
}

// The first row whose `key` is `value`.
Result<const Architecture*> find_row(std::string_view Architecture::*key, std::string_view value) {
  std::string known;
  std::string_view previous;
  for (const Architecture& row : kArchitectures) {
    if (row.*key == value) return &row;
    if (row.*key == previous) continue;
    previous = row.*key;
    if (!known.empty()) known += ", ";
    known += previous;
  }
  return fail(ErrorCode::kUnsupported,
              "model: architecture " + quote(value) + " is not one of " + known);
}

LayerAttention attention(const Architecture& architecture, int32_t window, bool windowed) {
  return {.window = windowed ? window : 0,
          .local_rope = windowed && architecture.local_rope_base > 0};
}

}  // namespace

Result<const Architecture*> find_architecture(std::string_view gguf_name) {
  return find_row(&Architecture::name, gguf_name);
}

Result<const Architecture*> find_hf_architecture(std::string_view model_type) {
  return find_row(&Architecture::hf_type, model_type);
}

void apply_traits(const Architecture& architecture, ModelConfig& config) {
  config.architecture = architecture.name;
  config.activation = architecture.activation;
  config.qkv_bias = architecture.qkv_bias;
  config.qk_norm = architecture.qk_norm;
  config.post_norms = architecture.post_norms;
  if (architecture.scaled_embedding) {
    config.embedding_scale = std::sqrt(static_cast<float>(config.hidden_size));
  }
}

std::optional<LayerTensorName> split_layer_name(std::string_view name, std::string_view prefix) {
  if (!name.starts_with(prefix)) return std::nullopt;
  name.remove_prefix(prefix.size());
  LayerTensorName split;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), split.layer);
  if (error != std::errc{} || split.layer < 0) return std::nullopt;
  name.remove_prefix(static_cast<size_t>(end - name.data()));
  if (!name.starts_with('.')) return std::nullopt;
  split.rest = name.substr(1);
  return split;
}

bool is_known_tensor(const ModelConfig& config, std::string_view name) {
  for (const TensorRow& row : kModelTensors) {
    if (row.gguf == name) return true;
  }
  const auto split = split_layer_name(name, kGgufLayerPrefix);
  if (!split || split->layer >= config.layer_count) return false;
  for (const TensorRow& row : kLayerTensors) {
    if (row.gguf == split->rest && has(config, row)) return true;
  }
  return false;
}

std::optional<std::string> gguf_tensor_name(const ModelConfig& config, std::string_view hf_name) {
  for (const TensorRow& row : kModelTensors) {
    if (!row.hf.empty() && row.hf == hf_name) return std::string(row.gguf);
  }
  const auto split = split_layer_name(hf_name, kHfLayerPrefix);
  if (!split) return std::nullopt;
  for (const TensorRow& row : kLayerTensors) {
    if (row.hf == split->rest && has(config, row)) {
      return std::string(kGgufLayerPrefix) + std::to_string(split->layer) + "." +
             std::string(row.gguf);
    }
  }
  return std::nullopt;
}

std::vector<float> rope_angles(int32_t head_size, float base) {
  std::vector<float> angles(static_cast<size_t>(head_size / 2));
  for (size_t i = 0; i < angles.size(); ++i) {
    angles[i] = static_cast<float>(
        std::pow(static_cast<double>(base), -2.0 * static_cast<double>(i) / head_size));
  }
  return angles;
}

void scale_llama3(std::vector<float>& angles, const Llama3Scaling& scaling) {
  const double low = scaling.low_freq_factor;
  const double high = scaling.high_freq_factor;
  for (float& angle : angles) {
    const double waves = scaling.original_context * static_cast<double>(angle) /
                         (2 * std::numbers::pi);  // in the original context
    const double kept = std::clamp((waves - low) / (high - low), 0.0, 1.0);
    angle = static_cast<float>(angle * (kept + (1 - kept) / scaling.factor));
  }
}

void assign_layers(const Architecture& architecture, int32_t window, int32_t global_every,
                   ModelConfig& config) {
  std::vector<bool> is_windowed(static_cast<size_t>(config.layer_count));
  for (size_t i = 0; i < is_windowed.size(); ++i) {
    is_windowed[i] = global_every == 0 || (i + 1) % static_cast<size_t>(global_every) != 0;
  }
  assign_layers(architecture, window, is_windowed, config);
}

void assign_layers(const Architecture& architecture, int32_t window,
                   const std::vector<bool>& is_windowed, ModelConfig& config) {
  config.layers.clear();
  for (const bool windowed : is_windowed) {
    config.layers.push_back(attention(architecture, window, windowed));
  }
}

bool uses_local_rope(const ModelConfig& config) {
  return std::any_of(config.layers.begin(), config.layers.end(),
                     [](const LayerAttention& layer) { return layer.local_rope; });
}

}  // namespace isthmus::model
