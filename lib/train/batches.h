// Which windows of the text are read together, and which of their rows pass the cut.
#pragma once

#include <ATen/core/Tensor.h>
#include <isthmus/train/trainer.h>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace isthmus::train {

/// Some windows: ids [B, window + 1], and which rows [B, window] pass the projection.
struct Batch {
  at::Tensor ids;
  at::Tensor passing;  // bool; undefined: all
};

/// Immutable. Batches follow from options and number alone.
class Batches {
 public:
  Batches(TrainText text, const TrainOptions& options);

  /// The `draw`-th one to train on.
  [[nodiscard]] Batch training(uint64_t draw) const;
  /// The `index`-th window to measure on.
  [[nodiscard]] Batch validation(size_t index) const;
  /// Ids [1, window] of one of `count` windows spread evenly over the training text.
  [[nodiscard]] at::Tensor sample(size_t index, size_t count) const;
  /// BLAKE2b of the training tokens, in hex, and of those that are measured on.
  [[nodiscard]] std::string data_hash() const;
  [[nodiscard]] std::string held_out_hash() const;

 private:
  [[nodiscard]] at::Tensor evenly_spaced(const std::vector<int32_t>& tokens, size_t index,
                                         size_t count) const;
  [[nodiscard]] at::Tensor ids_at(const std::vector<int32_t>& tokens, size_t first) const;
  [[nodiscard]] at::Tensor passing(const std::vector<int64_t>& prefixes) const;

  TrainText text_;
  TrainOptions options_;
};

}  // namespace isthmus::train
