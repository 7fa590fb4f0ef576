// Front on the device, back on a server, and the tail on the device or not at all.
#include <isthmus/core/random.h>
#include <isthmus/transport/address.h>

#include <algorithm>
#include <set>

#include "account.h"
#include "codecs.h"
#include "pipeline.h"
#include "remote.h"
#include "stopwatch.h"
#include "verifier.h"
#include "witness.h"

namespace isthmus::edge {
namespace {

constexpr double kMicro = 1e-6;

wire::Sampling sampling_message(const engine::SamplingOptions& s) {
  return {.temperature = s.temperature,
          .top_k = s.top_k,
          .top_p = s.top_p,
          .min_p = s.min_p,
          .repetition_penalty = s.repetition_penalty,
          .seed = s.seed};
}

wire::Open open_message(const model::ModelConfig& config, const Split& split, const Codecs& codecs,
                        int32_t max_tokens) {
  return {.model = {.architecture = config.architecture,
                    .layer_count = static_cast<uint32_t>(config.layer_count),
                    .hidden_size = static_cast<uint32_t>(config.hidden_size),
                    .vocab_size = static_cast<uint32_t>(config.vocab_size),
                    .fingerprint = split.fingerprint.digest},
          .cut = static_cast<uint32_t>(split.cut),
          .tail = static_cast<uint32_t>(split.tail.value_or(config.layer_count)),
          .codec_up = codecs.up.spec().to_string(),
          .codec_down = codecs.down.spec().to_string(),
          .codec_clean = codecs.clean ? codecs.clean->spec().to_string() : "",
          .reply_mode = split.tail ? wire::ReplyMode::kHidden : wire::ReplyMode::kToken,
          .max_tokens = static_cast<uint32_t>(max_tokens)};
}

class SplitPipeline final : public Pipeline {
 public:
  SplitPipeline(engine::Engine& engine, std::unique_ptr<RandomSource> random,
                std::unique_ptr<const Codecs> codecs, std::optional<Account> account,
                std::unique_ptr<engine::KvCache> front, std::unique_ptr<engine::KvCache> tail,
                std::unique_ptr<Remote> remote, std::unique_ptr<Verifier> verifier)
      : engine_(engine),
        random_(std::move(random)),
        codecs_(std::move(codecs)),
        account_(std::move(account)),
        front_(std::move(front)),
        tail_(std::move(tail)),
        remote_(std::move(remote)),
        verifier_(std::move(verifier)) {}

  Result<std::optional<int32_t>> prompt(std::span<const int32_t> tokens, const Choice& choice,
                                        const std::function<bool()>& go_on) override {
    // All of it before any of it: a budget that ends in the middle would be spent on nothing.
    if (account_) ISTHMUS_TRY(account_->charge(tokens.size()));
    std::span<const int32_t> unsent = tokens;
    Result<std::optional<int32_t>> token = feed(unsent, choice, go_on);
    if (account_) account_->refund(unsent.size());
    return token;
  }
  Result<int32_t> next(int32_t token, const Choice& choice) override {
    if (account_ && !codecs_->clean) ISTHMUS_TRY(account_->charge(1));
    const codec::BoundaryCodec& codec = codecs_->clean ? *codecs_->clean : codecs_->up;
    ISTHMUS_TRY(send({&token, 1}, codec, &choice));
    ISTHMUS_ASSIGN(const std::optional<int32_t> following, receive(1, &choice));
    return *following;
  }

  Status truncate(int32_t length) override {
    if (verifier_) verifier_->truncate(length);
    ISTHMUS_TRY(remote_->truncate(length));
    ISTHMUS_TRY(front_->truncate(std::min(length, front_->length())));
    if (tail_ != nullptr && has_tail_layers())
      ISTHMUS_TRY(tail_->truncate(std::min(length, tail_->length())));
    return {};
  }

