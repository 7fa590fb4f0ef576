#include "run.h"

#include <isthmus/audit/inverter.h>
#include <isthmus/audit/sequence_attack.h>
#include <isthmus/codec/codec.h>
#include <isthmus/core/random.h>
#include <isthmus/core/thread_pool.h>
#include <isthmus/engine/cpu_engine.h>
#include <isthmus/model/model_file.h>
#include <isthmus/text/tokenizer.h>

#include <algorithm>
#include <functional>
#include <iterator>
#include <memory>

#include "common/artefact_flags.h"
#include "common/terminal.h"
#include "common/text_file.h"

namespace isthmus::tools {
namespace {

using audit::Candidates;

// Tokens that an attack leaves open until it has heard the language model.
constexpr size_t kOpen = 512;
// Windows of the training text, at most, that tell how much to believe an attack beside the model:
// two, or as many as have so many tokens.
constexpr size_t kTuningWindows = 2;
constexpr size_t kTuningTokens = 256;

struct Texts {
  audit::TextWindows train;
  audit::TextWindows tuning;  // the end of the training text, which no attacker is fitted to
  audit::TextWindows test;
};

Result<Texts> read_texts(const AuditFlags& flags, const model::ModelFile& file) {
  ISTHMUS_ASSIGN(const auto tokenizer, text::Tokenizer::make(file.tokenizer()));
  const auto read = [&](const std::filesystem::path& path, size_t tokens) {
    return read_text(path).and_then([&](const std::string& text) {
      return audit::make_windows(text, tokenizer, flags.window, tokens);
    });
  };
  Texts texts;
  ISTHMUS_ASSIGN(texts.train, read(flags.train_text, flags.train_tokens));
  ISTHMUS_ASSIGN(texts.test, read(flags.test_text, flags.test_tokens));
  if (audit::overlap(texts.test, texts.train)) {
    return fail(ErrorCode::kInvalidArgument, "audit: a window of '" + flags.test_text.string() +
                                                 "' is also in '" + flags.train_text.string() +
                                                 "', attackers may not learn from what they read");
  }
  std::vector<int32_t>& train = texts.train.tokens;
  const size_t most = std::max(kTuningWindows, kTuningTokens / flags.window);
  const size_t tuning = std::clamp(texts.train.count() / 5, size_t{1}, most) * flags.window;
  texts.tuning = {.tokens = {train.end() - static_cast<std::ptrdiff_t>(tuning), train.end()},
                  .window = flags.window};
  train.resize(train.size() - tuning);
  return texts;
}

/// One thing to attack.
struct Setting {
  int32_t cut = 0;
  codec::CodecSpec spec;
};

Result<std::vector<Setting>> settings_of(const AuditFlags& flags,
                                         const artefact::Artefacts& artefacts) {
  std::vector<Setting> settings;
  if (flags.specs.empty() && !artefacts.empty()) {
    for (const auto& artefact : artefacts)
      settings.push_back({artefact->origin().cut, artefact->codec()});
    return settings;
  }
  const std::vector<std::string> specs =
      flags.specs.empty() ? std::vector<std::string>{"f16"} : flags.specs;
  for (const int32_t cut : flags.cuts) {
    for (const std::string& text : specs) {
      ISTHMUS_ASSIGN(const auto spec, codec::CodecSpec::parse(text));
      settings.push_back({cut, spec});
    }
  }
  return settings;
}

Result<codec::BoundaryCodec> make_codec(const Setting& setting, const model::ModelConfig& config,
                                        const artefact::Artefacts& artefacts,
                                        RandomSource& random) {
  if (setting.cut > config.layer_count) {
    return fail(ErrorCode::kInvalidArgument, "audit: cut is " + std::to_string(setting.cut) +
                                                 ", the model has " +
                                                 std::to_string(config.layer_count) + " layers");
  }
  const auto artefact = artefact::find(setting.spec, artefacts);
  if (artefact != nullptr) ISTHMUS_TRY(artefact->check(config, setting.cut));
  return codec::BoundaryCodec::make(
      setting.spec, static_cast<size_t>(config.hidden_size),
      {.projection = artefact::projection_of(artefact), .random = &random});
}

std::optional<Promise> promise_of(const codec::BoundaryCodec& codec, size_t prompt_rows) {
  if (codec.mechanism() == nullptr) return std::nullopt;
  const privacy::PrivacyStatement statement = codec.mechanism()->statement(prompt_rows);
  return Promise{.epsilon_per_row = statement.epsilon_per_row,
                 .epsilon_per_prompt = statement.epsilon_per_prompt,
                 .delta = statement.delta};
}

/// The texts' boundary rows at one cut, the same for every spec.
struct Boundaries {
  Matrix train;
  Matrix tuning;
  Matrix test;
};

/// The texts as one codec releases them.
struct Releases {
  audit::Release train;
  audit::Release tuning;
  audit::Release test;
};

/// What one attacker makes of the texts that it may not, and may, know.
struct Evidence {
  std::vector<Candidates> tuning;
  std::vector<Candidates> test;
};

/// Attacks settings with the same public model.
class Attacks {
 public:
  /// \returns the errors of running the model.
  static Result<Attacks> prepare(const AuditFlags& flags, const Texts& texts,
                                 engine::Engine& engine, ThreadPool& pool) {
    Attacks attacks(flags, texts, engine, pool);
    ISTHMUS_ASSIGN(attacks.table_, audit::embedding_table(engine));
    attacks.directions_ = audit::unit_rows(attacks.table_);
    ISTHMUS_ASSIGN(attacks.predicted_, audit::predict_from_context(engine, texts.test));
    return attacks;
  }

