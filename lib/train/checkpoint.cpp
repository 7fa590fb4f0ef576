#include "checkpoint.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <isthmus/model/model_file.h>
#include <isthmus/model/safetensors.h>

#include <charconv>
#include <utility>
#include <vector>

namespace isthmus::train {
namespace {

constexpr const char* kFormat = "isthmus-training-1";
constexpr size_t kMaxBytes = size_t{4} << 30U;

/// Every tensor of a run under its name in the file. They share memory with `state`.
std::map<std::string, at::Tensor> named_tensors(const Checkpoint& state) {
  std::map<std::string, at::Tensor> named = state.fixed;
  for (const auto& [name, part] : state.trained) {
    named[name] = part.value.detach();
    named[name + ".mean"] = part.mean;
    named[name + ".squares"] = part.squares;
  }
  return named;
}

Status read_into(const model::Tensor& stored, at::Tensor& tensor) {
  const auto rows = static_cast<uint64_t>(tensor.size(0));
  const auto cols = static_cast<uint64_t>(tensor.size(1));
  if (stored.type != DType::kF32 || stored.shape != std::vector{rows, cols}) {
    return fail(ErrorCode::kCorrupt, "train: checkpoint tensor '" + stored.name + "' is not [" +
                                         std::to_string(rows) + ", " + std::to_string(cols) +
                                         "] in F32");
  }
  at::Tensor host = at::empty(tensor.sizes(), at::kFloat);
  const MatrixView<float> view(host.data_ptr<float>(), rows, cols);
  ISTHMUS_TRY(model::read_rows(stored, 0, view));
  tensor.copy_(host);
  return {};
}

}  // namespace

Status save_checkpoint(const std::filesystem::path& path, const Checkpoint& state) {
  std::vector<at::Tensor> hosts;
  std::vector<model::Tensor> tensors;
  for (const auto& [name, tensor] : named_tensors(state)) {
    hosts.push_back(tensor.to(at::kCPU, at::kFloat).contiguous());
    const auto bytes = std::as_bytes(
        std::span(hosts.back().const_data_ptr<float>(), static_cast<size_t>(hosts.back().numel())));
    tensors.push_back(
        {.name = name,
         .type = DType::kF32,
         .shape = {static_cast<uint64_t>(tensor.size(0)), static_cast<uint64_t>(tensor.size(1))},
         .data = bytes});
  }
  return model::safetensors::save(path, tensors,
                                  {{"format", kFormat},
                                   {"run", state.run},
                                   {"steps", std::to_string(state.steps)},
                                   {"note", state.note}});
}

Status load_checkpoint(const std::filesystem::path& path, Checkpoint& state) {
  ISTHMUS_ASSIGN(const auto bytes, model::safetensors::load(path, kMaxBytes));
  ISTHMUS_ASSIGN(auto metadata, model::safetensors::metadata(bytes));
  if (metadata["format"] != kFormat)
    return fail(ErrorCode::kCorrupt, "train: '" + path.string() + "' is no checkpoint");
  if (metadata["run"] != state.run) {
    return fail(ErrorCode::kInvalidArgument, "train: the checkpoint is of the run '" +
                                                 metadata["run"] + "', this one is '" + state.run +
                                                 "'");
  }
  const std::string& steps = metadata["steps"];
  const auto read = std::from_chars(steps.data(), steps.data() + steps.size(), state.steps);
  if (read.ec != std::errc() || read.ptr != steps.data() + steps.size() || state.steps < 0)
    return fail(ErrorCode::kCorrupt, "train: the checkpoint's step is '" + steps + "'");
  state.note = metadata["note"];
  ISTHMUS_ASSIGN(const auto tensors, model::safetensors::parse(bytes));
  std::map<std::string, at::Tensor> wanted = named_tensors(state);
  const at::NoGradGuard no_gradients;
  for (const model::Tensor& stored : tensors) {
    const auto found = wanted.find(stored.name);
    if (found == wanted.end())
      return fail(ErrorCode::kCorrupt,
                  "train: the checkpoint has an unknown '" + stored.name + "'");
    ISTHMUS_TRY(read_into(stored, found->second));
    wanted.erase(found);
  }
  if (wanted.empty()) return {};
  return fail(ErrorCode::kCorrupt, "train: the checkpoint lacks '" + wanted.begin()->first + "'");
}

}  // namespace isthmus::train
