// What isthmus-eval reads: the model file and the windows of the text.
#pragma once

#include <isthmus/artefact/artefact.h>
#include <isthmus/audit/quality.h>
#include <isthmus/core/error.h>
#include <isthmus/core/thread_pool.h>
#include <isthmus/engine/cpu_engine.h>
#include <isthmus/model/model_file.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "options.h"

namespace isthmus::tools {

struct Subject {
  std::shared_ptr<const model::ModelFile> file;
  audit::TextWindows text;
  audit::TextWindows calibration_text;  ///< no tokens: none is wanted
  artefact::Artefacts artefacts;
  std::vector<int32_t> cuts;

  [[nodiscard]] int32_t layer_count() const { return file->config().layer_count; }
};

/// \returns the errors of opening and reading; kInvalidArgument for a cut behind the last layer,
/// for texts that overlap, and when no cut is named and the artefacts are for several.
[[nodiscard]] Result<Subject> open_subject(const EvalFlags& flags);

/// Layers [first, end) with the embedding or the head that belongs to them.
[[nodiscard]] Result<std::unique_ptr<engine::Engine>> load_layers(
    const std::shared_ptr<const model::ModelFile>& file, engine::LayerWindow layers,
    ThreadPool& pool, const engine::CpuEngineOptions& options);

}  // namespace isthmus::tools
