// The table of architectures: everything that tells one family from another, and what its tensors
// are called. A new architecture is a row here.
#pragma once

#include <isthmus/core/error.h>
#include <isthmus/model/config.h>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace isthmus::model {

/// One row of the table. Two rows may share a name: GGUF calls Mistral llama.
struct Architecture {
  std::string_view name;     ///< GGUF's general.architecture
  std::string_view hf_type;  ///< config.json's model_type

  Activation activation = Activation::kSilu;
  bool qkv_bias = false;
  bool qk_norm = false;
  bool post_norms = false;
  bool scaled_embedding = false;  ///< by sqrt(D)
  int32_t global_every = 0;       ///< each n-th layer attends globally; 0: all layers are alike
  float local_rope_base = 0;      ///< of the windowed layers; 0: as the others

  RopePairs gguf_pairs = RopePairs::kHalfApart;  ///< Hugging Face files are always kHalfApart
  /// Models of this depth scale scores by 1/sqrt(D/H) where K is something else; GGUF does not say.
  int32_t gguf_hidden_scaled_depth = 0;

  float hf_norm_offset = 0;
  bool hf_window_opt_in = false;  ///< sliding_window counts only with use_sliding_window
  // What config.json means when it does not say.
  int32_t hf_head_size = 0;   ///< 0: D / H
  float hf_query_scalar = 0;  ///< 0: the family has none, scores are scaled by 1/sqrt(K)
  float hf_rope_base = 10000;
  int32_t hf_window = 0;  ///< 0: the family has none
  bool hf_tied_head = false;
};

/// \returns kUnsupported naming the architecture and the known ones.
[[nodiscard]] Result<const Architecture*> find_architecture(std::string_view gguf_name);
[[nodiscard]] Result<const Architecture*> find_hf_architecture(std::string_view model_type);

/// The traits that do not depend on a file.
void apply_traits(const Architecture& architecture, ModelConfig& config);

/// A layer's tensor by its number and the rest of its name: "blk.3.attn_q.weight".
struct LayerTensorName {
  int32_t layer = 0;
  std::string_view rest;
};
[[nodiscard]] std::optional<LayerTensorName> split_layer_name(std::string_view name,
                                                              std::string_view prefix);

/// Whether a model of these traits and this depth has a tensor of this (GGUF) name. A file with
/// other weights is not the model we would compute, so it is refused rather than read in part.
[[nodiscard]] bool is_known_tensor(const ModelConfig& config, std::string_view name);

/// GGUF's name for a tensor of a Hugging Face file; nothing for an unknown one.
[[nodiscard]] std::optional<std::string> gguf_tensor_name(const ModelConfig& config,
                                                          std::string_view hf_name);

/// [K/2] angle per position of each rotated pair: base^(-2i/K).
[[nodiscard]] std::vector<float> rope_angles(int32_t head_size, float base);

/// Llama 3's scaling: long waves are stretched by `factor`, short ones kept, those between blended.
struct Llama3Scaling {
  float factor = 1;
  float low_freq_factor = 1;
  float high_freq_factor = 4;
  float original_context = 8192;
};
void scale_llama3(std::vector<float>& angles, const Llama3Scaling& scaling);

/// Fills config.layers where every `global_every`-th layer is global and the others see `window`
/// positions (0 for `global_every`: none is global).
void assign_layers(const Architecture& architecture, int32_t window, int32_t global_every,
                   ModelConfig& config);
/// The same from a flag for each layer.
void assign_layers(const Architecture& architecture, int32_t window,
                   const std::vector<bool>& is_windowed, ModelConfig& config);

/// Whether any layer rotates by config.rope_local.
[[nodiscard]] bool uses_local_rope(const ModelConfig& config);

}  // namespace isthmus::model
