// A host over a tiny model, and the client's side of the conversation.
#pragma once

#include <isthmus/codec/codec.h>
#include <isthmus/core/thread_pool.h>
#include <isthmus/engine/cpu_engine.h>
#include <isthmus/server/session_host.h>
#include <isthmus/wire/messages.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "support/catch.h"
#include "support/fake_clock.h"
#include "support/tiny_model.h"

namespace isthmus::server {

using test::value_of;

inline constexpr std::string_view kAda = "ada's key";
inline constexpr std::string_view kBob = "bob's key";
inline constexpr int32_t kCut = 1;

inline ServerOptions small_limits() {
  ServerOptions options;
  options.quotas.max_sessions = 2;
  options.max_tokens = 16;
  options.max_step_tokens = 4;
  options.idle_timeout = std::chrono::seconds(60);
  return options;
}

/// An engine whose passes take as long as it is told, by a clock that stands still otherwise.
class TimedEngine final : public engine::Engine {
 public:
  TimedEngine(std::unique_ptr<Engine> engine, test::FakeClock& clock)
      : Engine(engine->identity()), engine_(std::move(engine)), clock_(clock) {}

  [[nodiscard]] const model::ModelConfig& config() const override { return engine_->config(); }
  [[nodiscard]] const model::Part& part() const override { return engine_->part(); }
  [[nodiscard]] engine::EngineInfo info() const override { return engine_->info(); }
  [[nodiscard]] bool batch_invariant() const override { return engine_->batch_invariant(); }
  Result<std::unique_ptr<engine::KvCache>> make_cache(engine::LayerWindow layers,
                                                      int32_t capacity) override {
    return engine_->make_cache(layers, capacity);
  }
  Result<std::vector<Matrix>> forward(std::span<const engine::Slice> slices) override {
    for (const engine::Slice& slice : slices)
      clock_.advance(per_row * std::max(slice.tokens.size(), slice.hidden.rows()));
    if (fails_with) ISTHMUS_TRY(fails_with(slices));
    return engine_->forward(slices);
  }

  std::chrono::nanoseconds per_row{0};
  // What a pass fails with; may be empty.
  std::function<Status(std::span<const engine::Slice>)> fails_with;

 private:
  std::unique_ptr<Engine> engine_;
  test::FakeClock& clock_;
};

/// A host over a tiny model, and the client's side of the conversation.
class Fixture {
 public:
  explicit Fixture(ServerOptions options = small_limits())
      : model_(std::make_shared<test::TinyModel>(test::tiny_configs().front().config)),
        engine_(value_of(engine::load_cpu_engine(model_, test::whole_model(config()), pool_)),
                clock),
        fingerprint_(value_of(model::fingerprint(*model_, pool_))),
        host(engine_, fingerprint_, options, clock, recorder_) {}

  [[nodiscard]] const model::ModelConfig& config() const { return model_->config(); }
  [[nodiscard]] TimedEngine& engine() { return engine_; }

  /// A new session's, each time.
  [[nodiscard]] wire::Open open_message() {
    ++next_session_;
    return {.model = {.architecture = config().architecture,
                      .layer_count = static_cast<uint32_t>(config().layer_count),
                      .hidden_size = static_cast<uint32_t>(config().hidden_size),
                      .vocab_size = static_cast<uint32_t>(config().vocab_size),
                      .fingerprint = fingerprint_.digest},
            .cut = kCut,
            .tail = static_cast<uint32_t>(config().layer_count),
            .codec_up = "f32",
            .codec_down = "f32",
            .max_tokens = 8,
            .session = next_session_};
  }

  transport::Message ask(wire::Body body, std::vector<std::byte> payload = {},
                         std::string_view client = kAda) {
    tell(std::move(body), std::move(payload), client);
    std::vector<Answer> answers = run();
    REQUIRE(answers.size() == 1);
    return std::move(answers.front().message);
  }

  /// Hands in a request without waiting for its answer. \returns its id.
  uint64_t tell(wire::Body body, std::vector<std::byte> payload = {},
                std::string_view client = kAda) {
    const std::string key(client);
    host.receive({{key, key},
                  {wire::encode({.request_id = ++request_id_, .body = std::move(body)}),
                   std::move(payload)}},
                 clock.now());
    return request_id_;
  }

  /// Computes all that waits. \returns the answers since the last time.
  std::vector<Answer> run() {
    while (host.run_batch()) {
    }
    return host.take_answers();
  }

  template <typename Reply>
  Reply expect(const transport::Message& message) {
    const wire::Envelope envelope = value_of(wire::decode(message.envelope));
    CHECK(envelope.request_id == request_id_);
    if (const auto* failed = std::get_if<wire::Failure>(&envelope.body))
      UNSCOPED_INFO(failed->message);
    REQUIRE(std::holds_alternative<Reply>(envelope.body));
    return std::get<Reply>(envelope.body);
  }

  ErrorCode failure(const transport::Message& message) {
    return expect<wire::Failure>(message).code;
  }

  uint64_t open(std::string_view client = kAda) {
    return expect<wire::Opened>(ask(open_message(), {}, client)).session;
  }

  /// Boundary rows of the tokens at [first, first + count) of one prompt, as the device computes
  /// them.
  Matrix boundary(size_t first, size_t count) {
    const std::vector<int32_t> tokens = test::tiny_tokens(first + count, config().vocab_size);
    const auto cache = value_of(engine_.make_cache({0, kCut}, 64));
    const engine::Slice slice{.cache = cache.get(), .tokens = tokens};
    const Matrix rows = std::move(value_of(engine_.forward({&slice, 1})).front());
    Matrix part(count, rows.cols());
    std::memcpy(part.data(), rows.row(first).data(), count * rows.cols() * sizeof(float));
    return part;
  }

  std::vector<std::byte> payload(size_t first, size_t count) {
    const auto hidden_size = static_cast<size_t>(config().hidden_size);
    return value_of(value_of(codec::BoundaryCodec::make({codec::Format::kF32}, hidden_size))
                        .encode(boundary(first, count).view()));
  }

  test::FakeClock clock;
  std::vector<Event::Kind> events;
  size_t loads = 0;               // how often the observer was told of the load
  std::function<void()> on_pass;  // called after each pass; may be empty

 private:
  struct Recorder final : Observer {
    explicit Recorder(Fixture& to) : fixture(to) {}
    void on_event(const Event& event) override { fixture.events.push_back(event.kind); }
    void on_batch(const BatchReport&) override {
      if (fixture.on_pass) fixture.on_pass();
    }
    void on_load(const Load&) override { ++fixture.loads; }
    Fixture& fixture;
  };

  Recorder recorder_{*this};
  ThreadPool pool_{1};
  std::shared_ptr<test::TinyModel> model_;
  TimedEngine engine_;
  model::Fingerprint fingerprint_;
  uint64_t request_id_ = 0;
  uint64_t next_session_ = 100;

 public:
  SessionHost host;
};

inline wire::Step step(uint64_t session, uint64_t sequence, uint32_t position, uint32_t count) {
  return {.session = session,
          .sequence = sequence,
          .position = position,
          .token_count = count,
          .wants_reply = true,
          .reply_start = position + count};
}

}  // namespace isthmus::server
