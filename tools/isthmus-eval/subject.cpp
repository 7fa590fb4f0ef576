#include "subject.h"

#include <isthmus/text/tokenizer.h>

#include <algorithm>
#include <string>

#include "common/artefact_flags.h"
#include "common/terminal.h"
#include "common/text_file.h"

namespace isthmus::tools {
namespace {

/// The cut when none is named.
Result<int32_t> own_cut(const artefact::Artefacts& artefacts, int32_t layers) {
  if (artefacts.empty()) return std::max(1, layers / 10);
  const int32_t cut = artefacts.front()->origin().cut;
  for (const auto& artefact : artefacts) {
    if (artefact->origin().cut == cut) continue;
    return fail(ErrorCode::kInvalidArgument, "eval: artefacts for cuts " + std::to_string(cut) +
                                                 " and " + std::to_string(artefact->origin().cut) +
                                                 ", one cut at a time");
  }
  return cut;
}

}  // namespace

Result<Subject> open_subject(const EvalFlags& flags) {
  Subject subject{.cuts = flags.cuts};
  ISTHMUS_ASSIGN(subject.file, model::ModelFile::open(flags.model));
  ISTHMUS_ASSIGN(subject.artefacts, load_artefacts(flags.artefacts));
  const int32_t layers = subject.layer_count();
  if (subject.cuts.empty()) {
    ISTHMUS_ASSIGN(const int32_t cut, own_cut(subject.artefacts, layers));
    subject.cuts = {cut};
  }
  for (const int32_t cut : subject.cuts) {
    if (cut > layers) {
      return fail(ErrorCode::kInvalidArgument, "eval: cut is " + std::to_string(cut) +
                                                   ", the model has " + std::to_string(layers) +
                                                   " layers");
    }
  }
  ISTHMUS_ASSIGN(const auto tokenizer, text::Tokenizer::make(subject.file->tokenizer()));
  const auto read = [&](const std::filesystem::path& path, size_t tokens) {
    return read_text(path).and_then([&](const std::string& text) {
      return audit::make_windows(text, tokenizer, flags.window, tokens);
    });
  };
  ISTHMUS_ASSIGN(subject.text, read(flags.text, flags.tokens));
  if (!flags.calibration_text.empty()) {
    ISTHMUS_ASSIGN(subject.calibration_text,
                   read(flags.calibration_text, flags.calibration_tokens));
    if (audit::overlap(subject.text, subject.calibration_text)) {
      return fail(ErrorCode::kInvalidArgument,
                  "eval: a window of '" + flags.text.string() + "' is also in '" +
                      flags.calibration_text.string() +
                      "', a calibration may not be made of what is evaluated");
    }
  }
  return subject;
}

Result<std::unique_ptr<engine::Engine>> load_layers(
    const std::shared_ptr<const model::ModelFile>& file, engine::LayerWindow layers,
    ThreadPool& pool, const engine::CpuEngineOptions& options) {
  model::Part part;
  if (layers.count() > 0) part.layers.emplace_back(layers.first, layers.end);
  part.embedding = layers.first == 0;
  part.head = layers.end == file->config().layer_count;
  ProgressBar bar("loading");
  return engine::load_cpu_engine(file, part, pool, options,
                                 [&bar](double fraction) { bar.update(fraction); });
}

}  // namespace isthmus::tools
