// A GGUF file's metadata and tensors as a model.
#include <algorithm>
#include <cmath>
#include <utility>

#include "architecture.h"
#include "config_limits.h"
#include "gguf.h"
#include "gguf_tokenizer.h"
#include "loaded_model.h"
#include "slice.h"
#include "vocabulary.h"

namespace isthmus::model {
namespace {

using gguf::Contents;
using gguf::Metadata;

// Metadata under the architecture's name: "llama.block_count".
class Keys {
 public:
  Keys(const Metadata& metadata, std::string_view architecture)
      : metadata_(&metadata), prefix_(std::string(architecture) + ".") {}

  template <typename T>
  [[nodiscard]] Result<T> get(std::string_view key) const {
    return metadata_->get<T>(full(key));
  }
  template <typename T>
  [[nodiscard]] Result<T> get_or(std::string_view key, T fallback) const {
    return metadata_->get_or<T>(full(key), std::move(fallback));
  }
  template <typename T>
  [[nodiscard]] Result<std::vector<T>> list(std::string_view key) const {
    return metadata_->list<T>(full(key));
  }
  [[nodiscard]] const gguf::Entry* find(std::string_view key) const {
    return metadata_->find(full(key));
  }

 private:
  [[nodiscard]] std::string full(std::string_view key) const { return prefix_ + std::string(key); }
  const Metadata* metadata_;
  std::string prefix_;
};

const Tensor* find_tensor(const Contents& contents, std::string_view name) {
  const auto found = std::find_if(contents.tensors.begin(), contents.tensors.end(),
                                  [name](const Tensor& t) { return t.name == name; });
  return found == contents.tensors.end() ? nullptr : &*found;
}

bool any_tensor_ends_with(const Contents& contents, std::string_view ending) {
  return std::any_of(contents.tensors.begin(), contents.tensors.end(),
                     [ending](const Tensor& t) { return t.name.ends_with(ending); });
}

// A file does not say whether there are biases but by having them; a slice, which may have none of
// the layers, does. One of three is enough: an engine names those that are missing.
Status read_biases(const Contents& contents, ModelConfig& config) {
  const bool has_any = any_tensor_ends_with(contents, ".attn_q.bias") ||
                       any_tensor_ends_with(contents, ".attn_k.bias") ||
                       any_tensor_ends_with(contents, ".attn_v.bias");
  ISTHMUS_ASSIGN(config.qkv_bias,
                 contents.metadata.get_or<bool>(kSliceQkvBias, config.qkv_bias || has_any));
  ISTHMUS_ASSIGN(config.output_bias,
                 contents.metadata.get_or<bool>(
                     kSliceOutputBias, any_tensor_ends_with(contents, ".attn_output.bias")));
  return {};
}

// The rows of the embedding or of the head; a slice without both says how many there were.
Result<int32_t> read_vocab_size(const Contents& contents, const Keys& keys) {
  for (const char* name : {"token_embd.weight", "output.weight"}) {
    const Tensor* tensor = find_tensor(contents, name);
    if (tensor == nullptr) continue;
    return static_cast<int32_t>(std::min<uint64_t>(tensor->rows(), kMaxWidth + 1));
  }
  if (contents.metadata.find(kSliceVocabSize) != nullptr) {
    return contents.metadata.get<int32_t>(kSliceVocabSize);
  }
  return keys.get<int32_t>("vocab_size");
}

Status read_sizes(const Contents& contents, const Keys& keys, ModelConfig& config) {
  ISTHMUS_ASSIGN(config.layer_count, keys.get<int32_t>("block_count"));
  ISTHMUS_ASSIGN(config.hidden_size, keys.get<int32_t>("embedding_length"));
  ISTHMUS_ASSIGN(config.mlp_size, keys.get<int32_t>("feed_forward_length"));
  ISTHMUS_ASSIGN(config.context_length, keys.get<int32_t>("context_length"));
  ISTHMUS_ASSIGN(config.head_count, keys.get<int32_t>("attention.head_count"));
  ISTHMUS_ASSIGN(config.kv_head_count,
                 keys.get_or<int32_t>("attention.head_count_kv", config.head_count));
  ISTHMUS_ASSIGN(config.head_size,
                 keys.get_or<int32_t>("attention.key_length", even_head_size(config)));
  ISTHMUS_ASSIGN(config.vocab_size, read_vocab_size(contents, keys));
  return validate_sizes(config);
}

// What a file may say that would make it another computation than ours.
Status refuse_variants(const Metadata& metadata, const Keys& keys, const ModelConfig& config) {
  struct Expectation {
    const char* key;
    int32_t value;
  };
  for (const auto& [key, value] :
       {Expectation{"attention.value_length", config.head_size},
        Expectation{"rope.dimension_count", config.head_size}, Expectation{"expert_count", 0}}) {
    ISTHMUS_ASSIGN(const auto found, keys.get_or<int32_t>(key, value));
    if (found != value) {
      return fail(ErrorCode::kUnsupported, "gguf: " + std::string(key) + " is " +
                                               std::to_string(found) + ", only " +
                                               std::to_string(value) + " is supported here");
    }
  }
  ISTHMUS_ASSIGN(const auto causal, keys.get_or<bool>("attention.causal", true));
  if (!causal) {
    return fail(ErrorCode::kUnsupported,
                "gguf: attention.causal is false; only causal attention is supported here");
  }
  ISTHMUS_ASSIGN(const auto splits, metadata.get_or<int32_t>("split.count", 1));
  if (splits > 1) {
    return fail(ErrorCode::kUnsupported, "gguf: the model is split over " + std::to_string(splits) +
                                             " files; merge them first");
  }
  return {};
}

// How much slower linear scaling turns; 1 without scaling.
Result<float> read_rope_factor(const Keys& keys) {
  ISTHMUS_ASSIGN(const auto old_factor, keys.get_or<float>("rope.scale_linear", 1.0F));
  ISTHMUS_ASSIGN(const auto factor, keys.get_or<float>("rope.scaling.factor", old_factor));
  ISTHMUS_ASSIGN(const auto type, keys.get_or<std::string>("rope.scaling.type", "linear"));
  if (type == "none") return 1.0F;
  if (type != "linear") {
    return fail(ErrorCode::kUnsupported, "gguf: rope scaling '" + type + "' is not supported");
  }
  if (!(factor > 0)) {
    return fail(ErrorCode::kCorrupt, "gguf: rope scaling by " + std::to_string(factor));
  }
  return factor;
}

// Llama 3's scaling comes as a tensor of divisors.
Status apply_rope_divisors(const Contents& contents, std::vector<float>& angles) {
  const Tensor* tensor = find_tensor(contents, "rope_freqs.weight");
  if (tensor == nullptr) return {};
  Matrix divisors(1, angles.size());
  if (tensor->shape.size() != 1 || !read_rows(*tensor, 0, divisors.view())) {
    return fail(ErrorCode::kCorrupt, "gguf: tensor 'rope_freqs.weight' does not have " +
                                         std::to_string(angles.size()) + " values");
  }
  for (size_t i = 0; i < angles.size(); ++i) angles[i] /= divisors.row(0)[i];
  return {};
}

Status read_rope(const Contents& contents, const Architecture& architecture, const Keys& keys,
                 ModelConfig& config) {
  config.rope_pairs = architecture.gguf_pairs;
  ISTHMUS_ASSIGN(const auto base, keys.get_or<float>("rope.freq_base", 10000.0F));
  ISTHMUS_ASSIGN(const auto factor, read_rope_factor(keys));
  config.rope_global = rope_angles(config.head_size, base);
  for (float& angle : config.rope_global) angle /= factor;
  ISTHMUS_TRY(apply_rope_divisors(contents, config.rope_global));
  if (!uses_local_rope(config)) return {};
  ISTHMUS_ASSIGN(const auto local_base,
                 keys.get_or<float>("rope.freq_base_swa", architecture.local_rope_base));
  config.rope_local = rope_angles(config.head_size, local_base);
  return {};
}

Status read_layers(const Architecture& architecture, const Keys& keys, ModelConfig& config) {
  // A family that mixes windows and global layers needs the window's size.
  const auto window = architecture.global_every > 0
                          ? keys.get<int32_t>("attention.sliding_window")
                          : keys.get_or<int32_t>("attention.sliding_window", 0);
  if (!window) return fail(window.error().code, window.error().message);
  const gguf::Entry* pattern = keys.find("attention.sliding_window_pattern");
  if (pattern != nullptr && pattern->is_array) {
    ISTHMUS_ASSIGN(const auto is_windowed, keys.list<bool>("attention.sliding_window_pattern"));
    assign_layers(architecture, *window, is_windowed, config);
    return {};
  }
  ISTHMUS_ASSIGN(const auto global_every, keys.get_or<int32_t>("attention.sliding_window_pattern",
                                                               architecture.global_every));
  assign_layers(architecture, *window, std::max(global_every, 0), config);
  return {};
}

Status read_scales(const Architecture& architecture, const Keys& keys, ModelConfig& config) {
  ISTHMUS_ASSIGN(config.norm_epsilon, keys.get<float>("attention.layer_norm_rms_epsilon"));
  const bool hidden_scaled = config.layer_count == architecture.gguf_hidden_scaled_depth;
  const int32_t width = hidden_scaled ? config.hidden_size / config.head_count : config.head_size;
  ISTHMUS_ASSIGN(config.attention_scale,
                 keys.get_or<float>("attention.scale", 1 / std::sqrt(static_cast<float>(width))));
  ISTHMUS_ASSIGN(config.attention_softcap, keys.get_or<float>("attn_logit_softcapping", 0.0F));
  ISTHMUS_ASSIGN(config.final_softcap, keys.get_or<float>("final_logit_softcapping", 0.0F));
  return {};
}

Status check_tensor_names(const Contents& contents, const ModelConfig& config) {
  for (const Tensor& tensor : contents.tensors) {
    if (!is_known_tensor(config, tensor.name)) {
      return fail(ErrorCode::kUnsupported, "gguf: tensor '" + tensor.name + "' is not part of a " +
                                               config.architecture + " model of " +
                                               std::to_string(config.layer_count) + " layers");
    }
  }
  return {};
}

Result<ModelConfig> read_config(const Contents& contents) {
  const Metadata& metadata = contents.metadata;
  ISTHMUS_ASSIGN(const auto name, metadata.get<std::string_view>("general.architecture"));
  ISTHMUS_ASSIGN(const Architecture* architecture, find_architecture(name));
  const Keys keys(metadata, name);
  ModelConfig config;
  ISTHMUS_TRY(read_sizes(contents, keys, config));
  ISTHMUS_TRY(refuse_variants(metadata, keys, config));
  apply_traits(*architecture, config);
  ISTHMUS_TRY(read_biases(contents, config));
  ISTHMUS_TRY(check_tensor_names(contents, config));
  ISTHMUS_TRY(read_scales(*architecture, keys, config));
  ISTHMUS_TRY(read_layers(*architecture, keys, config));
  ISTHMUS_TRY(read_rope(contents, *architecture, keys, config));
  const bool has_head = find_tensor(contents, "output.weight") != nullptr;
  ISTHMUS_ASSIGN(config.tied_head, metadata.get_or<bool>(kSliceTiedHead, !has_head));
  ISTHMUS_TRY(config.validate());
  return config;
}

}  // namespace

Result<ModelParts> read_gguf_model(std::span<const std::byte> file) {
  ISTHMUS_ASSIGN(auto contents, gguf::parse(file));
  return read_gguf_model(std::move(contents));
}

Result<ModelParts> read_gguf_model(Contents contents) {
  ModelParts parts;
  ISTHMUS_ASSIGN(parts.config, read_config(contents));
  ISTHMUS_ASSIGN(parts.tokenizer, gguf::read_tokenizer(contents.metadata));
  ISTHMUS_TRY(check_vocabulary(parts.tokenizer, parts.config.vocab_size));
  ISTHMUS_ASSIGN(parts.slice, describe_slice(contents.metadata));
  ISTHMUS_ASSIGN(parts.source_digests,
                 read_slice_digests(contents.metadata, parts.config.layer_count));
  parts.tensors = std::move(contents.tensors);
  return parts;
}

}  // namespace isthmus::model
