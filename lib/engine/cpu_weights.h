// The weights of one part of a model as float, in the form that the layer loop reads.
#pragma once

#include <isthmus/core/error.h>
#include <isthmus/core/thread_pool.h>
#include <isthmus/engine/engine.h>
#include <isthmus/model/model_file.h>
#include <memory>
#include <vector>

#include "float_region.h"

namespace isthmus::engine {

/// One layer. M is the MLP's width, N = H + 2 * kv heads. Matrices are [out, in]; those that read
/// the same input are stacked, so that one product serves them all. A region that the traits do not
/// ask for is empty: its data() is null.
struct LayerWeights {
  FloatRegion attention_norm;       ///< [D]
  FloatRegion qkv;                  ///< [N * K, D]: queries, keys, values
  FloatRegion qkv_bias;             ///< [N * K]
  FloatRegion q_norm;               ///< [K]
  FloatRegion k_norm;               ///< [K]
  FloatRegion mix;                  ///< [D, H * K]
  FloatRegion mix_bias;             ///< [D]
  FloatRegion post_attention_norm;  ///< [D]
  FloatRegion mlp_norm;             ///< [D]
  FloatRegion gate_up;              ///< [2 * M, D]: gate, up
  FloatRegion down;                 ///< [D, M]
  FloatRegion post_mlp_norm;        ///< [D]
};

struct CpuWeights {
  /// [V, D], read row by row from the mapped file: a front must fit a small device. Null when the
  /// part has no embedding.
  const model::Tensor* embedding = nullptr;
  std::vector<LayerWeights> layers;  ///< [L], empty where the part has none
  FloatRegion final_norm;            ///< [D]
  FloatRegion head;                  ///< [V, D]
};

/// \returns the errors of `load_cpu_engine`.
[[nodiscard]] Result<CpuWeights> load_cpu_weights(const model::ModelFile& file,
                                                  const model::Part& part, ThreadPool& pool,
                                                  const Progress& progress);

}  // namespace isthmus::engine
