#include "specs.h"

#include <isthmus/codec/calibration.h>
#include <isthmus/codec/codec.h>
#include <isthmus/core/clock.h>
#include <isthmus/core/random.h>
#include <isthmus/model/fingerprint.h>

#include <algorithm>
#include <cstdio>
#include <ctime>
#include <memory>
#include <utility>

#include "common/engine_flags.h"
#include "common/terminal.h"

namespace isthmus::tools {
namespace {

// From plain numbers to two bits, the fast specs and the small ones.
constexpr const char* kStandard[] = {"f16",
                                     "split:4|rotate|int8|rans",
                                     "split:4|rotate|int4|rans",
                                     "split:4|rotate|int3|rans",
                                     "split:x16|trellis:0.18|rans",
                                     "split:x16|trellis:0.26|rans",
                                     "split:x16|trellis:0.34|rans",
                                     "split:x16|trellis:0.44|rans"};
constexpr const char* kStandardCalibrated[] = {"split:x16|klt:*|trellis:0.26|rans",
                                               "split:x16|klt:*|trellis:0.36|rans",
                                               "split:x16|klt:*|trellis:0.5|rans"};

/// Processor time of the calling thread, on which codecs run: other work on the machine shows less
/// than in wall-clock time.
class ThreadTime final : public Clock {
 public:
  [[nodiscard]] TimePoint now() const override {
    timespec time{};
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return TimePoint(std::chrono::seconds(time.tv_sec) + std::chrono::nanoseconds(time.tv_nsec));
  }
};

std::vector<std::string> patterns_of(const EvalFlags& flags, const artefact::Artefacts& artefacts) {
  if (!flags.specs.empty()) return flags.specs;
  if (!artefacts.empty()) {
    std::vector<std::string> patterns;
    for (const auto& artefact : artefacts) patterns.push_back(artefact->codec().to_string());
    return patterns;
  }
  std::vector<std::string> patterns(std::begin(kStandard), std::end(kStandard));
  if (!flags.calibration_text.empty()) {
    patterns.insert(patterns.end(), std::begin(kStandardCalibrated), std::end(kStandardCalibrated));
  }
  return patterns;
}

engine::CpuEngineOptions engine_options(const EvalFlags& flags) {
  return EngineFlags{.precision = flags.precisions.front()}.options();
}

/// Evaluates cut after cut with one engine.
class Run {
 public:
  Run(const Subject& subject, const EvalFlags& flags, engine::Engine& engine, ThreadPool& pool)
      : subject_(subject), flags_(flags), engine_(engine), pool_(pool) {}

  Result<SpecResults> all_cuts() {
    SpecResults results{.patterns = patterns_of(flags_, subject_.artefacts), .cuts = subject_.cuts};
    for (size_t i = 0; i < subject_.cuts.size(); ++i) {
      const auto progress = [&](double fraction) {
        bar_.update((static_cast<double>(i) + fraction) /
                    static_cast<double>(subject_.cuts.size()));
      };
      ISTHMUS_ASSIGN(auto list, at_cut(subject_.cuts[i], results.patterns, progress));
      std::ranges::move(list, std::back_inserter(results.list));
    }
    return results;
  }

