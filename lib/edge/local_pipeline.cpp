// The whole model on the device.
#include "pipeline.h"
#include "stopwatch.h"

namespace isthmus::edge {
namespace {

constexpr int32_t kChunk =
    128;  // bounds the memory of a prompt's activations, and how late a cancellation is seen

class LocalPipeline final : public Pipeline {
 public:
  LocalPipeline(engine::Engine& engine, std::unique_ptr<engine::KvCache> cache)
      : engine_(engine), cache_(std::move(cache)) {}

  Result<std::optional<int32_t>> advance(std::span<const int32_t> tokens,
                                         const Choice* choice) override {
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

  Status truncate(int32_t length) override { return cache_->truncate(length); }
  int32_t length() const override { return cache_->length(); }
  int32_t capacity() const override { return cache_->capacity(); }
  int32_t max_chunk() const override { return kChunk; }
  Spent spent() const override { return spent_; }
  std::string server_description() const override { return {}; }

 private:
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
