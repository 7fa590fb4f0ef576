#include "suite.h"

#include <isthmus/core/clock.h>
#include <isthmus/engine/cpu_engine.h>

#include <algorithm>
#include <iterator>
#include <memory>
#include <utility>

#include "common/bandwidth.h"
#include "common/memory.h"
#include "common/terminal.h"
#include "loopback_server.h"
#include "subject.h"
#include "synthetic_model.h"

namespace isthmus::tools {
namespace {

using ModelResult = Result<std::shared_ptr<const model::ModelFile>>;

ModelResult open_model(const BenchFlags& flags) {
  if (!flags.shape.empty()) return make_synthetic_model(flags.shape);
  return model::ModelFile::open(flags.model);
}

/// The likeliest tokens behind a prompt, and behind each decoded token.
struct Choices {
  int32_t after_prompt = -1;
  std::vector<int32_t> decoded;
  friend bool operator==(const Choices&, const Choices&) = default;
};

class Suite {
 public:
  Suite(const BenchFlags& flags, std::shared_ptr<const model::ModelFile> model, int32_t cut)
      : flags_(flags),
        model_(std::move(model)),
        layer_count_(model_->config().layer_count),
        cut_(cut),
        tokens_(bench_tokens(flags.capacity(), model_->config().vocab_size)),
        chosen_(flags.chosen_cases()),
        pool_(static_cast<size_t>(flags.threads)) {}

  Result<SuiteResult> run() {
    result_.threads = pool_.thread_count();
    result_.bandwidth_bps = read_bandwidth(pool_);
    // The whole model says what back and split must choose; the front makes the back's rows.
    const bool back = is_chosen(Segment::kBack);
    const bool split = is_chosen(Segment::kSplit);
    if (is_chosen(Segment::kWhole) || back || split) ISTHMUS_TRY(run_whole());
    if (is_chosen(Segment::kFront) || back) ISTHMUS_TRY(run_front());
    if (back) ISTHMUS_TRY(run_back());
    if (split) ISTHMUS_TRY(run_split());
    // Once more: what else the machine does may have hit the first measurement.
    result_.bandwidth_bps = std::max(result_.bandwidth_bps, read_bandwidth(pool_));
    for (CaseResult& c : result_.cases) {
      c.bandwidth_fraction = bytes_per_token(c.which.phase, c.footprint) * median(c.tokens_per_s) /
                             result_.bandwidth_bps;
    }
    return std::move(result_);
  }

 private:
  using EnginePtr = std::unique_ptr<engine::Engine>;

  engine::LayerWindow layers_of(Segment segment) const {
    return {segment == Segment::kBack ? cut_ : 0, segment == Segment::kFront ? cut_ : layer_count_};
  }

  bool is_chosen(Segment segment) const {
    return std::any_of(chosen_.begin(), chosen_.end(),
                       [&](const Case& c) { return c.segment == segment; });
  }

  // A front has the embedding and never the head, a back the head and never the embedding, wherever
  // the cut is. Opens the model anew, so that the pages of its file that stay mapped are counted
  // for this engine.
  Result<EnginePtr> load(Segment segment, ThreadPool& pool) const {
    // A synthetic model is in memory before anything is measured, and not counted.
    ISTHMUS_ASSIGN(const auto file,
                   flags_.shape.empty() ? open_model(flags_) : ModelResult(model_));
    const engine::LayerWindow layers = layers_of(segment);
    model::Part part;
    if (layers.count() > 0) part.layers.emplace_back(layers.first, layers.end);
    part.embedding = segment != Segment::kBack;
    part.head = segment != Segment::kFront;
    ProgressBar bar("loading");
    return engine::load_cpu_engine(file, part, pool, flags_.engine.options(),
                                   [&bar](double fraction) { bar.update(fraction); });
  }