  int32_t length() const override { return remote_->length(); }
  int32_t capacity() const override { return static_cast<int32_t>(remote_->opened().max_tokens); }
  Spent spent() const override {
    Spent spent = spent_;
    spent.bytes_up = remote_->bytes_sent();
    spent.bytes_down = remote_->bytes_received();
    spent.released_rows = account_ ? account_->charged_rows() : 0;
    spent.resumes = remote_->resumes();
    return spent;
  }
  std::string server_description() const override {
    return remote_->opened().device + " " + remote_->opened().precision;
  }
  Result<std::optional<PrivacyReport>> privacy() const override {
    if (!account_) return std::optional<PrivacyReport>();
    return account_->report();
  }
  void verify() override {
    if (verifier_) verifier_->check();
  }
  VerifyReport verification() const override {
    return verifier_ ? verifier_->report() : VerifyReport{};
  }

 private:
  bool has_tail_layers() const { return tail_->layers().count() > 0; }

  // Sends from the front of `unsent` and takes the answers, until all of it is answered. Front,
  // link and server work at once, each on another chunk.
  Result<std::optional<int32_t>> feed(std::span<const int32_t>& unsent, const Choice& choice,
                                      const std::function<bool()>& go_on) {
    const size_t chunk_size = remote_->opened().max_step_tokens;
    size_t unanswered = unsent.size();
    while (true) {
      while (!unsent.empty() && remote_->can_send()) {
        const auto chunk = unsent.first(std::min(chunk_size, unsent.size()));
        unsent = unsent.subspan(chunk.size());
        ISTHMUS_TRY(send(chunk, codecs_->up, unsent.empty() ? &choice : nullptr));
      }
      const size_t answered = std::min(chunk_size, unanswered);
      unanswered -= answered;
      ISTHMUS_ASSIGN(const std::optional<int32_t> token,
                     receive(answered, unanswered == 0 ? &choice : nullptr));
      if (unanswered == 0) return token;
      if (!go_on()) return std::optional<int32_t>();
    }
  }

  // Runs the front over the next tokens and sends what comes out of it.
  Status send(std::span<const int32_t> tokens, const codec::BoundaryCodec& codec,
              const Choice* choice) {
    ISTHMUS_ASSIGN(const Matrix boundary, run_front(tokens));
    std::vector<std::byte> payload;
    {
      const Stopwatch watch(spent_.time_s.codec);
      ISTHMUS_ASSIGN(payload, codec.encode(boundary.view()));
    }
    wire::Step step{.token_count = static_cast<uint32_t>(tokens.size()),
                    .wants_reply = choice != nullptr,
                    .clean = &codec != &codecs_->up};
    if (choice != nullptr && tail_ == nullptr) {
      step.reply_start = static_cast<uint32_t>(choice->reply_start);
      step.sampling = sampling_message(choice->sampling);
    }
    spent_.boundary_bytes_up += payload.size();
    if (verifier_) verifier_->sent(step, payload);
    remote_->send(step, std::move(payload));
    return {};
  }

  Result<Matrix> run_front(std::span<const int32_t> tokens) {
    const Stopwatch watch(spent_.time_s.device);
    const engine::Slice slice{.cache = front_.get(), .tokens = tokens};
    ISTHMUS_ASSIGN(std::vector<Matrix> outputs, engine_.forward({&slice, 1}));
    return std::move(outputs.front());
  }

  // Takes the next answer, runs the tail over it if there is one, and chooses a token if one is
  // wanted.
  Result<std::optional<int32_t>> receive(size_t token_count, const Choice* choice) {
    ISTHMUS_ASSIGN(const StepAnswer answer, wait());
    if (tail_ == nullptr) {
      if (verifier_) verifier_->answered({.token = answer.result.token, .rows = {}});
      return chosen_token(answer, choice);
    }
    ISTHMUS_ASSIGN(const Matrix rows, decode(answer, token_count, choice != nullptr));
    if (verifier_) verifier_->answered({.token = -1, .rows = rows});
    return run_tail(rows, choice);
  }

