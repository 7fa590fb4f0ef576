// What distinguishes one decoder-only transformer from another: sizes and a row of traits, no class
// tree.
#pragma once

#include <isthmus/core/error.h>
#include <cstdint>
#include <string>
#include <vector>

namespace isthmus::model {

enum class Activation : uint8_t {
  kSilu,
  kGeluTanh,  ///< GELU, tanh approximation
};

/// Which coordinates of a head rotate together.
enum class RopePairs : uint8_t {
  kAdjacent,   ///< (2i, 2i+1): Llama weights as GGUF stores them
  kHalfApart,  ///< (i, i + K/2): Hugging Face's order, and GGUF's for Qwen and Gemma
};

/// How one layer attends.
struct LayerAttention {
  int32_t window = 0;  ///< a position sees itself and the window - 1 before it; 0: all before it
  bool local_rope = false;  ///< rotates with `rope_local` instead of `rope_global`
};

/// A model's sizes and traits. Made by the readers of model files; `validate` has passed for every
/// one they return.
struct ModelConfig {
  std::string architecture;  ///< "llama", "qwen2", "qwen3" or "gemma3"

  int32_t layer_count = 0;    ///< L
  int32_t hidden_size = 0;    ///< D
  int32_t head_count = 0;     ///< H
  int32_t kv_head_count = 0;  ///< divides head_count
  int32_t head_size = 0;      ///< K, even
  int32_t mlp_size = 0;
  int32_t vocab_size = 0;      ///< V
  int32_t context_length = 0;  ///< tokens the model was trained for

  float norm_epsilon = 1e-5F;
  float norm_weight_offset =
      0;  ///< added to every norm weight (Gemma stores w - 1 in Hugging Face files)
  float embedding_scale = 1;    ///< embeddings are multiplied by this (Gemma: sqrt(D))
  float attention_scale = 0;    ///< scores are multiplied by this, usually 1/sqrt(K)
  float attention_softcap = 0;  ///< c tanh(x / c) on scores; 0: none
  float final_softcap = 0;      ///< the same on logits; 0: none
  Activation activation = Activation::kSilu;
  bool qkv_bias = false;     ///< biases on the q, k and v products (Qwen 2)
  bool output_bias = false;  ///< bias on the attention output product
  bool qk_norm = false;     ///< RMS norm of each q and k head before the rotation (Qwen 3, Gemma 3)
  bool post_norms = false;  ///< RMS norm of both block outputs before the residual sums (Gemma)
  bool tied_head = false;   ///< the LM head is the embedding table

  RopePairs rope_pairs = RopePairs::kAdjacent;
  /// [K/2] angle per position of each pair, scaling applied.
  std::vector<float> rope_global;
  /// The same for layers with `local_rope`; empty when there are none.
  std::vector<float> rope_local;
  std::vector<LayerAttention> layers;  ///< [L]

  /// \returns kCorrupt naming the first field out of range.
  [[nodiscard]] Status validate() const;
};

}  // namespace isthmus::model
