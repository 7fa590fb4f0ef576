// What rows go through at a cut, with gradients: projection, everything behind it, and back.
#pragma once

#include <ATen/core/Tensor.h>
#include <isthmus/codec/codec.h>
#include <isthmus/core/error.h>
#include <cstdint>
#include <memory>

#include "noise.h"

namespace isthmus::train {

/// The stages behind a projection, of rows of `dims` numbers. Not thread-safe.
class Channel {
 public:
  /// \returns what BoundaryCodec::make returns; kUnsupported for a spec that projects, or clips
  /// beside a transform or a split.
  [[nodiscard]] static Result<Channel> make(const codec::CodecSpec& spec, int64_t dims);

  /// What comes out for latents [N, d] float, each row in a message of its own; the noise is the
  /// one of that name. The gradient is the clip's. \returns what encoding returns.
  [[nodiscard]] Result<at::Tensor> cross(const at::Tensor& latents, uint64_t seed, uint64_t draw);

 private:
  Channel(std::unique_ptr<NamedNoise> noise, codec::BoundaryCodec codec)
      : noise_(std::move(noise)), codec_(std::move(codec)) {}

  std::unique_ptr<NamedNoise> noise_;  // borrowed by the codec
  codec::BoundaryCodec codec_;
};

/// Rows [N, d] to a tensor on `device`, and back.
[[nodiscard]] at::Tensor tensor_of(MatrixView<const float> matrix, at::Device device);
[[nodiscard]] Matrix matrix_of(const at::Tensor& tensor);

}  // namespace isthmus::train
