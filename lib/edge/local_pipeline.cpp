// The whole model on the device.
#include "pipeline.h"
#include "stopwatch.h"

namespace isthmus::edge {
namespace {

constexpr size_t kChunk =
    128;  // bounds the memory of a prompt's activations, and how late a cancellation is seen

class LocalPipeline final : public Pipeline {
 public:
  LocalPipeline(engine::Engine& engine, std::unique_ptr<engine::KvCache> cache)
      : engine_(engine), cache_(std::move(cache)) {}

  Result<std::optional<int32_t>> prompt(std::span<const int32_t> tokens, const Choice& choice,
                                        const std::function<bool()>& go_on) override {
    while (tokens.size() > kChunk) {
      ISTHMUS_TRY(advance(tokens.first(kChunk), nullptr));
      tokens = tokens.subspan(kChunk);
      if (!go_on()) return std::optional<int32_t>();
    }
    return advance(tokens, &choice);
  }

  Result<int32_t> next(int32_t token, const Choice& choice) override {
    ISTHMUS_ASSIGN(const std::optional<int32_t> following, advance({&token, 1}, &choice));
    return *following;
  }

  Status truncate(int32_t length) override { return cache_->truncate(length); }
  int32_t length() const override { return cache_->length(); }
  int32_t capacity() const override { return cache_->capacity(); }
  Spent spent() const override { return spent_; }
  std::string server_description() const override { return {}; }
  Result<std::optional<PrivacyReport>> privacy() const override {
    return std::optional<PrivacyReport>();  // nothing leaves
  }
  void verify() override {}
  VerifyReport verification() const override { return {}; }

 private:
  // The token that follows, if one is to be chosen.
  Result<std::optional<int32_t>> advance(std::span<const int32_t> tokens, const Choice* choice) {
    const Stopwatch watch(spent_.time_s.device);
    const engine::Slice slice{
        .cache = cache_.get(),
        .tokens = tokens,
        .output = engine::Output::kLogits,
        .rows = choice != nullptr ? engine::Rows::kLast : engine::Rows::kNone};
    ISTHMUS_ASSIGN(const std::vector<Matrix> outputs, engine_.forward({&slice, 1}));
    if (choice == nullptr) return std::optional<int32_t>();
    return engine::sample(outputs.front().row(0), choice->sampling, choice->generated,
                          cache_->length());
  }

  engine::Engine& engine_;
  std::unique_ptr<engine::KvCache> cache_;
  Spent spent_;
};

}  // namespace

Result<std::unique_ptr<Pipeline>> make_local_pipeline(engine::Engine& engine, int32_t max_tokens) {
  const engine::LayerWindow all{0, engine.config().layer_count};
  ISTHMUS_ASSIGN(auto cache, engine.make_cache(all, max_tokens));
  return std::make_unique<LocalPipeline>(engine, std::move(cache));
}

}  // namespace isthmus::edge
