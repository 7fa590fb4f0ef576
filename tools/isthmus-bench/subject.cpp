#include "subject.h"

#include <isthmus/engine/sampler.h>

#include <algorithm>
#include <utility>

#include "pipeline.h"

namespace isthmus::tools {
namespace {

class SplitSubject final : public Subject {
 public:
  SplitSubject(std::unique_ptr<edge::Pipeline> pipeline, std::span<const int32_t> list)
      : pipeline_(std::move(pipeline)), list_(list) {}

  Result<int32_t> advance(int32_t count) override {
    const engine::SamplingOptions greedy;
    const int32_t length = pipeline_->length();
    const edge::Choice choice{.sampling = greedy, .generated = {}, .reply_start = length + count};
    const auto tokens = list_.subspan(static_cast<size_t>(length), static_cast<size_t>(count));
    if (count == 1) return pipeline_->next(tokens.front(), choice);
    ISTHMUS_ASSIGN(const std::optional<int32_t> token,
                   pipeline_->prompt(tokens, choice, [] { return true; }));
    return token.value_or(-1);
  }

  Status reset() override { return pipeline_->truncate(0); }

 private:
  std::unique_ptr<edge::Pipeline> pipeline_;
  std::span<const int32_t> list_;
};

}  // namespace

std::vector<int32_t> bench_tokens(int32_t count, int32_t vocab_size) {
  std::vector<int32_t> tokens(static_cast<size_t>(count));
  for (size_t i = 0; i < tokens.size(); ++i) {
    tokens[i] = static_cast<int32_t>((7919 * i + 13) % static_cast<size_t>(vocab_size));
  }
  return tokens;
}

Result<std::unique_ptr<EngineSubject>> EngineSubject::of_tokens(engine::Engine& engine,
                                                                engine::LayerWindow layers,
                                                                std::span<const int32_t> list) {
  ISTHMUS_ASSIGN(auto cache, engine.make_cache(layers, static_cast<int32_t>(list.size())));
  std::unique_ptr<EngineSubject> subject(new EngineSubject(engine, std::move(cache)));
  subject->tokens_ = list;
  return subject;
}

Result<std::unique_ptr<EngineSubject>> EngineSubject::of_rows(engine::Engine& engine,
                                                              engine::LayerWindow layers,
                                                              MatrixView<const float> list) {
  ISTHMUS_ASSIGN(auto cache, engine.make_cache(layers, static_cast<int32_t>(list.rows())));
  std::unique_ptr<EngineSubject> subject(new EngineSubject(engine, std::move(cache)));
  subject->rows_ = list;
  return subject;
}

Result<int32_t> EngineSubject::advance(int32_t count) {
  const auto first = static_cast<size_t>(cache_->length());
  const auto size = static_cast<size_t>(count);
  const bool has_head = engine_.part().head && cache_->layers().end == engine_.config().layer_count;
  engine::Slice slice{.cache = cache_.get()};
  if (tokens_.empty()) {
    slice.hidden = rows_.middle_rows(first, size);
  } else {
    slice.tokens = tokens_.subspan(first, size);
  }
  if (has_head) {
    slice.output = engine::Output::kLogits;
    slice.rows = engine::Rows::kLast;
  }
  ISTHMUS_ASSIGN(std::vector<Matrix> outputs, engine_.forward({&slice, 1}));
  output_ = std::move(outputs.front());
  if (!has_head) return -1;
  return engine::sample(output_.row(0), {}, {}, cache_->length());
}

Result<std::unique_ptr<Subject>> make_split_subject(engine::Engine& engine, int32_t cut,
                                                    const edge::SessionOptions& options,
                                                    std::span<const int32_t> list) {
  // The server is this process's own, and holds the same model.
  ISTHMUS_ASSIGN(auto pipeline, edge::make_split_pipeline(engine, {.cut = cut}, options));
  return std::make_unique<SplitSubject>(std::move(pipeline), list);
}

}  // namespace isthmus::tools
