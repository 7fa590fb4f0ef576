#include "settings.h"

#include <isthmus/audit/evaluate.h>
#include <isthmus/core/clock.h>

#include <memory>
#include <utility>

#include "common/engine_flags.h"
#include "common/terminal.h"

namespace isthmus::tools {
namespace {

using EnginePtr = std::unique_ptr<engine::Engine>;

/// Both halves of a model, in engines that hold no more than they run.
struct Halves {
  EnginePtr front;
  EnginePtr back;
  int32_t cut = 0;

  [[nodiscard]] audit::SplitModel model() const { return {front.get(), back.get(), cut}; }
};

engine::CpuEngineOptions options_of(const Setting& setting, int32_t layer_count) {
  engine::CpuEngineOptions options =
      EngineFlags{.precision = setting.precision, .kv_bits = setting.kv_bits}.options();
  options.weights.ranges = {{{0, setting.cut}, setting.front_bits},
                            {{setting.cut, layer_count}, setting.back_bits}};
  options.weights.head_bits = setting.back_bits;
  return options;
}

std::vector<Setting> all_settings(const Subject& subject, const EvalFlags& flags) {
  std::vector<Setting> settings;
  for (const int32_t cut : subject.cuts) {
    for (const std::string& precision : flags.precisions) {
      for (const int32_t front : flags.front_bits) {
        for (const int32_t back : flags.back_bits) {
          for (const int32_t kv : flags.kv_bits)
            settings.push_back({cut, precision, front, back, kv});
        }
      }
    }
  }
  return settings;
}

SegmentMemory memory_of(const engine::Engine& engine) {
  return {engine.info().weight_bytes, engine::kv_bytes_per_token(engine)};
}

}  // namespace

Result<std::vector<SettingResult>> evaluate_settings(const Subject& subject,
                                                     const EvalFlags& flags) {
  ThreadPool pool(static_cast<size_t>(flags.threads));
  const SteadyClock clock;
  const int32_t layers = subject.layer_count();
  ISTHMUS_ASSIGN(const EnginePtr exact, load_layers(subject.file, {0, layers}, pool,
                                                    {.precision = engine::Precision::kExact}));
  std::vector<Halves> variants;
  std::vector<audit::SplitModel> models;
  const std::vector<Setting> settings = all_settings(subject, flags);
  for (const Setting& setting : settings) {
    const engine::CpuEngineOptions options = options_of(setting, layers);
    Halves halves{.cut = setting.cut};
    ISTHMUS_ASSIGN(halves.front, load_layers(subject.file, {0, setting.cut}, pool, options));
    ISTHMUS_ASSIGN(halves.back, load_layers(subject.file, {setting.cut, layers}, pool, options));
    models.push_back(halves.model());
    variants.push_back(std::move(halves));
  }
  ProgressBar bar("evaluating");
  const audit::EvaluationContext context{&pool, &clock,
                                         [&bar](double fraction) { bar.update(fraction); }};
  ISTHMUS_ASSIGN(const auto logs, audit::evaluate_models({exact.get(), exact.get(), 0}, models,
                                                         subject.text, context));
  std::vector<SettingResult> results;
  for (size_t i = 0; i < settings.size(); ++i) {
    results.push_back({.setting = settings[i],
                       .front = memory_of(*variants[i].front),
                       .back = memory_of(*variants[i].back),
                       .quality = audit::summarize(logs[i])});
  }
  return results;
}

}  // namespace isthmus::tools
