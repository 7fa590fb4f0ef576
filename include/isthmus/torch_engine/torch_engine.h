// The engine on libtorch: float on the CPU as the reference, bf16 and fp16 on CUDA as the product.
//
// This header names nothing of libtorch. libtorch_cuda is not linked either: it is loaded when a
// CUDA device is asked for.
#pragma once

#include <isthmus/core/error.h>
#include <isthmus/engine/engine.h>
#include <isthmus/model/model_file.h>
#include <cstdint>
#include <memory>
#include <string>

namespace isthmus::torch_engine {

struct TorchOptions {
  std::string device = "cpu";  ///< "cpu", "cuda" (the first CUDA device) or "cuda:N"

  /// How weights, caches and the inputs of matrix products are stored: "fp32", "bf16" (range of
  /// float, 8 significant bits) or "fp16" (11 significant bits, but magnitudes above 65504
  /// overflow: some models need bf16). The residual stream, norms, scores and logits are float in
  /// all cases. Empty: fp32 on the CPU, bf16 on CUDA.
  std::string precision;

  int32_t threads = 0;  ///< of libtorch's process-wide pool for the CPU; 0 leaves it as it is
};

/// Loads the weights of `part` and makes an engine. Numbers agree with CpuEngine's to rounding, not
/// to the bit: libtorch orders sums as it likes, so the engine is not batch-invariant and says so.
/// A result that overflowed, which fp16 can cause, is given back as it is: infinite or NaN.
/// \returns kInvalidArgument (an unknown device or precision, a negative thread count, a part
/// outside the model), kNotFound or kCorrupt naming a tensor, kNoDevice when there is no such CUDA
/// device or its libraries are missing, kOutOfMemory, kDeviceFailed.
[[nodiscard]] Result<std::unique_ptr<engine::Engine>> load_torch_engine(
    const std::shared_ptr<const model::ModelFile>& file, const model::Part& part,
    const TorchOptions& options = {}, const engine::Progress& progress = {});

}  // namespace isthmus::torch_engine
