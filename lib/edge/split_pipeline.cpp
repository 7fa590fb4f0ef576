// Front on the device, back on a server, and the tail on the device or not at all.
#include <isthmus/codec/codec.h>
#include <isthmus/core/random.h>
#include <isthmus/transport/address.h>

#include <algorithm>

#include "pipeline.h"
#include "remote.h"
#include "stopwatch.h"

namespace isthmus::edge {
namespace {

constexpr int32_t kLargestChunk = 128;  // tokens in one step; the server may allow fewer
constexpr double kMicro = 1e-6;

wire::Sampling sampling_message(const engine::SamplingOptions& s) {
  return {.temperature = s.temperature,
          .top_k = s.top_k,
          .top_p = s.top_p,
          .min_p = s.min_p,
          .repetition_penalty = s.repetition_penalty,
          .seed = s.seed};
}

wire::Open open_message(const model::ModelConfig& config, int32_t cut, std::optional<int32_t> tail,
                        const SessionOptions& options) {
  return {.model = {.architecture = config.architecture,
                    .layer_count = static_cast<uint32_t>(config.layer_count),
                    .hidden_size = static_cast<uint32_t>(config.hidden_size),
                    .vocab_size = static_cast<uint32_t>(config.vocab_size)},
          .cut = static_cast<uint32_t>(cut),
          .tail = static_cast<uint32_t>(tail.value_or(config.layer_count)),
          .codec_up = options.codec.to_string(),
          .codec_down = options.codec_down.value_or(options.codec).to_string(),
          .reply_mode = tail ? wire::ReplyMode::kHidden : wire::ReplyMode::kToken,
          .max_tokens = static_cast<uint32_t>(options.max_tokens)};
}

struct Codecs {
  codec::BoundaryCodec up;
  codec::BoundaryCodec down;
};

Result<Codecs> make_codecs(const engine::Engine& engine, const SessionOptions& options,
                           RandomSource& random) {
  if (options.codec.mechanism() != nullptr) {
    return fail(ErrorCode::kUnsupported,
                "edge: '" + options.codec.to_string() +
                    "' has a mechanism, and sessions keep no ledger of what it releases");
  }
  const auto make = [&](const codec::CodecSpec& spec) {
    return codec::BoundaryCodec::make(
        spec, static_cast<size_t>(engine.config().hidden_size),
        {.calibration = codec::find_calibration(spec, options.calibrations), .random = &random});
  };
  ISTHMUS_ASSIGN(codec::BoundaryCodec up, make(options.codec));
  ISTHMUS_ASSIGN(codec::BoundaryCodec down, make(options.codec_down.value_or(options.codec)));
  return Codecs{std::move(up), std::move(down)};
}

class SplitPipeline final : public Pipeline {
 public:
  SplitPipeline(engine::Engine& engine, std::unique_ptr<RandomSource> random, Codecs codecs,
                std::unique_ptr<engine::KvCache> front, std::unique_ptr<engine::KvCache> tail,
                std::unique_ptr<Remote> remote)
      : engine_(engine),
        random_(std::move(random)),
        codecs_(std::move(codecs)),
        front_(std::move(front)),
        tail_(std::move(tail)),
        remote_(std::move(remote)) {}

  Result<std::optional<int32_t>> advance(std::span<const int32_t> tokens,
                                         const Choice* choice) override {
    ISTHMUS_ASSIGN(const Matrix boundary, run_front(tokens));
    ISTHMUS_ASSIGN(std::vector<std::byte> payload, encode(boundary));
    ISTHMUS_ASSIGN(const StepAnswer answer, ask(tokens.size(), choice, std::move(payload)));
    if (tail_ == nullptr) return chosen_token(answer, choice);
    ISTHMUS_ASSIGN(const Matrix rows, decode(answer, tokens.size(), choice != nullptr));
    return run_tail(rows, choice);
  }

  Status truncate(int32_t length) override {
    ISTHMUS_TRY(remote_->truncate(length));
    ISTHMUS_TRY(front_->truncate(std::min(length, front_->length())));
    if (tail_ != nullptr && has_tail_layers())
      ISTHMUS_TRY(tail_->truncate(std::min(length, tail_->length())));
    return {};
  }

  int32_t length() const override { return remote_->length(); }
  int32_t capacity() const override { return static_cast<int32_t>(remote_->opened().max_tokens); }
  int32_t max_chunk() const override {
    return static_cast<int32_t>(
        std::min<uint32_t>(kLargestChunk, remote_->opened().max_step_tokens));
  }
  Spent spent() const override {
    Spent spent = spent_;
    spent.bytes_up = remote_->bytes_sent();
    spent.bytes_down = remote_->bytes_received();
    return spent;
  }
  std::string server_description() const override {
    return remote_->opened().device + " " + remote_->opened().precision;
  }

 private:
  bool has_tail_layers() const { return tail_->layers().count() > 0; }

  Result<Matrix> run_front(std::span<const int32_t> tokens) {
    const Stopwatch watch(spent_.time_s.device);
    const engine::Slice slice{.cache = front_.get(), .tokens = tokens};
    ISTHMUS_ASSIGN(std::vector<Matrix> outputs, engine_.forward({&slice, 1}));
    return std::move(outputs.front());
  }

