#include "optimizer.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <cmath>

namespace isthmus::train {

Trained trained(const at::Tensor& value) {
  return {value.detach().clone().requires_grad_(true), at::zeros_like(value),
          at::zeros_like(value)};
}

double clip_gradients(std::map<std::string, Trained>& parts, double most) {
  const at::NoGradGuard no_gradients;
  double squares = 0;
  for (const auto& [name, part] : parts)
    squares += part.value.grad().to(at::kDouble).square().sum().item<double>();
  const double norm = std::sqrt(squares);
  if (norm > most)
    for (auto& [name, part] : parts) part.value.mutable_grad().mul_(most / norm);
  return norm;
}

void adamw_step(std::map<std::string, Trained>& parts, int64_t number, double rate,
                double weight_decay) {
  constexpr double kMeanDecay = 0.9;
  constexpr double kSquaresDecay = 0.999;
  constexpr double kEpsilon = 1e-8;
  const at::NoGradGuard no_gradients;
  for (auto& [name, part] : parts) {
    const at::Tensor gradient = part.value.grad();
    // Takes the number of this step, as a float on the tensor's device.
    const at::Tensor step = at::full({}, static_cast<double>(number), part.value.options());
    at::_fused_adamw_({part.value}, {gradient}, {part.mean}, {part.squares}, {}, {step}, rate,
                      kMeanDecay, kSquaresDecay, weight_decay, kEpsilon, /*amsgrad=*/false,
                      /*maximize=*/false);
    part.value.mutable_grad().reset();
  }
}

}  // namespace isthmus::train
