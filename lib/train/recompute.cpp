#include "recompute.h"

#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/custom_class.h>

#include <utility>

namespace isthmus::train {
namespace {

using Run = std::function<at::Tensor(const at::Tensor&)>;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct HeldRun : torch::CustomClassHolder {
  explicit HeldRun(Run held) : run(std::move(held)) {}
  Run run;
};

constexpr const char* kRun = "run";

struct Recompute : torch::autograd::Function<Recompute> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x,
                            const c10::intrusive_ptr<HeldRun>& held) {
    context->save_for_backward({x});
    context->saved_data[kRun] = c10::IValue::make_capsule(held);
    return held->run(x);
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const at::Tensor x = context->get_saved_variables()[0].detach().requires_grad_(true);
    const at::AutoGradMode on(true);
    const auto held =
        c10::static_intrusive_pointer_cast<HeldRun>(context->saved_data[kRun].toCapsule());
    // Adds to the gradients of all leaves, `x` among them.
    torch::autograd::backward({held->run(x)}, {gradients[0]});
    return {x.grad(), at::Tensor()};
  }
};

}  // namespace

at::Tensor recompute(Run run, const at::Tensor& x) {
  // Without an input that wants a gradient, those that `run` holds would get none.
  const bool alone = c10::GradMode::is_enabled() && !x.requires_grad();
  return Recompute::apply(alone ? x.detach().requires_grad_(true) : x,
                          c10::make_intrusive<HeldRun>(std::move(run)));
}

}  // namespace isthmus::train
