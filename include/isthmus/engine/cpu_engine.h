// The torch-free engine: a device's front and tail, or a CPU server's back.
#pragma once

#include <isthmus/core/error.h>
#include <isthmus/core/thread_pool.h>
#include <isthmus/engine/engine.h>
#include <isthmus/model/model_file.h>
#include <memory>

namespace isthmus::engine {

/// Loads the weights of `part` as float and makes an engine that runs at `exact` precision: float
/// weights and activations, every sum in one fixed order that does not depend on the instruction
/// set, so that the same bits come out on every machine with the same libm. `pool` is borrowed and
/// must outlive the engine. \returns kNotFound or kCorrupt naming a tensor that is missing or has
/// the wrong shape; kInvalidArgument for a part outside the model.
[[nodiscard]] Result<std::unique_ptr<Engine>> load_cpu_engine(
    const std::shared_ptr<const model::ModelFile>& file, const model::Part& part, ThreadPool& pool,
    const Progress& progress = {});

}  // namespace isthmus::engine