  Result<Boundaries> boundaries(int32_t cut) const {
    const audit::SplitModel model{&engine_, nullptr, cut};
    Boundaries result;
    ISTHMUS_ASSIGN(result.train, audit::boundary_rows(model, texts_.train));
    ISTHMUS_ASSIGN(result.tuning, audit::boundary_rows(model, texts_.tuning));
    ISTHMUS_ASSIGN(result.test, audit::boundary_rows(model, texts_.test));
    return result;
  }

  Result<std::vector<AttackResult>> on(int32_t cut, const Boundaries& rows,
                                       const codec::BoundaryCodec& codec) const {
    ISTHMUS_ASSIGN(const Releases releases, release_all(rows, codec));
    std::vector<AttackResult> results;
    const Sink sink = [&](const std::string& attack, std::span<const Candidates> guesses,
                          const std::vector<double>& history) {
      results.push_back(
          {.cut = cut,
           .spec = codec.spec().to_string(),
           .attack = attack,
           .recovery = audit::judge(guesses, std::span(texts_.test.tokens).first(guesses.size())),
           .promise = promise_of(codec, texts_.test.window),
           .history = history});
    };
    sink("unigram_prior",
         std::vector(texts_.test.tokens.size(), audit::commonest(texts_.train.tokens)), {});
    sink("language_prior", predicted_, {});
    ISTHMUS_TRY(attack_rows(releases, sink));
    if (cut == 0) ISTHMUS_TRY(attack_codec(releases, codec, sink));
    if (flags_.match_tokens > 0) {
      ISTHMUS_ASSIGN(const auto matched,
                     audit::match_exhaustively({&engine_, nullptr, cut}, releases.test.rows.view(),
                                               std::min(flags_.match_tokens, flags_.window)));
      sink("causal_matching", matched, {});
    }
    return results;
  }

 private:
  /// Attack, guesses, and how training went if there was any.
  using Sink = std::function<void(const std::string&, std::span<const Candidates>,
                                  const std::vector<double>&)>;

  Attacks(const AuditFlags& flags, const Texts& texts, engine::Engine& engine, ThreadPool& pool)
      : flags_(flags), texts_(texts), engine_(engine), pool_(pool) {}

  Result<Releases> release_all(const Boundaries& rows, const codec::BoundaryCodec& codec) const {
    Releases result;
    ISTHMUS_ASSIGN(result.train, audit::release(rows.train.view(), texts_.train.tokens, codec));
    ISTHMUS_ASSIGN(result.tuning, audit::release(rows.tuning.view(), texts_.tuning.tokens, codec));
    ISTHMUS_ASSIGN(result.test, audit::release(rows.test.view(), texts_.test.tokens, codec));
    return result;
  }

  /// Those that look at rows alone, and those that learn.
  Status attack_rows(const Releases& releases, const Sink& sink) const {
    ISTHMUS_TRY(
        report("nearest_neighbor", neighbors(releases.tuning.rows, releases.test.rows), sink));
    ISTHMUS_ASSIGN(const auto ridge, audit::RidgeInverter::fit(releases.train, directions_.view()));
    ISTHMUS_TRY(report("ridge", inverted(ridge, releases), sink));
    ISTHMUS_ASSIGN(
        const auto network,
        audit::NeuralInverter::fit(releases.train, texts_.train.window, directions_.view(), pool_));
    return report("neural", inverted(network, releases), sink, network.history());
  }

