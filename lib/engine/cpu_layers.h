// The layers of a transformer over a ragged set of rows, step by step.
#pragma once

#include <isthmus/core/thread_pool.h>
#include <isthmus/kernels/kernel_table.h>
#include <isthmus/model/config.h>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "cpu_cache.h"
#include "cpu_weights.h"

namespace isthmus::engine {

/// One token on its way through its layers.
struct Row {
  CpuCache* cache = nullptr;
  int32_t position = 0;
  float* residual = nullptr;  ///< [D], updated in place
  float* output = nullptr;    ///< [D] or [V] of the result, null when the row is not asked for
  Output output_kind = Output::kHidden;
};

/// How numbers that are no weights are kept.
struct Numbers {
  kernels::KvFormat cache = kernels::KvFormat::kF32;
  bool two_bytes = false;  ///< activations in front of packed weights, else one
};

/// Computes layers. Each row's numbers come out of that row and its cache alone, in one fixed
/// order. Rows of one sequence must come with increasing positions. Borrows everything; one call at
/// a time.
class CpuLayers {
 public:
  CpuLayers(const model::ModelConfig& config, const CpuWeights& weights, const Numbers& numbers,
            const kernels::KernelTable& kernels, ThreadPool& pool);

  /// Takes every row through its window, all rows layer by layer together: a row joins at its
  /// window's first layer and leaves at its end. Keys and values are written to the caches.
  void run(std::span<const Row> rows);

  /// Writes the scores [V] of every row's residual to its output.
  void score(std::span<const Row* const> rows);

 private:
  /// Cosines and sines of the angles of one position, for the two kinds of layers.
  struct Rotations {
    std::vector<float> global;  ///< [rows, 2, K/2]
    std::vector<float> local;
  };

  void find_runs();
  void run_layer(int32_t layer);
  void turn_positions(std::span<const Row> rows);
  void normalize(const float* weight);
  void project(const std::vector<float>& x, const Linear& linear, const float* bias,
               std::vector<float>& y);
  void multiply(const std::vector<float>& x, const Linear& linear, const float* bias, float* y);
  kernels::QuantizedRows quantize(const std::vector<float>& x, size_t inputs);
  void store_keys_and_rotate(const LayerWeights& weights, int32_t layer);
  void shape_head(float* head, const float* norm, const float* rotation) const;
  void attend(int32_t layer);
  void gate();
  void add_to_residual(const float* post_norm);

  const model::ModelConfig& config_;
  const CpuWeights& weights_;
  const Numbers numbers_;
  const kernels::KernelTable& kernels_;
  ThreadPool& pool_;

  const size_t hidden_;     // D
  const size_t head_size_;  // K
  const size_t q_size_;     // H * K
  const size_t kv_size_;    // kv heads * K
  const size_t mlp_size_;

  // Scratch of one pass, kept between calls. A = the rows that are inside the current layer.
  struct ActiveRow {
    const Row* row;
    size_t index;  // in `rotations_`
  };
  /// Active rows of one sequence, at consecutive positions.
  struct Run {
    size_t first;  // in `active_`
    size_t count;
  };
  std::vector<ActiveRow> active_;
  std::vector<Run> runs_;
  Rotations rotations_;
  std::vector<float> normed_;               // [A, D]
  std::vector<float> qkv_;                  // [A, q + 2 kv]
  std::vector<float> mixed_;                // [A, q]
  std::vector<float> gate_up_;              // [A, 2 M]
  std::vector<float> gated_;                // [A, M]
  std::vector<float> delta_;                // [A, D] or [A, V]
  std::vector<std::vector<float>> scores_;  // one buffer per thread
  // One matrix as bytes, see kernels::QuantizedRows.
  struct PlaneMemory {
    std::vector<int8_t> codes;
    std::vector<int32_t> half_sums;
  };
  PlaneMemory coarse_;
  PlaneMemory fine_;
  std::vector<float> scales_;
  std::vector<float> sums_;
};

}  // namespace isthmus::engine
