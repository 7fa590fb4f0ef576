#include <isthmus/server/session_host.h>

#include <isthmus/codec/codec.h>
#include <isthmus/core/random.h>
#include <isthmus/engine/sampler.h>
#include <isthmus/wire/messages.h>

#include <algorithm>
#include <new>
#include <optional>
#include <stdexcept>
#include <utility>
#include <vector>

namespace isthmus::server {
namespace {

using transport::Message;

// A step with its rows in float32 may not need more than this; it bounds what one client can make a
// server allocate.
constexpr int32_t kMaxStepTokens = 4096;
constexpr int32_t kMaxContext = 1 << 24;

std::string range_message(std::string_view field, int64_t value, int64_t low, int64_t high) {
  return "server: " + std::string(field) + " is " + std::to_string(value) + ", must be in [" +
         std::to_string(low) + ", " + std::to_string(high) + "]";
}

Status check_range(std::string_view field, int64_t value, int64_t low, int64_t high) {
  if (value < low || value > high)
    return fail(ErrorCode::kInvalidArgument, range_message(field, value, low, high));
  return {};
}

uint64_t microseconds(Clock::TimePoint begin, Clock::TimePoint end) {
  return static_cast<uint64_t>(std::max<int64_t>(
      0, std::chrono::duration_cast<std::chrono::microseconds>(end - begin).count()));
}

engine::SamplingOptions sampling_options(const wire::Sampling& s) {
  return {.temperature = s.temperature,
          .top_k = s.top_k,
          .top_p = s.top_p,
          .min_p = s.min_p,
          .repetition_penalty = s.repetition_penalty,
          .seed = s.seed};
}

wire::ModelSummary summary_of(const model::ModelConfig& config) {
  return {.architecture = config.architecture,
          .layer_count = static_cast<uint32_t>(config.layer_count),
          .hidden_size = static_cast<uint32_t>(config.hidden_size),
          .vocab_size = static_cast<uint32_t>(config.vocab_size)};
}

std::string describe(const wire::ModelSummary& m) {
  return m.architecture + " with " + std::to_string(m.layer_count) + " layers, hidden size " +
         std::to_string(m.hidden_size) + ", vocabulary " + std::to_string(m.vocab_size);
}

/// The codec that a client names. A mechanism must come with its parameters derived: finding them
/// takes up to a second.
Result<codec::BoundaryCodec> make_codec(std::string_view text, size_t width,
                                        const ServerOptions& options, RandomSource& random) {
  ISTHMUS_ASSIGN(const codec::CodecSpec spec, codec::CodecSpec::parse(text));
  if (spec.mechanism() != nullptr && spec.mechanism()->epsilon != 0) {
    return fail(ErrorCode::kUnsupported,
                "server: a mechanism is agreed on by its derived parameters, not by epsilon");
  }
  return codec::BoundaryCodec::make(
      spec, width,
      {.calibration = codec::find_calibration(spec, options.calibrations), .random = &random});
}

}  // namespace

Status ServerOptions::validate() const {
  ISTHMUS_TRY(check_range("max_sessions", max_sessions, 1, 1 << 20));
  ISTHMUS_TRY(check_range("max_tokens", max_tokens, 1, kMaxContext));
  ISTHMUS_TRY(check_range("max_step_tokens", max_step_tokens, 1, kMaxStepTokens));
  ISTHMUS_TRY(check_range("max_queue", max_queue, 1, 1 << 16));
  return check_range("idle_timeout", idle_timeout.count(), 1, 1 << 30);
}

size_t ServerOptions::max_payload_bytes(size_t hidden_size) const {
  // float32 is the widest format; a row scale fits into the slack of the narrower ones.
  return static_cast<size_t>(max_step_tokens) * hidden_size * sizeof(float);
}

/// What one conversation holds on the server.
struct SessionHost::Session {
  uint64_t id = 0;
  std::string client_key;
  wire::Open open;
  SystemRandom random;  // the codecs' stochastic rounding
  std::optional<codec::BoundaryCodec> codec_up;
  std::optional<codec::BoundaryCodec> codec_down;
  wire::ReplyMode reply_mode = wire::ReplyMode::kToken;
  std::unique_ptr<engine::KvCache> cache;
  uint64_t sequence = 0;  // of the last request that was carried out
  Message answer;         // to that request; its request id is rewritten when it is given again
  Clock::TimePoint last_used;
  std::vector<std::pair<int32_t, int32_t>> sampled;  // (position, id), for the repetition penalty
};

/// One request on its way to an answer.
struct SessionHost::Request {
  std::string_view client_key;
  uint64_t id = 0;
  std::span<const std::byte> payload;
  Clock::TimePoint arrived;
};

/// Carries out one request; one overload per message.
class SessionHost::Handler {
 public:
  Handler(SessionHost& host, const Request& request) : host_(host), request_(request) {}

