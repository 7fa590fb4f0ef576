// The weights of one part of a model as tensors on one device.
#pragma once

#include <ATen/core/Tensor.h>
#include <isthmus/core/error.h>
#include <isthmus/engine/engine.h>
#include <isthmus/model/model_file.h>
#include <vector>

namespace isthmus::torch_engine {

/// One layer. Matrices are [out, in] in the engine's precision, norms float. A tensor that the
/// traits do not ask for is undefined.
struct LayerWeights {
  at::Tensor attention_norm;          ///< [D]
  at::Tensor q, k, v;                 ///< [H * K, D], [kv heads * K, D] twice
  at::Tensor q_bias, k_bias, v_bias;  ///< [out]
  at::Tensor q_norm, k_norm;          ///< [K]
  at::Tensor mix;                     ///< [D, H * K]
  at::Tensor mix_bias;                ///< [D]
  at::Tensor post_attention_norm;     ///< [D]
  at::Tensor mlp_norm;                ///< [D]
  at::Tensor gate, up;                ///< [M, D]
  at::Tensor down;                    ///< [D, M]
  at::Tensor post_mlp_norm;           ///< [D]
};

struct Weights {
  at::Tensor embedding;  ///< [V, D]; the same memory as `head` where both are held and tied
  std::vector<LayerWeights> layers;  ///< [L], empty where the part has none
  at::Tensor final_norm;             ///< [D]
  at::Tensor head;                   ///< [V, D]
};

/// Reads tensors to `device`, matrices as `precision`. Throws what libtorch throws.
/// \returns kNotFound, or kCorrupt naming a tensor whose shape is wrong.
[[nodiscard]] Result<Weights> load_weights(const model::ModelFile& file, const model::Part& part,
                                           at::Device device, at::ScalarType precision,
                                           const engine::Progress& progress);

}  // namespace isthmus::torch_engine