 private:
  Result<std::vector<SpecResult>> at_cut(int32_t cut, const std::vector<std::string>& patterns,
                                         const engine::Progress& progress) {
    const audit::SplitModel model{&engine_, &engine_, cut};
    ISTHMUS_ASSIGN(const auto calibration, calibration_of(model));
    std::vector<codec::BoundaryCodec> codecs;
    std::vector<std::unique_ptr<engine::Engine>> adapted;
    std::vector<audit::Receiver> receivers;
    for (const std::string& pattern : patterns) {
      const uint64_t hash = calibration ? calibration->hash() : 0;
      ISTHMUS_ASSIGN(const auto spec, codec::CodecSpec::parse(with_calibration(pattern, hash)));
      const auto artefact = artefact::find(spec, subject_.artefacts);
      if (artefact != nullptr) ISTHMUS_TRY(artefact->check(engine_.config(), cut));
      ISTHMUS_ASSIGN(auto codec, codec::BoundaryCodec::make(
                                     spec, static_cast<size_t>(engine_.config().hidden_size),
                                     {.calibration = calibration,
                                      .projection = artefact::projection_of(artefact),
                                      .random = &random_}));
      codecs.push_back(std::move(codec));
      audit::Receiver receiver;
      if (artefact != nullptr) receiver.soft_prompt = artefact->soft_prompt();
      if (artefact != nullptr && artefact->adapted_end() > 0) {
        ISTHMUS_ASSIGN(auto back, load_adapted(artefact));
        receiver.back = adapted.emplace_back(std::move(back)).get();
      }
      receivers.push_back(receiver);
    }
    std::vector<const codec::BoundaryCodec*> borrowed;
    for (const codec::BoundaryCodec& codec : codecs) borrowed.push_back(&codec);
    ISTHMUS_ASSIGN(auto evaluations, audit::evaluate_codecs(model, subject_.text, borrowed,
                                                            {&pool_, &time_, progress}, receivers));
    std::vector<SpecResult> results;
    for (size_t i = 0; i < codecs.size(); ++i) {
      const audit::Quality quality = audit::summarize(evaluations[i].log);
      results.push_back({.cut = cut,
                         .pattern = i,
                         .spec = codecs[i].spec().to_string(),
                         .evaluation = std::move(evaluations[i]),
                         .quality = quality});
    }
    return results;
  }

  /// The layers behind the artefact's cut as its server has them.
  Result<std::unique_ptr<engine::Engine>> load_adapted(
      const std::shared_ptr<const artefact::Artefact>& artefact) {
    ISTHMUS_ASSIGN(const model::Fingerprint fingerprint, model::fingerprint(*subject_.file, pool_));
    ISTHMUS_ASSIGN(const auto adapted,
                   artefact::adapted_model(subject_.file, {artefact}, fingerprint.to_string()));
    return load_layers(adapted, {artefact->origin().cut, subject_.layer_count()}, pool_,
                       engine_options(flags_));
  }

  // Null where there is no text to make one from.
  Result<std::shared_ptr<const codec::Calibration>> calibration_of(const audit::SplitModel& model) {
    if (subject_.calibration_text.tokens.empty()) return nullptr;
    ISTHMUS_ASSIGN(const Matrix rows, audit::boundary_rows(model, subject_.calibration_text));
    ISTHMUS_ASSIGN(auto calibration, codec::calibrate(rows.view()));
    return std::make_shared<const codec::Calibration>(std::move(calibration));
  }

  const Subject& subject_;
  const EvalFlags& flags_;
  engine::Engine& engine_;
  ThreadPool& pool_;
  ThreadTime time_;
  SystemRandom random_;
  ProgressBar bar_{"evaluating"};
};

}  // namespace

std::string with_calibration(std::string spec, uint64_t hash) {
  char digits[17];
  std::snprintf(digits, sizeof digits, "%016llx", static_cast<unsigned long long>(hash));
  for (size_t at; (at = spec.find(kThisCut)) != std::string::npos;) spec.replace(at, 1, digits);
  return spec;
}

PatternMean mean_of(const SpecResults& results, size_t pattern) {
  PatternMean mean;
  std::vector<const audit::PredictionLog*> logs;
  const auto count = static_cast<double>(results.cuts.size());
  for (const SpecResult& r : results.list) {
    if (r.pattern != pattern) continue;
    logs.push_back(&r.evaluation.log);
    mean.bits_per_coordinate += r.evaluation.bits_per_coordinate / count;
    mean.bits_per_coordinate_prompt += r.evaluation.bits_per_coordinate_prompt / count;
    mean.kl_nats += r.quality.kl_nats / count;
  }
  mean.change = audit::mean_change(logs);
  return mean;
}

Result<SpecResults> evaluate_specs(const Subject& subject, const EvalFlags& flags) {
  ThreadPool pool(static_cast<size_t>(flags.threads));
  ISTHMUS_ASSIGN(const auto engine, load_layers(subject.file, {0, subject.layer_count()}, pool,
                                                engine_options(flags)));
  return Run(subject, flags, *engine, pool).all_cuts();
}

}  // namespace isthmus::tools