  Result<Message> operator()(const wire::Open& open);
  Result<Message> operator()(const wire::Step& step);
  Result<Message> operator()(const wire::Truncate& truncate);
  Result<Message> operator()(const wire::Close& close);
  Result<Message> operator()(const wire::Ping&) { return answer(wire::Pong{}); }
  template <typename Reply>
  Result<Message> operator()(const Reply&) {
    return fail(ErrorCode::kCorrupt, "server: a reply came where a request was expected");
  }

 private:
  Message answer(wire::Body body, std::vector<std::byte> payload = {}) const {
    return {wire::encode({.request_id = request_.id, .body = std::move(body)}), std::move(payload)};
  }
  Result<Session*> find(uint64_t id) const;
  /// The stored answer when `sequence` is a repetition; nothing when it is the next one.
  Result<std::optional<Message>> replay(const Session& session, uint64_t sequence) const;
  /// A stored answer under the id of this request.
  Result<Message> repeat(const Message& stored) const;
  /// The answer to an open of a session that exists.
  Result<Message> reopen(Session& session, const wire::Open& open);
  Status check_open(const wire::Open& open) const;
  Status check_step(const Session& session, const wire::Step& step) const;
  engine::Slice slice_for(const Session& session, const wire::Step& step, const Matrix& rows) const;
  Result<Message> finish_step(Session& session, const wire::Step& step, const Matrix& output,
                              wire::StepResult result, Clock::TimePoint compute_end);

