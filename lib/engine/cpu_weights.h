// The weights of one part of a model, in the form that the layer loop reads.
#pragma once

#include <isthmus/core/error.h>
#include <isthmus/core/thread_pool.h>
#include <isthmus/engine/cpu_engine.h>
#include <isthmus/kernels/packed_format.h>
#include <isthmus/model/model_file.h>
#include <vector>

#include "region.h"

namespace isthmus::engine {

/// Matrices that read the same input, one product serving them all: [out, in], stacked. They are
/// all float or all packed. Blocks of 16 outputs are the unit of work.
struct Linear {
  /// One of the stacked matrices.
  struct Piece {
    size_t outputs = 0;
    const float* floats = nullptr;  ///< [outputs, inputs], or else
    const std::byte* blocks = nullptr;
    kernels::PackedFormat format;

    [[nodiscard]] size_t block_count() const;
  };

  size_t inputs = 0;
  size_t outputs = 0;
  std::vector<Piece> pieces;

  [[nodiscard]] bool packed() const { return pieces.front().blocks != nullptr; }
  [[nodiscard]] size_t block_count() const;
};

/// One layer. M is the MLP's width, N = H + 2 * kv heads. What the traits do not ask for is null.
struct LayerWeights {
  const float* attention_norm = nullptr;       ///< [D]
  Linear qkv;                                  ///< [N * K, D]: queries, keys, values
  const float* qkv_bias = nullptr;             ///< [N * K]
  const float* q_norm = nullptr;               ///< [K]
  const float* k_norm = nullptr;               ///< [K]
  Linear mix;                                  ///< [D, H * K]
  const float* mix_bias = nullptr;             ///< [D]
  const float* post_attention_norm = nullptr;  ///< [D]
  const float* mlp_norm = nullptr;             ///< [D]
  Linear gate_up;                              ///< [2 * M, D]: gate, up
  Linear down;                                 ///< [D, M]
  const float* post_mlp_norm = nullptr;        ///< [D]
};

struct CpuWeights {
  Arena memory;  ///< what all pointers point into
  /// [V, D], read row by row from the mapped file: a front must fit a small device. Null when the
  /// part has no embedding.
  const model::Tensor* embedding = nullptr;
  std::vector<LayerWeights> layers;   ///< [L], empty where the part has none
  const float* final_norm = nullptr;  ///< [D]
  Linear head;                        ///< [V, D]
};

/// \returns the errors of `load_cpu_engine`.
[[nodiscard]] Result<CpuWeights> load_cpu_weights(const model::ModelFile& file,
                                                  const model::Part& part,
                                                  const CpuEngineOptions& options, ThreadPool& pool,
                                                  const Progress& progress);

}  // namespace isthmus::engine