  Status run_whole() {
    ISTHMUS_ASSIGN(const uint64_t before, resident_bytes());
    ISTHMUS_ASSIGN(const EnginePtr engine, load(Segment::kWhole, pool_));
    ISTHMUS_ASSIGN(const auto subject,
                   EngineSubject::of_tokens(*engine, layers_of(Segment::kWhole), tokens_));
    ISTHMUS_ASSIGN(reference_, choices(*subject));
    ISTHMUS_TRY(subject->reset());
    ISTHMUS_ASSIGN(const int32_t at_once, subject->advance(flags_.context + flags_.decode));
    if (at_once != reference_.decoded.back()) return wrong("the whole model, token by token,");
    ISTHMUS_ASSIGN(const Footprint footprint, footprint_since(before, {engine.get()}));
    return time(Segment::kWhole, *subject, footprint);
  }

  Status run_front() {
    ISTHMUS_ASSIGN(const uint64_t before, resident_bytes());
    ISTHMUS_ASSIGN(const EnginePtr engine, load(Segment::kFront, pool_));
    ISTHMUS_ASSIGN(const auto subject,
                   EngineSubject::of_tokens(*engine, layers_of(Segment::kFront), tokens_));
    ISTHMUS_TRY(subject->advance(flags_.capacity()));
    ISTHMUS_ASSIGN(const Footprint footprint, footprint_since(before, {engine.get()}));
    boundary_ = subject->output();
    ISTHMUS_TRY(subject->reset());
    for (size_t row = 0; row < boundary_.rows(); ++row) {
      ISTHMUS_TRY(subject->advance(1));
      if (!std::ranges::equal(subject->output().row(0), std::as_const(boundary_).row(row)))
        return wrong("the front, token by token,");
    }
    return time(Segment::kFront, *subject, footprint);
  }

  Status run_back() {
    ISTHMUS_ASSIGN(const uint64_t before, resident_bytes());
    ISTHMUS_ASSIGN(const EnginePtr engine, load(Segment::kBack, pool_));
    ISTHMUS_ASSIGN(const auto subject, EngineSubject::of_rows(*engine, layers_of(Segment::kBack),
                                                              std::as_const(boundary_).view()));
    ISTHMUS_ASSIGN(const Choices chosen, choices(*subject));
    if (chosen != reference_) return wrong("the back");
    ISTHMUS_ASSIGN(const Footprint footprint, footprint_since(before, {engine.get()}));
    return time(Segment::kBack, *subject, footprint);
  }

  Status run_split() {
    ISTHMUS_ASSIGN(const uint64_t before, resident_bytes());
    ISTHMUS_ASSIGN(const EnginePtr front, load(Segment::kFront, pool_));
    ThreadPool server_pool(pool_.thread_count());
    ISTHMUS_ASSIGN(const EnginePtr back, load(Segment::kBack, server_pool));
    ISTHMUS_ASSIGN(const auto server, LoopbackServer::start(*back, flags_.capacity()));
    {
      // Only exact rows promise the whole model's tokens.
      ISTHMUS_ASSIGN(const auto exact, connect(*front, *server, "f32"));
      ISTHMUS_ASSIGN(const Choices chosen, choices(*exact));
      if (chosen != reference_) return wrong("the split");
    }
    ISTHMUS_ASSIGN(const auto subject, connect(*front, *server, flags_.codec));
    ISTHMUS_TRY(choices(*subject));
    ISTHMUS_ASSIGN(const Footprint footprint, footprint_since(before, {front.get(), back.get()}));
    return time(Segment::kSplit, *subject, footprint);
  }

  Result<std::unique_ptr<Subject>> connect(engine::Engine& front, const LoopbackServer& server,
                                           const std::string& codec) const {
    edge::SessionOptions options;
    options.server = server.address();
    options.keys = transport::generate_keys();
    options.max_tokens = flags_.capacity();
    ISTHMUS_ASSIGN(options.codec, codec::CodecSpec::parse(codec));
    return make_split_subject(front, cut_, options, tokens_);
  }