  Result<std::vector<std::byte>> encode(const Matrix& boundary) {
    const Stopwatch watch(spent_.time_s.codec);
    return codecs_.up.encode(boundary.view());
  }

  // One round trip. The wire's share is what the server does not account for.
  Result<StepAnswer> ask(size_t token_count, const Choice* choice, std::vector<std::byte> payload) {
    wire::Step step{.token_count = static_cast<uint32_t>(token_count),
                    .wants_reply = choice != nullptr};
    if (choice != nullptr && tail_ == nullptr) {
      step.reply_start = static_cast<uint32_t>(choice->reply_start);
      step.sampling = sampling_message(choice->sampling);
    }
    double elapsed_s = 0;
    ISTHMUS_ASSIGN(StepAnswer answer, [&] {
      const Stopwatch watch(elapsed_s);
      return remote_->step(step, std::move(payload));
    }());
    const double server_s =
        kMicro * static_cast<double>(answer.result.compute_us + answer.result.queue_us);
    const double codec_s = kMicro * static_cast<double>(answer.result.codec_us);
    spent_.time_s.server += server_s;
    spent_.time_s.codec += codec_s;
    spent_.time_s.wire += std::max(0.0, elapsed_s - server_s - codec_s);
    ++spent_.steps;
    return answer;
  }

  Result<std::optional<int32_t>> chosen_token(const StepAnswer& answer,
                                              const Choice* choice) const {
    if (choice == nullptr) return std::optional<int32_t>();
    if (answer.result.token < 0 || answer.result.token >= engine_.config().vocab_size) {
      return fail(ErrorCode::kCorrupt, "edge: the server chose token " +
                                           std::to_string(answer.result.token) +
                                           ", which does not exist");
    }
    return answer.result.token;
  }

  Result<Matrix> decode(const StepAnswer& answer, size_t token_count, bool wants_reply) {
    const Stopwatch watch(spent_.time_s.codec);
    const size_t row_count = has_tail_layers() ? token_count : (wants_reply ? 1 : 0);
    Matrix rows(row_count, static_cast<size_t>(engine_.config().hidden_size));
    ISTHMUS_TRY(codecs_.down.decode_into(answer.payload, rows.view()));
    return rows;
  }

  Result<std::optional<int32_t>> run_tail(const Matrix& rows, const Choice* choice) {
    if (rows.empty()) return std::optional<int32_t>();
    const Stopwatch watch(spent_.time_s.device);
    // Without layers the tail has no memory: only norm and head.
    if (!has_tail_layers()) ISTHMUS_TRY(tail_->truncate(0));
    const engine::Slice slice{
        .cache = tail_.get(),
        .hidden = rows.view(),
        .output = engine::Output::kLogits,
        .rows = choice != nullptr ? engine::Rows::kLast : engine::Rows::kNone};
    ISTHMUS_ASSIGN(const std::vector<Matrix> outputs, engine_.forward({&slice, 1}));
    if (choice == nullptr) return std::optional<int32_t>();
    return engine::sample(outputs.front().row(0), choice->sampling, choice->generated, length());
  }

  engine::Engine& engine_;
  std::unique_ptr<RandomSource> random_;  // the codec's stochastic rounding
  Codecs codecs_;
  std::unique_ptr<engine::KvCache> front_;
  std::unique_ptr<engine::KvCache> tail_;  // null: the server has the head
  std::unique_ptr<Remote> remote_;
  Spent spent_;
};

Result<transport::ChannelOptions> channel_options(const SessionOptions& options) {
  transport::ChannelOptions channel;
  ISTHMUS_ASSIGN(channel.server, transport::ServerAddress::parse(options.server));
  channel.allow_plaintext = options.allow_plaintext;
  if (options.keys) {
    channel.keys = *options.keys;
  } else if (!channel.server.public_key.empty()) {
    ISTHMUS_ASSIGN(channel.keys,
                   transport::load_or_create_keys(transport::KeyPaths::standard().client_key));
  }
  return channel;
}

}  // namespace

Result<std::unique_ptr<Pipeline>> make_split_pipeline(engine::Engine& engine, int32_t cut,
                                                      std::optional<int32_t> tail,
                                                      const SessionOptions& options) {
  auto random = std::make_unique<SystemRandom>();
  ISTHMUS_ASSIGN(Codecs codecs, make_codecs(engine, options, *random));
  ISTHMUS_ASSIGN(const transport::ChannelOptions channel, channel_options(options));
  ISTHMUS_ASSIGN(std::unique_ptr<Remote> remote,
                 Remote::open(channel, options, open_message(engine.config(), cut, tail, options)));
  const auto capacity = static_cast<int32_t>(remote->opened().max_tokens);
  ISTHMUS_ASSIGN(auto front_cache, engine.make_cache({0, cut}, capacity));
  std::unique_ptr<engine::KvCache> tail_cache;
  if (tail) {
    ISTHMUS_ASSIGN(tail_cache, engine.make_cache({*tail, engine.config().layer_count}, capacity));
  }
  return std::make_unique<SplitPipeline>(engine, std::move(random), std::move(codecs),
                                         std::move(front_cache), std::move(tail_cache),
                                         std::move(remote));
}

}  // namespace isthmus::edge
