// Something that is fed tokens and timed: an engine, or a front and a server.
#pragma once

#include <isthmus/core/error.h>
#include <isthmus/core/matrix.h>
#include <isthmus/edge/device.h>
#include <isthmus/engine/engine.h>

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

namespace isthmus::tools {

/// The token ids that every case is fed, cut to length: fixed, spread over the vocabulary, and
/// independent of what a model makes of them, so that all segments see the same.
[[nodiscard]] std::vector<int32_t> bench_tokens(int32_t count, int32_t vocab_size);

/// One sequence that grows by tokens of a fixed list.
class Subject {
 public:
  virtual ~Subject() = default;
  /// Appends the next `count` tokens of the list. \returns the likeliest token behind them, or -1
  /// when the head is not here.
  [[nodiscard]] virtual Result<int32_t> advance(int32_t count) = 0;
  /// Forgets every token.
  [[nodiscard]] virtual Status reset() = 0;
};

/// Layers on one engine, which is borrowed, as `list` is. Rows of a front are kept.
class EngineSubject final : public Subject {
 public:
  /// A sequence of tokens: for the whole model, or for a front.
  [[nodiscard]] static Result<std::unique_ptr<EngineSubject>> of_tokens(
      engine::Engine& engine, engine::LayerWindow layers, std::span<const int32_t> list);
  /// A sequence of boundary rows: for a back.
  [[nodiscard]] static Result<std::unique_ptr<EngineSubject>> of_rows(engine::Engine& engine,
                                                                      engine::LayerWindow layers,
                                                                      MatrixView<const float> list);

  Result<int32_t> advance(int32_t count) override;
  Status reset() override { return cache_->truncate(0); }
  /// What the last `advance` gave: [count, D] rows of a front, [1, V] logits otherwise.
  [[nodiscard]] const Matrix& output() const { return output_; }

 private:
  EngineSubject(engine::Engine& engine, std::unique_ptr<engine::KvCache> cache)
      : engine_(engine), cache_(std::move(cache)) {}

  engine::Engine& engine_;
  std::unique_ptr<engine::KvCache> cache_;
  std::span<const int32_t> tokens_;
  MatrixView<const float> rows_;  // used when there are no tokens
  Matrix output_;
};

/// A front on `engine`, which is borrowed, and the rest on the server that `options` name.
[[nodiscard]] Result<std::unique_ptr<Subject>> make_split_subject(
    engine::Engine& engine, int32_t cut, const edge::SessionOptions& options,
    std::span<const int32_t> list);

}  // namespace isthmus::tools
