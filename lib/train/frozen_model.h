// A model whose weights stay as they are, and which gradients pass through.
#pragma once

#include <ATen/core/Tensor.h>
#include <isthmus/core/error.h>
#include <isthmus/engine/engine.h>
#include <isthmus/model/model_file.h>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "torch_engine/weights.h"

namespace isthmus::train {

/// All layers of one model on one device, cut in two. Throws what libtorch throws.
class FrozenModel {
 public:
  /// \param recompute keep only what enters each layer, and run it once more on the way back:
  /// a third slower, and the memory of one layer in place of all.
  [[nodiscard]] static Result<FrozenModel> load(std::shared_ptr<const model::ModelFile> file,
                                                int32_t cut, const std::string& device,
                                                const std::string& precision, bool recompute);

  [[nodiscard]] const model::ModelConfig& config() const { return file_->config(); }
  [[nodiscard]] int32_t cut() const { return cut_; }
  [[nodiscard]] at::Device device() const { return device_; }

  /// From now on a low-rank path in float stands beside a matrix of a layer behind the cut: `down`
  /// [r, in] and `up` [out, r], which gradients reach. It replaces one that was there. What `clean`
  /// rows are compared with stays without.
  /// \returns kInvalidArgument for another tensor or other shapes.
  [[nodiscard]] Status adapt(const std::string& tensor, at::Tensor down, at::Tensor up);

  /// The rows [B, T, D] in front of layer `cut` for ids [B, T], float, without gradients.
  [[nodiscard]] at::Tensor boundary(const at::Tensor& ids) const;

  /// -log of the chance [B, T] of each of `targets` [B, T] (ids): row s of `rows` [B, S, D], which
  /// stand in front of layer `cut` at positions 0 to S - 1, predicts targets s - (S - T).
  [[nodiscard]] at::Tensor losses(const at::Tensor& rows, const at::Tensor& targets) const;

  /// How far [B, T] the last T predictions of each sequence of `rows` [B, S, D] are from those that
  /// `clean` [B, T, D] make: the Kullback-Leibler divergence, in nats, with gradients for `rows`.
  [[nodiscard]] at::Tensor divergences(const at::Tensor& rows, const at::Tensor& clean) const;

 private:
  /// A number for each row of logits [R, vocabulary], which are those of the predictions from
  /// `first` on.
  using Score = std::function<at::Tensor(const at::Tensor& logits, int64_t first)>;

  FrozenModel(std::shared_ptr<const model::ModelFile> file, int32_t cut, at::Device device,
              bool recompute);
  using Layers = std::vector<torch_engine::LayerWeights>;
  [[nodiscard]] at::Tensor through(const Layers& layers, at::Tensor rows, int32_t first,
                                   int32_t end, bool recompute) const;
  [[nodiscard]] at::Tensor logits(const at::Tensor& last) const;
  [[nodiscard]] at::Tensor scores(const at::Tensor& rows, int64_t count, const Score& score) const;

  std::shared_ptr<const model::ModelFile> file_;
  int32_t cut_;
  at::Device device_;
  bool recompute_;
  torch_engine::Weights weights_;
  Layers adapted_;          // the same layers with adapters beside them
  at::Tensor rope_global_;  // [K/2]
  at::Tensor rope_local_;   // [K/2], or undefined
};

}  // namespace isthmus::train
