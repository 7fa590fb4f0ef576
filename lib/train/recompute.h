// Activation checkpointing (Chen, Xu, Zhang, Guestrin 2016): forget what a function computed on its
// way and compute it again when its gradient is wanted.
#pragma once

#include <ATen/core/Tensor.h>
#include <functional>

namespace isthmus::train {

/// `run(x)`, of which only `x` and what `run` holds is kept for the gradient. Gradients reach `x`
/// and those leaves that `run` holds.
[[nodiscard]] at::Tensor recompute(std::function<at::Tensor(const at::Tensor&)> run,
                                   const at::Tensor& x);

}  // namespace isthmus::train
