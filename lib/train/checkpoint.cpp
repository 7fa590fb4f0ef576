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

/// \returns kCorrupt unless it has the shape of `tensor`.
Result<at::Tensor> read_like(const model::Tensor& stored, const at::Tensor& tensor) {
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
  return host;
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
  int64_t steps = 0;
  const std::string& text = metadata["steps"];
  const auto read = std::from_chars(text.data(), text.data() + text.size(), steps);
  if (read.ec != std::errc() || read.ptr != text.data() + text.size() || steps < 0)
    return fail(ErrorCode::kCorrupt, "train: the checkpoint's step is '" + text + "'");
  ISTHMUS_ASSIGN(const auto tensors, model::safetensors::parse(bytes));
  std::map<std::string, at::Tensor> wanted = named_tensors(state);
  std::vector<std::pair<at::Tensor, at::Tensor>> found;  // where they belong, what was stored
  for (const model::Tensor& stored : tensors) {
    const auto place = wanted.find(stored.name);
    if (place == wanted.end())
      return fail(ErrorCode::kCorrupt,
                  "train: the checkpoint has an unknown '" + stored.name + "'");
    ISTHMUS_ASSIGN(at::Tensor value, read_like(stored, place->second));
    found.emplace_back(place->second, std::move(value));
    wanted.erase(place);
  }
  if (!wanted.empty())
    return fail(ErrorCode::kCorrupt, "train: the checkpoint lacks '" + wanted.begin()->first + "'");
  // Nothing is refused from here on.
  const at::NoGradGuard no_gradients;
  for (auto& [tensor, value] : found) tensor.copy_(value);
  state.steps = steps;
  state.note = metadata["note"];
  return {};
}

}  // namespace isthmus::train