  // The wire's share of the wait is what the server does not account for; what the server did
  // while the device was busy itself is not waited for.
  Result<StepAnswer> wait() {
    double elapsed_s = 0;
    ISTHMUS_ASSIGN(StepAnswer answer, [&] {
      const Stopwatch watch(elapsed_s);
      return remote_->receive();
    }());
    const double codec_s =
        std::min(elapsed_s, kMicro * static_cast<double>(answer.result.codec_us));
    const double server_s =
        std::min(elapsed_s - codec_s,
                 kMicro * static_cast<double>(answer.result.compute_us + answer.result.queue_us));
    spent_.time_s.codec += codec_s;
    spent_.time_s.server += server_s;
    spent_.time_s.wire += elapsed_s - server_s - codec_s;
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
    Matrix rows(answer_rows(token_count, wants_reply, has_tail_layers()),
                static_cast<size_t>(engine_.config().hidden_size));
    ISTHMUS_TRY(codecs_->down.decode_into(answer.payload, rows.view()));
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
  std::unique_ptr<const Codecs> codecs_;  // its address is stable: the witness borrows it
  std::optional<Account> account_;        // there when `up` has a mechanism
  std::unique_ptr<engine::KvCache> front_;
  std::unique_ptr<engine::KvCache> tail_;  // null: the server has the head
  std::unique_ptr<Remote> remote_;
  std::unique_ptr<Verifier> verifier_;  // null: nothing is checked
  Spent spent_;
};

Result<std::vector<transport::ChannelOptions>> channel_options(std::span<const std::string> servers,
                                                               const SessionOptions& options) {
  std::vector<transport::ChannelOptions> channels;
  std::optional<transport::KeyPair> keys = options.keys;
  for (const std::string& server : servers) {
    transport::ChannelOptions channel;
    ISTHMUS_ASSIGN(channel.server, transport::ServerAddress::parse(server));
    channel.allow_plaintext = options.allow_plaintext;
    if (!keys && !channel.server.public_key.empty()) {
      ISTHMUS_ASSIGN(keys,
                     transport::load_or_create_keys(transport::KeyPaths::standard().client_key));
    }
    if (keys) channel.keys = *keys;
    channels.push_back(std::move(channel));
  }
  return channels;
}

// Whom a ledger charges: the key that proves who a server is, or else where it is.
std::string identity(const transport::ChannelOptions& channel) {
  const transport::ServerAddress& server = channel.server;
  return server.public_key.empty() ? server.to_string() : server.public_key;
}

/// All who get to see a session's rows.
struct Recipients {
  std::vector<transport::ChannelOptions> servers;  ///< the first, and its fallbacks
  std::optional<transport::ChannelOptions> witness;

