// A training run in a file: every trained tensor with its moments.
#pragma once

#include <isthmus/core/error.h>
#include <cstdint>
#include <filesystem>
#include <map>
#include <string>

#include "optimizer.h"

namespace isthmus::train {

struct Checkpoint {
  std::string run;  ///< model, options and text, which must be equal for a run to go on
  int64_t steps = 0;
  std::string note;
  std::map<std::string, Trained> trained;
  std::map<std::string, at::Tensor> fixed;
};

/// \returns kIo; kTooLarge for what could not be read again, before anything is written.
[[nodiscard]] Status save_checkpoint(const std::filesystem::path& path, const Checkpoint& state);

/// Reads into `state`, whose tensors say what is expected and where they live. \returns kNotFound,
/// kIo, kTruncated, kTooLarge, kCorrupt; kInvalidArgument for a checkpoint of another run; `state`
/// is as it was then.
[[nodiscard]] Status load_checkpoint(const std::filesystem::path& path, Checkpoint& state);

}  // namespace isthmus::train