  /// The one that knows the codec and its noise.
  Status attack_codec(const Releases& releases, const codec::BoundaryCodec& codec,
                      const Sink& sink) const {
    Evidence evidence;
    ISTHMUS_ASSIGN(evidence.test,
                   audit::most_likely(releases.test, codec, table_.view(), kOpen, pool_));
    if (codec.mechanism() == nullptr) {
      ISTHMUS_ASSIGN(evidence.tuning,
                     audit::most_likely(releases.tuning, codec, table_.view(), kOpen, pool_));
      return report("maximum_likelihood", evidence, sink);
    }
    // Likelihoods are what a prior wants: nothing is left to be fitted.
    sink("maximum_likelihood", evidence.test, {});
    ISTHMUS_ASSIGN(const auto read,
                   audit::read_with_prior(engine_, evidence.test, texts_.test.window,
                                          {.sharpness = 1, .beam = flags_.beam}));
    sink("maximum_likelihood+prior", read, {});
    return {};
  }

  /// An attack alone, and with the language model.
  Status report(const std::string& attack, const Evidence& evidence, const Sink& sink,
                const std::vector<double>& history = {}) const {
    sink(attack, evidence.test, history);
    ISTHMUS_ASSIGN(const audit::PriorWeighting weighting,
                   audit::fit_weighting(engine_, evidence.tuning, texts_.tuning, flags_.beam));
    ISTHMUS_ASSIGN(const auto read,
                   audit::read_with_prior(engine_, evidence.test, texts_.test.window, weighting));
    sink(attack + "+prior", read, {});
    return {};
  }

  Evidence neighbors(const Matrix& tuning, const Matrix& test) const {
    return {audit::nearest_neighbors(tuning.view(), directions_.view(), kOpen, pool_),
            audit::nearest_neighbors(test.view(), directions_.view(), kOpen, pool_)};
  }
  template <typename Inverter>
  Evidence inverted(const Inverter& inverter, const Releases& releases) const {
    return neighbors(inverter.invert(releases.tuning.rows.view()),
                     inverter.invert(releases.test.rows.view()));
  }

  const AuditFlags& flags_;
  const Texts& texts_;
  engine::Engine& engine_;
  ThreadPool& pool_;
  Matrix table_;       // embeddings
  Matrix directions_;  // of length 1
  std::vector<Candidates> predicted_;
};

}  // namespace

Result<AuditResult> run_audit(const AuditFlags& flags) {
  ISTHMUS_ASSIGN(const auto file, model::ModelFile::open(flags.model));
  ISTHMUS_ASSIGN(const artefact::Artefacts artefacts, load_artefacts(flags.artefacts));
  ISTHMUS_ASSIGN(const std::vector<Setting> settings, settings_of(flags, artefacts));
  SystemRandom random;
  // All of them before the first attack, which takes long.
  std::vector<codec::BoundaryCodec> codecs;
  for (const Setting& setting : settings) {
    ISTHMUS_ASSIGN(auto codec, make_codec(setting, file->config(), artefacts, random));
    codecs.push_back(std::move(codec));
  }
  ISTHMUS_ASSIGN(const Texts texts, read_texts(flags, *file));
  ThreadPool pool(static_cast<size_t>(flags.threads));
  const model::Part part{
      .layers = {{0, file->config().layer_count}}, .embedding = true, .head = true};
  ISTHMUS_ASSIGN(const auto engine,
                 engine::load_cpu_engine(file, part, pool, flags.engine.options()));
  ISTHMUS_ASSIGN(const Attacks attacks, Attacks::prepare(flags, texts, *engine, pool));
  AuditResult result{.train_tokens = texts.train.tokens.size(),
                     .test_tokens = texts.test.tokens.size(),
                     .prompt_rows = flags.window};
  ProgressBar bar("attacking");
  std::optional<int32_t> known;  // the cut that `rows` are of
  Boundaries rows;
  for (size_t i = 0; i < settings.size(); ++i) {
    bar.update(static_cast<double>(i) / static_cast<double>(settings.size()));
    const int32_t cut = settings[i].cut;
    if (known != cut) {
      ISTHMUS_ASSIGN(rows, attacks.boundaries(cut));
      known = cut;
    }
    ISTHMUS_ASSIGN(auto list, attacks.on(cut, rows, codecs[i]));
    std::ranges::move(list, std::back_inserter(result.list));
  }
  return result;
}

}  // namespace isthmus::tools
