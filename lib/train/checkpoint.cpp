#include "checkpoint.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <isthmus/model/model_file.h>
#include <isthmus/model/safetensors.h>

#include <charconv>
#include <cstddef>
#include <span>
#include <utility>
#include <vector>

namespace isthmus::train {
namespace {

constexpr const char* kFormat = "isthmus-training-2";
constexpr size_t kMaxBytes = size_t{4} << 30U;
// The note's bytes stand among the tensors: a header has a limit, which a long run's log would
// pass.
constexpr const char* kNote = "note";

/// How many numbers hold so many bytes.
constexpr uint64_t whole_floats(uint64_t bytes) {
  return (bytes + sizeof(float) - 1) / sizeof(float);
}

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

Result<int64_t> read_count(std::map<std::string, std::string>& metadata, const char* name) {
  int64_t count = 0;
  const std::string& text = metadata[name];
  const auto read = std::from_chars(text.data(), text.data() + text.size(), count);
  if (read.ec != std::errc() || read.ptr != text.data() + text.size() || count < 0) {
    return fail(ErrorCode::kCorrupt,
                std::string("train: the checkpoint's '") + name + "' is '" + text + "'");
  }
  return count;
}

/// What fills whole numbers from there on is not of the note.
Result<std::string> read_note(std::span<const std::byte> stored, int64_t bytes) {
  if (stored.size() != whole_floats(static_cast<uint64_t>(bytes)) * sizeof(float)) {
    return fail(ErrorCode::kCorrupt, "train: the checkpoint's note of " + std::to_string(bytes) +
                                         " bytes is in " + std::to_string(stored.size()));
  }
  return std::string(reinterpret_cast<const char*>(stored.data()), static_cast<size_t>(bytes));
}

}  // namespace

Status save_checkpoint(const std::filesystem::path& path, const Checkpoint& state) {
  const std::map<std::string, at::Tensor> named = named_tensors(state);
  std::string note = state.note;
  note.resize(whole_floats(note.size()) * sizeof(float));
  size_t bytes = note.size();
  for (const auto& [name, tensor] : named)
    bytes += static_cast<size_t>(tensor.numel()) * sizeof(float);
  constexpr size_t kMost = kMaxBytes - model::safetensors::kMaxHeaderBytes;
  if (bytes > kMost) {
    return fail(ErrorCode::kTooLarge, "train: a checkpoint of " + std::to_string(bytes) +
                                          " bytes, it may have " + std::to_string(kMost));
  }
  std::vector<at::Tensor> hosts;
  std::vector<model::Tensor> tensors;
  for (const auto& [name, tensor] : named) {
    hosts.push_back(tensor.to(at::kCPU, at::kFloat).contiguous());
    const auto data = std::as_bytes(
        std::span(hosts.back().const_data_ptr<float>(), static_cast<size_t>(hosts.back().numel())));
    tensors.push_back(
        {.name = name,
         .type = DType::kF32,
         .shape = {static_cast<uint64_t>(tensor.size(0)), static_cast<uint64_t>(tensor.size(1))},
         .data = data});
  }
  if (!note.empty()) {
    tensors.push_back({.name = kNote,
                       .type = DType::kF32,
                       .shape = {note.size() / sizeof(float)},
                       .data = std::as_bytes(std::span(note))});
  }
  return model::safetensors::save(path, tensors,
                                  {{"format", kFormat},
                                   {"run", state.run},
                                   {"steps", std::to_string(state.steps)},
                                   {"note_bytes", std::to_string(state.note.size())}});
}

Status load_checkpoint(const std::filesystem::path& path, Checkpoint& state) {
  ISTHMUS_ASSIGN(const auto bytes, model::safetensors::load(path, kMaxBytes));
  ISTHMUS_ASSIGN(auto metadata, model::safetensors::metadata(bytes));
  if (metadata["format"] != kFormat)
    return fail(ErrorCode::kCorrupt,
                "train: '" + path.string() + "' is no checkpoint in the format " + kFormat);
  if (metadata["run"] != state.run) {
    return fail(ErrorCode::kInvalidArgument, "train: the checkpoint is of the run '" +
                                                 metadata["run"] + "', this one is '" + state.run +
                                                 "'");
  }
  ISTHMUS_ASSIGN(const int64_t steps, read_count(metadata, "steps"));
  ISTHMUS_ASSIGN(const int64_t note_bytes, read_count(metadata, "note_bytes"));
  ISTHMUS_ASSIGN(const auto tensors, model::safetensors::parse(bytes));
  std::map<std::string, at::Tensor> wanted = named_tensors(state);
  std::vector<std::pair<at::Tensor, at::Tensor>> found;  // where they belong, what was stored
  std::span<const std::byte> stored_note;
  for (const model::Tensor& stored : tensors) {
    if (stored.name == kNote) {
      stored_note = stored.data;
      continue;
    }
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
  ISTHMUS_ASSIGN(std::string note, read_note(stored_note, note_bytes));
  // Nothing is refused from here on.
  const at::NoGradGuard no_gradients;
  for (auto& [tensor, value] : found) tensor.copy_(value);
  state.steps = steps;
  state.note = std::move(note);
  return {};
}

}  // namespace isthmus::train
