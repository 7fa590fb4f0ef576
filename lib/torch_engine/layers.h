// The layers of a transformer over the joined rows of several sequences.
#pragma once

#include <ATen/core/Tensor.h>
#include <isthmus/model/config.h>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "torch_cache.h"
#include "weights.h"

namespace isthmus::torch_engine {

/// Some rows of one sequence inside a joined set.
struct Sequence {
  TorchCache* cache = nullptr;
  int64_t row_count = 0;
};

/// Turns query and key heads by the angles of their positions. One object serves all layers of one
/// set of rows. Outside of InferenceMode it is differentiable.
class Rotation {
 public:
  /// \param positions [rows] int32 \param frequencies [K/2] float, both on the engine's device
  Rotation(at::Tensor positions, at::Tensor frequencies, model::RopePairs pairs);

  /// Rotates `heads` [rows, H, K]. Throws what libtorch throws.
  [[nodiscard]] at::Tensor apply(const at::Tensor& heads) const;

 private:
  at::Tensor positions_;
  at::Tensor frequencies_;
  model::RopePairs pairs_;
  at::Tensor cosines_, sines_;  ///< [rows, 1, K/2]; undefined where our CUDA kernel rotates
};

/// RMS norm of the last dimension in float (Zhang and Sennrich 2019). `x` and the result are float.
[[nodiscard]] at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight,
                                  const model::ModelConfig& config);

/// c tanh(x / c); `x` itself for c = 0.
[[nodiscard]] at::Tensor softcap(const at::Tensor& x, float cap);

/// What every row's heads read: queries [N, H, K], keys and values [N, kv heads, K], already
/// turned, give [N, H * K].
using Attention =
    std::function<at::Tensor(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v)>;

/// Takes rows [N, D] (float) through one layer.
[[nodiscard]] at::Tensor run_layer(const model::ModelConfig& config, const LayerWeights& weights,
                                   const Rotation& rotation, const Attention& attention,
                                   const at::Tensor& rows);

/// The same for the joined rows of `sequences`; writes the keys and values behind each cache's last
/// position, where room has been made.
[[nodiscard]] at::Tensor run_layer(const model::ModelConfig& config, const LayerWeights& weights,
                                   int32_t layer, const Rotation& rotation,
                                   std::span<const Sequence> sequences, const at::Tensor& rows);

}  // namespace isthmus::torch_engine
