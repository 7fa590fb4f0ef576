// The weights of one part of a model as tensors on one device.
#pragma once

#include <ATen/core/Tensor.h>
#include <isthmus/core/error.h>
#include <isthmus/engine/engine.h>
#include <isthmus/model/model_file.h>
#include <cstdint>
#include <vector>

namespace isthmus::torch_engine {

/// A product with a matrix, in the engine's precision.
struct Linear {
  at::Tensor weight;    ///< [out, in]
  at::Tensor bias;      ///< [out], or undefined
  at::Tensor down, up;  ///< [r, in], [out, r] float: an adapter in training; undefined in engines
};

/// One layer. Norms are float. What the traits do not ask for is undefined.
struct LayerWeights {
  at::Tensor attention_norm;       ///< [D]
  Linear q, k, v;                  ///< [H * K, D], [kv heads * K, D] twice
  at::Tensor q_norm, k_norm;       ///< [K]
  Linear mix;                      ///< [D, H * K]
  at::Tensor post_attention_norm;  ///< [D]
  at::Tensor mlp_norm;             ///< [D]
  Linear gate, up;                 ///< [M, D]
  Linear down;                     ///< [D, M]
  at::Tensor post_mlp_norm;        ///< [D]
};

struct Weights {
  at::Tensor embedding;  ///< [V, D]; the same memory as `head` where both are held and tied
  std::vector<LayerWeights> layers;  ///< [L], empty where the part has none
  at::Tensor final_norm;             ///< [D]
  at::Tensor head;                   ///< [V, D]
  uint64_t bytes = 0;                ///< of all of them
};

/// Reads tensors to `device`, matrices as `precision`. Throws what libtorch throws.
/// \returns kNotFound, or kCorrupt naming a tensor whose shape is wrong.
[[nodiscard]] Result<Weights> load_weights(const model::ModelFile& file, const model::Part& part,
                                           at::Device device, at::ScalarType precision,
                                           const engine::Progress& progress);

}  // namespace isthmus::torch_engine
