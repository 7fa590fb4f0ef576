// AdamW (Loshchilov and Hutter 2019) over a few tensors, with libtorch's fused step; its state is
// open, so that it can be stored.
#pragma once

#include <ATen/core/Tensor.h>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace isthmus::train {

/// One trained tensor and its moments, all float.
struct Trained {
  at::Tensor value;    ///< leaf that wants a gradient
  at::Tensor mean;     ///< of gradients
  at::Tensor squares;  ///< of gradients, mean
};

/// `value` with moments of zero.
[[nodiscard]] Trained trained(const at::Tensor& value);

/// Scales all gradients down to a norm of `most` together. \returns the norm before.
double clip_gradients(std::map<std::string, Trained>& parts, double most);

/// Step `number`, from 1, and then no gradients.
void adamw_step(std::map<std::string, Trained>& parts, int64_t number, double rate,
                double weight_decay);

}  // namespace isthmus::train
