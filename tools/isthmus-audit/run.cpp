#include "run.h"

#include <isthmus/codec/codec.h>
#include <isthmus/core/random.h>
#include <isthmus/core/thread_pool.h>
#include <isthmus/engine/cpu_engine.h>
#include <isthmus/model/model_file.h>
#include <isthmus/text/tokenizer.h>

#include <algorithm>
#include <iterator>
#include <memory>

#include "common/terminal.h"
#include "common/text_file.h"

namespace isthmus::tools {
namespace {

using audit::Guesses;

struct Texts {
  audit::TextWindows train;
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
  return texts;
}

std::optional<Promise> promise_of(const codec::BoundaryCodec& codec, size_t prompt_rows) {
  if (codec.mechanism() == nullptr) return std::nullopt;
  const privacy::PrivacyStatement statement = codec.mechanism()->statement(prompt_rows);
  return Promise{.epsilon_per_row = statement.epsilon_per_row,
                 .epsilon_per_prompt = statement.epsilon_per_prompt,
                 .delta = statement.delta};
}

/// Attacks one setting after the other with the same public model.
class Attacks {
 public:
  Attacks(const Texts& texts, const Matrix& embeddings, ThreadPool& pool)
      : texts_(texts), embeddings_(embeddings), pool_(pool) {}

  Result<std::vector<AttackResult>> on(const audit::SplitModel& model,
                                       const codec::BoundaryCodec& codec) {
    ISTHMUS_ASSIGN(const audit::Release train, audit::release(model, texts_.train, codec));
    ISTHMUS_ASSIGN(const audit::Release test, audit::release(model, texts_.test, codec));
    ISTHMUS_ASSIGN(const auto inverter, audit::RidgeInverter::fit(train, embeddings_.view()));
    std::vector<AttackResult> results;
    const auto add = [&](const char* attack, const std::vector<Guesses>& guesses) {
      results.push_back({.cut = model.cut,
                         .spec = codec.spec().to_string(),
                         .attack = attack,
                         .recovery = audit::judge(guesses, test.tokens),
                         .promise = promise_of(codec, texts_.test.window)});
    };
    add("unigram_prior", std::vector<Guesses>(test.tokens.size(), audit::commonest(train.tokens)));
    add("nearest_neighbor", neighbors(test.rows));
    add("ridge", neighbors(inverter.invert(test.rows.view())));
    return results;
  }

 private:
  std::vector<Guesses> neighbors(const Matrix& rows) const {
    return audit::nearest_neighbors(rows.view(), embeddings_.view(), pool_);
  }

  const Texts& texts_;
  const Matrix& embeddings_;
  ThreadPool& pool_;
};

}  // namespace

Result<AuditResult> run_audit(const AuditFlags& flags) {
  ISTHMUS_ASSIGN(const auto file, model::ModelFile::open(flags.model));
  ISTHMUS_ASSIGN(const Texts texts, read_texts(flags, *file));
  ThreadPool pool(static_cast<size_t>(flags.threads));
  model::Part part{.layers = {{0, file->config().layer_count}}, .embedding = true};
  ISTHMUS_ASSIGN(const auto engine,
                 engine::load_cpu_engine(file, part, pool, flags.engine.options()));
  ISTHMUS_ASSIGN(const Matrix embeddings, audit::unit_embeddings(*engine));
  SystemRandom random;
  Attacks attacks(texts, embeddings, pool);
  AuditResult result{.train_tokens = texts.train.tokens.size(),
                     .test_tokens = texts.test.tokens.size()};
  ProgressBar bar("attacking");
  const size_t settings = flags.cuts.size() * flags.specs.size();
  size_t done = 0;
  for (const int32_t cut : flags.cuts) {
    for (const std::string& text : flags.specs) {
      bar.update(static_cast<double>(done++) / static_cast<double>(settings));
      ISTHMUS_ASSIGN(const auto spec, codec::CodecSpec::parse(text));
      ISTHMUS_ASSIGN(const auto codec, codec::BoundaryCodec::make(
                                           spec, static_cast<size_t>(file->config().hidden_size),
                                           {.random = &random}));
      ISTHMUS_ASSIGN(auto list, attacks.on({engine.get(), nullptr, cut}, codec));
      std::ranges::move(list, std::back_inserter(result.list));
    }
  }
  return result;
}

}  // namespace isthmus::tools