  [[nodiscard]] std::set<std::string> identities() const {
    std::set<std::string> all;
    for (const transport::ChannelOptions& server : servers) all.insert(identity(server));
    if (witness) all.insert(identity(*witness));
    return all;
  }
};

Result<Recipients> recipients(const SessionOptions& options) {
  std::vector<std::string> servers = {options.server};
  servers.insert(servers.end(), options.fallback_servers.begin(), options.fallback_servers.end());
  const bool has_witness = options.verify.share > 0 && !options.verify.server.empty();
  if (has_witness) servers.push_back(options.verify.server);
  Recipients all;
  ISTHMUS_ASSIGN(all.servers, channel_options(servers, options));
  if (!has_witness) return all;
  transport::ChannelOptions witness = std::move(all.servers.back());
  all.servers.pop_back();
  // Whoever checks a server must be another one, also after a fallback has taken over.
  if (all.identities().contains(identity(witness))) {
    return fail(ErrorCode::kInvalidArgument,
                "edge: the server that checks answers, " + witness.server.host + ':' +
                    std::to_string(witness.server.port) + ", is one of those that are checked");
  }
  all.witness = std::move(witness);
  return all;
}

Result<std::optional<Account>> open_account(const Codecs& codecs,
                                            const model::Fingerprint& fingerprint,
                                            const Recipients& recipients,
                                            const SessionOptions& options) {
  if (codecs.up.mechanism() == nullptr) return std::optional<Account>();
  const std::set<std::string> servers = recipients.identities();
  return Account::open(options.ledger, *codecs.up.mechanism(), fingerprint.to_string(),
                       std::vector<std::string>(servers.begin(), servers.end()));
}

/// Null when nothing is to be checked. `granted` and `most_rows` of a step are what the session
/// has.
Result<std::unique_ptr<Verifier>> make_verifier(
    const Split& split, const std::optional<transport::ChannelOptions>& other_server,
    const Codecs& codecs, const SessionOptions& options, const wire::Open& granted,
    uint32_t most_rows) {
  if (options.verify.share == 0) return nullptr;
  if (split.tail && codecs.down.is_random()) {
    return fail(ErrorCode::kUnsupported, "edge: answers rounded at random ('" +
                                             codecs.down.spec().to_string() +
                                             "') cannot be checked: they are never the same twice");
  }
  std::unique_ptr<Witness> witness;
  if (other_server) {
    ISTHMUS_ASSIGN(witness,
                   make_remote_witness(*other_server, options, codecs, granted, most_rows));
  } else {
    ISTHMUS_ASSIGN(witness, make_local_witness(*split.reference, codecs, granted));
  }
  return std::make_unique<Verifier>(std::move(witness), options.verify);
}

Status check_artefact(const model::ModelConfig& config, const Split& split,
                      const SessionOptions& options) {
  const auto artefact = artefact::find(options.codec, options.artefacts);
  if (artefact == nullptr) return {};
  // From where on layers behind the cut run here too.
  const int32_t first =
      split.reference != nullptr ? split.cut : split.tail.value_or(config.layer_count);
  return artefact->check_tail(first, config.layer_count);
}

}  // namespace

Result<std::unique_ptr<Pipeline>> make_split_pipeline(engine::Engine& engine, const Split& split,
                                                      const SessionOptions& options) {
  ISTHMUS_TRY(check_artefact(engine.config(), split, options));
  auto random = std::make_unique<SystemRandom>();
  ISTHMUS_ASSIGN(Codecs made, make_codecs(engine.config(), split.cut, options, *random));
  auto codecs = std::make_unique<const Codecs>(std::move(made));
  ISTHMUS_ASSIGN(Recipients all, recipients(options));
  ISTHMUS_ASSIGN(std::optional<Account> account,
                 open_account(*codecs, split.fingerprint, all, options));
  wire::Open open = open_message(engine.config(), split, *codecs, options.max_tokens);
  ISTHMUS_ASSIGN(std::unique_ptr<Remote> remote,
                 Remote::open(std::move(all.servers), options, open));
  open.max_tokens = remote->opened().max_tokens;
  const auto capacity = static_cast<int32_t>(open.max_tokens);
  ISTHMUS_ASSIGN(auto front_cache, engine.make_cache({0, split.cut}, capacity));
  std::unique_ptr<engine::KvCache> tail_cache;
  if (split.tail) {
    ISTHMUS_ASSIGN(tail_cache,
                   engine.make_cache({*split.tail, engine.config().layer_count}, capacity));
  }
  ISTHMUS_ASSIGN(auto verifier, make_verifier(split, all.witness, *codecs, options, open,
                                              remote->opened().max_step_tokens));
  return std::make_unique<SplitPipeline>(
      engine, std::move(random), std::move(codecs), std::move(account), std::move(front_cache),
      std::move(tail_cache), std::move(remote), std::move(verifier));
}

}  // namespace isthmus::edge