  SessionHost& host_;
  const Request& request_;
};

SessionHost::SessionHost(engine::Engine& engine, ServerOptions options, const Clock& clock,
                         EventSink on_event)
    : engine_(engine), options_(std::move(options)), clock_(clock), on_event_(std::move(on_event)) {
  if (const Status valid = options_.validate(); !valid)
    throw std::invalid_argument(valid.error().message);
  if (!on_event_) on_event_ = [](const Event&) {};
}

SessionHost::~SessionHost() = default;

Message SessionHost::handle(std::string_view client_key, const Message& message,
                            Clock::TimePoint arrived) {
  Request request{.client_key = client_key, .payload = message.payload, .arrived = arrived};
  bool opens = false;
  Result<Message> result = [&]() -> Result<Message> {
    ISTHMUS_ASSIGN(const wire::Envelope envelope, wire::decode(message.envelope));
    request.id = envelope.request_id;
    opens = std::holds_alternative<wire::Open>(envelope.body);
    try {
      return std::visit(Handler(*this, request), envelope.body);
    } catch (const std::bad_alloc&) {
      return fail(ErrorCode::kOutOfMemory, "server: no memory for this request");
    }
  }();
  if (result) return std::move(*result);
  on_event_({.kind = opens ? Event::Kind::kRefused : Event::Kind::kFailed,
             .client = client_key,
             .detail = result.error().message});
  return {wire::encode({.request_id = request.id,
                        .body = wire::Failure{result.error().code, result.error().message}}),
          {}};
}

Message SessionHost::busy(const Message& message, std::chrono::milliseconds retry_after) {
  const Result<wire::Envelope> envelope = wire::decode(message.envelope);
  return {wire::encode({.request_id = envelope ? envelope->request_id : 0,
                        .body = wire::Busy{static_cast<uint32_t>(retry_after.count())}}),
          {}};
}

void SessionHost::expire_idle() {
  const Clock::TimePoint now = clock_.now();
  std::erase_if(sessions_, [&](const auto& entry) {
    const Session& session = *entry.second;
    if (now - session.last_used <= options_.idle_timeout) return false;
    on_event_({.kind = Event::Kind::kExpired, .session = session.id, .client = session.client_key});
    return true;
  });
}

Result<SessionHost::Session*> SessionHost::Handler::find(uint64_t id) const {
  // Another client's session looks exactly like one that does not exist.
  const auto found = host_.sessions_.find({std::string(request_.client_key), id});
  if (found == host_.sessions_.end()) {
    return fail(ErrorCode::kUnknownSession, "server: no such session");
  }
  found->second->last_used = host_.clock_.now();
  return found->second.get();
}

Result<std::optional<Message>> SessionHost::Handler::replay(const Session& session,
                                                            uint64_t sequence) const {
  if (sequence == session.sequence + 1) return std::optional<Message>();
  if (sequence == 0 || sequence != session.sequence) {
    return fail(ErrorCode::kOutOfOrder, "server: sequence " + std::to_string(sequence) + " after " +
                                            std::to_string(session.sequence));
  }
  return repeat(session.answer);
}

Result<Message> SessionHost::Handler::repeat(const Message& stored) const {
  ISTHMUS_ASSIGN(wire::Envelope envelope, wire::decode(stored.envelope));
  return answer(std::move(envelope.body), stored.payload);
}

Status SessionHost::Handler::check_open(const wire::Open& open) const {
  if (open.version != wire::kProtocolVersion) {
    return fail(ErrorCode::kVersionMismatch, "server: speaks protocol version " +
                                                 std::to_string(wire::kProtocolVersion) +
                                                 ", the client " + std::to_string(open.version));
  }
  const wire::ModelSummary ours = summary_of(host_.engine_.config());
  if (open.model != ours) {
    return fail(ErrorCode::kModelMismatch,
                "server: runs " + describe(ours) + ", the client " + describe(open.model));
  }
  if (open.reply_mode == wire::ReplyMode::kToken &&
      (open.tail != ours.layer_count || !host_.engine_.part().head)) {
    return fail(ErrorCode::kUnsupported,
                "server: cannot choose tokens without the last layers and the head");
  }
  if (host_.sessions_.size() >= static_cast<size_t>(host_.options_.max_sessions)) {
    return fail(
        ErrorCode::kServerFull,
        "server: all " + std::to_string(host_.options_.max_sessions) + " sessions are in use");
  }
  return {};
}

Result<Message> SessionHost::Handler::operator()(const wire::Open& open) {
  const auto known = host_.sessions_.find({std::string(request_.client_key), open.session});
  if (known != host_.sessions_.end()) return reopen(*known->second, open);
  ISTHMUS_TRY(check_open(open));
  auto session = std::make_unique<Session>();
  const auto hidden_size = static_cast<size_t>(host_.engine_.config().hidden_size);
  ISTHMUS_ASSIGN(session->codec_up,
                 make_codec(open.codec_up, hidden_size, host_.options_, session->random));
  ISTHMUS_ASSIGN(session->codec_down,
                 make_codec(open.codec_down, hidden_size, host_.options_, session->random));
  const auto granted =
      static_cast<int32_t>(std::min({int64_t{open.max_tokens}, int64_t{host_.options_.max_tokens},
                                     int64_t{host_.engine_.config().context_length}}));
  const engine::LayerWindow window{static_cast<int32_t>(open.cut), static_cast<int32_t>(open.tail)};
  ISTHMUS_ASSIGN(session->cache, host_.engine_.make_cache(window, granted));
  session->reply_mode = open.reply_mode;
  session->client_key = request_.client_key;
  session->last_used = host_.clock_.now();
  session->id = open.session;
  session->open = open;

  const engine::EngineInfo info = host_.engine_.info();
  const wire::Opened opened{
      .session = session->id,
      .max_tokens = static_cast<uint32_t>(granted),
      .max_step_tokens = static_cast<uint32_t>(host_.options_.max_step_tokens),
      .device = info.device,
      .precision = info.precision};
  const std::string detail = "layers [" + std::to_string(open.cut) + ", " +
                             std::to_string(open.tail) + ") up " + open.codec_up + " for " +
                             std::to_string(granted) + " tokens";
  host_.on_event_({.kind = Event::Kind::kOpened,
                   .session = session->id,
                   .client = request_.client_key,
                   .detail = detail});
  session->answer = answer(opened);
  Message message = session->answer;
  host_.sessions_.emplace(std::pair(session->client_key, session->id), std::move(session));
  return message;
}

Result<Message> SessionHost::Handler::reopen(Session& session, const wire::Open& open) {
  if (session.sequence > 0 || session.open != open) {
    return fail(ErrorCode::kInvalidArgument, "server: the session's number is in use");
  }
  session.last_used = host_.clock_.now();
  return repeat(session.answer);
}

Status SessionHost::Handler::check_step(const Session& session, const wire::Step& step) const {
  if (step.token_count > static_cast<uint32_t>(host_.options_.max_step_tokens)) {
    return fail(ErrorCode::kTooLarge, range_message("a step's token count", step.token_count, 1,
                                                    host_.options_.max_step_tokens));
  }
  if (step.position != static_cast<uint32_t>(session.cache->length())) {
    return fail(ErrorCode::kOutOfOrder, "server: position " + std::to_string(step.position) +
                                            ", the session holds " +
                                            std::to_string(session.cache->length()) + " tokens");
  }
  if (step.token_count >
      static_cast<uint32_t>(session.cache->capacity() - session.cache->length())) {
    return fail(ErrorCode::kContextFull, "server: the session's " +
                                             std::to_string(session.cache->capacity()) +
                                             " tokens are used up");
  }
  if (session.reply_mode == wire::ReplyMode::kToken && step.wants_reply) {
    return sampling_options(step.sampling).validate();
  }
  return {};
}

engine::Slice SessionHost::Handler::slice_for(const Session& session, const wire::Step& step,
                                              const Matrix& rows) const {
  engine::Slice slice{.cache = session.cache.get(), .hidden = rows.view()};
  slice.rows = step.wants_reply ? engine::Rows::kLast : engine::Rows::kNone;
  if (session.reply_mode == wire::ReplyMode::kToken) {
    slice.output = engine::Output::kLogits;
  } else if (session.cache->layers().end < host_.engine_.config().layer_count) {
    slice.rows = engine::Rows::kAll;  // the tail's layers need every position
  }
  return slice;
}

Result<Message> SessionHost::Handler::operator()(const wire::Step& step) {
  ISTHMUS_ASSIGN(Session* const session, find(step.session));
  ISTHMUS_ASSIGN(std::optional<Message> stored, replay(*session, step.sequence));
  if (stored) return std::move(*stored);
  ISTHMUS_TRY(check_step(*session, step));

  const Clock::TimePoint start = host_.clock_.now();
  const auto hidden_size = static_cast<size_t>(host_.engine_.config().hidden_size);
  // The payload's length is checked against the negotiated codec before the rows are allocated.
  ISTHMUS_ASSIGN(const size_t most, session->codec_up->max_encoded_bytes(step.token_count));
  if (request_.payload.size() > most) {
    return fail(ErrorCode::kCorrupt,
                "server: payload has " + std::to_string(request_.payload.size()) +
                    " bytes, the session's codec makes at most " + std::to_string(most));
  }
  Matrix rows(step.token_count, hidden_size);
  ISTHMUS_TRY(session->codec_up->decode_into(request_.payload, rows.view()));

  const Clock::TimePoint decoded = host_.clock_.now();
  const engine::Slice slice = slice_for(*session, step, rows);
  ISTHMUS_ASSIGN(const std::vector<Matrix> outputs, host_.engine_.forward({&slice, 1}));

  const wire::StepResult result{.session = session->id,
                                .sequence = step.sequence,
                                .length = static_cast<uint32_t>(session->cache->length()),
                                .compute_us = microseconds(decoded, host_.clock_.now()),
                                .codec_us = microseconds(start, decoded),
                                .queue_us = microseconds(request_.arrived, start)};
  Result<Message> finished = fail(ErrorCode::kOutOfMemory, "server: no memory for an answer");
  try {
    finished = finish_step(*session, step, outputs.front(), result, host_.clock_.now());
  } catch (const std::bad_alloc&) {
    // `finished` says so already.
  }
  // A step either happened with its answer or did not happen.
  if (!finished) ISTHMUS_TRY(session->cache->truncate(static_cast<int32_t>(step.position)));
  return finished;
}

Result<Message> SessionHost::Handler::finish_step(Session& session, const wire::Step& step,
                                                  const Matrix& output, wire::StepResult result,
                                                  Clock::TimePoint compute_end) {
  std::vector<std::byte> payload;
  if (session.reply_mode == wire::ReplyMode::kToken && step.wants_reply) {
    std::vector<int32_t> generated;
    for (const auto& [position, id] : session.sampled) {
      if (position >= static_cast<int64_t>(step.reply_start)) generated.push_back(id);
    }
    ISTHMUS_ASSIGN(result.token, engine::sample(output.row(0), sampling_options(step.sampling),
                                                generated, result.length));
    session.sampled.emplace_back(static_cast<int32_t>(result.length), result.token);
    result.compute_us += microseconds(compute_end, host_.clock_.now());
  } else if (!output.empty()) {
    ISTHMUS_ASSIGN(payload, session.codec_down->encode(output.view()));
    result.codec_us += microseconds(compute_end, host_.clock_.now());
  }
  session.sequence = step.sequence;
  session.answer = answer(result, std::move(payload));
  return session.answer;
}

Result<Message> SessionHost::Handler::operator()(const wire::Truncate& truncate) {
  ISTHMUS_ASSIGN(Session* const session, find(truncate.session));
  ISTHMUS_ASSIGN(std::optional<Message> stored, replay(*session, truncate.sequence));
  if (stored) return std::move(*stored);
  if (truncate.length > static_cast<uint32_t>(session->cache->length())) {
    return fail(ErrorCode::kInvalidArgument,
                range_message("the length to keep", truncate.length, 0, session->cache->length()));
  }
  ISTHMUS_TRY(session->cache->truncate(static_cast<int32_t>(truncate.length)));
  std::erase_if(session->sampled, [&](const auto& entry) {
    return entry.first > static_cast<int64_t>(truncate.length);
  });
  session->sequence = truncate.sequence;
  session->answer = answer(wire::Truncated{
      .session = session->id, .sequence = truncate.sequence, .length = truncate.length});
  return session->answer;
}

Result<Message> SessionHost::Handler::operator()(const wire::Close& close) {
  ISTHMUS_ASSIGN(Session* const session, find(close.session));
  host_.on_event_(
      {.kind = Event::Kind::kClosed, .session = session->id, .client = request_.client_key});
  host_.sessions_.erase({std::string(request_.client_key), close.session});
  return answer(wire::Closed{.session = close.session});
}

}  // namespace isthmus::server