  // Also the warm-up: what is timed later has run before.
  Result<Choices> choices(Subject& subject) const {
    Choices found;
    ISTHMUS_TRY(subject.reset());
    ISTHMUS_ASSIGN(found.after_prompt, subject.advance(flags_.prompt));
    ISTHMUS_TRY(subject.reset());
    ISTHMUS_TRY(subject.advance(flags_.context));
    found.decoded.resize(static_cast<size_t>(flags_.decode));
    for (int32_t& token : found.decoded) {
      ISTHMUS_ASSIGN(token, subject.advance(1));
    }
    return found;
  }

  static tl::unexpected<Error> wrong(const std::string& what) {
    return fail(ErrorCode::kInternal,
                "bench: " + what + " does not compute what the whole model computes at once");
  }

  static Result<Footprint> footprint_since(uint64_t before,
                                           const std::vector<const engine::Engine*>& engines) {
    ISTHMUS_ASSIGN(const uint64_t now, resident_bytes());
    Footprint footprint{.resident_bytes = now > before ? now - before : 0};
    for (const engine::Engine* engine : engines) {
      footprint.weight_bytes += engine->info().weight_bytes;
      footprint.kv_bytes_per_token += engine::kv_bytes_per_token(*engine);
    }
    return footprint;
  }

  Status time(Segment segment, Subject& subject, const Footprint& footprint) {
    std::vector<CaseResult> timed;
    for (const Case& which : chosen_) {
      if (which.segment == segment) timed.push_back({.which = which, .footprint = footprint});
    }
    for (int repetition = 0; repetition < flags_.repetitions; ++repetition) {
      for (CaseResult& result : timed) {
        ISTHMUS_ASSIGN(const double speed, tokens_per_s(result.which.phase, subject));
        result.tokens_per_s.push_back(speed);
      }
    }
    std::ranges::move(timed, std::back_inserter(result_.cases));
    return {};
  }

  Result<double> tokens_per_s(Phase phase, Subject& subject) const {
    ISTHMUS_TRY(subject.reset());
    if (phase == Phase::kPrompt) {
      const Clock::TimePoint start = clock_.now();
      ISTHMUS_TRY(subject.advance(flags_.prompt));
      return flags_.prompt / seconds_between(start, clock_.now());
    }
    ISTHMUS_TRY(subject.advance(flags_.context));
    const Clock::TimePoint start = clock_.now();
    for (int32_t i = 0; i < flags_.decode; ++i) ISTHMUS_TRY(subject.advance(1));
    return flags_.decode / seconds_between(start, clock_.now());
  }

  double bytes_per_token(Phase phase, const Footprint& footprint) const {
    const auto weights = static_cast<double>(footprint.weight_bytes);
    const auto kv = static_cast<double>(footprint.kv_bytes_per_token);
    if (phase == Phase::kPrompt) return weights / flags_.prompt + kv;
    // Token i of `decode` reads the keys and values of context + i + 1 positions.
    return weights + kv * (flags_.context + (flags_.decode + 1) / 2.0);
  }

  const BenchFlags& flags_;
  std::shared_ptr<const model::ModelFile> model_;
  int32_t layer_count_;
  int32_t cut_;
  std::vector<int32_t> tokens_;
  std::vector<Case> chosen_;
  SteadyClock clock_;
  ThreadPool pool_;
  Choices reference_;
  Matrix boundary_;
  SuiteResult result_;
};

}  // namespace

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const size_t half = values.size() / 2;
  return values.size() % 2 == 1 ? values[half] : (values[half - 1] + values[half]) / 2;
}

Result<SuiteResult> run_suite(const BenchFlags& flags) {
  ISTHMUS_ASSIGN(const auto model, open_model(flags));
  const int32_t layers = model->config().layer_count;
  const int32_t cut = flags.cut.value_or(std::max(1, layers / 10));
  if (cut > layers) {
    return fail(ErrorCode::kInvalidArgument, "bench: cut is " + std::to_string(cut) +
                                                 ", the model has " + std::to_string(layers) +
                                                 " layers");
  }
  return Suite(flags, model, cut).run();
}

}  // namespace isthmus::tools
