#include <isthmus/server/session_host.h>

#include <isthmus/wire/messages.h>

#include <algorithm>
#include <new>
#include <span>
#include <stdexcept>
#include <utility>

#include "guarded.h"
#include "session.h"

namespace isthmus::server {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kRetryOpenAfter{500};
constexpr milliseconds kRetryHeldBackAfter{20};
// So many clients are remembered after their last session, for the sake of their quotas.
constexpr size_t kClientsRemembered = 4096;

wire::ModelSummary summary_of(const model::ModelConfig& config,
                              const model::Fingerprint& fingerprint) {
  return {.architecture = config.architecture,
          .layer_count = static_cast<uint32_t>(config.layer_count),
          .hidden_size = static_cast<uint32_t>(config.hidden_size),
          .vocab_size = static_cast<uint32_t>(config.vocab_size),
          .fingerprint = fingerprint.digest};
}

std::string describe(const wire::ModelSummary& m) {
  return m.architecture + " with " + std::to_string(m.layer_count) + " layers, hidden size " +
         std::to_string(m.hidden_size) + ", vocabulary " + std::to_string(m.vocab_size) +
         ", weights " + model::Fingerprint{m.fingerprint}.to_string();
}

Status check_open(const wire::Open& open, const engine::Engine& engine,
                  const model::Fingerprint& fingerprint) {
  if (open.version != wire::kProtocolVersion) {
    return fail(ErrorCode::kVersionMismatch, "server: speaks protocol version " +
                                                 std::to_string(wire::kProtocolVersion) +
                                                 ", the client " + std::to_string(open.version));
  }
  const wire::ModelSummary ours = summary_of(engine.config(), fingerprint);
  if (open.model != ours) {
    return fail(ErrorCode::kModelMismatch,
                "server: runs " + describe(ours) + ", the client " + describe(open.model));
  }
  if (open.reply_mode == wire::ReplyMode::kToken &&
      (open.tail != ours.layer_count || !engine.part().head)) {
    return fail(ErrorCode::kUnsupported,
                "server: cannot choose tokens without the last layers and the head");
  }
  return {};
}

uint64_t kv_bytes(const engine::Engine& engine, const wire::Open& open, int64_t capacity) {
  return engine.info().kv_bytes_per_token_and_layer * uint64_t{open.tail - open.cut} *
         static_cast<uint64_t>(capacity);
}

Reply busy(milliseconds retry_after) {
  return {wire::Busy{static_cast<uint32_t>(retry_after.count())}, {}};
}

Reply failure(const Error& error) {
  return {wire::Failure{error.code, error.message}, {}};
}

Error draining() {
  return {ErrorCode::kDraining, "server: is about to stop, go on with another one"};
}

}  // namespace

/// Carries out one request; one overload per message. An empty result is answered later.
class SessionHost::Handler {
 public:
  using Outcome = Result<std::optional<Reply>>;

  Handler(SessionHost& host, const Ticket& ticket, std::vector<std::byte> payload)
      : host_(host), ticket_(ticket), payload_(std::move(payload)) {}

  Outcome operator()(const wire::Open& open);
  Outcome operator()(const wire::Step& step);
  Outcome operator()(const wire::Truncate& truncate);
  Outcome operator()(const wire::Close& close);
  Outcome operator()(const wire::Ping& ping);
  template <typename Other>
  Outcome operator()(const Other&) {
    return fail(ErrorCode::kCorrupt, "server: a reply came where a request was expected");
  }

 private:
  Result<Session*> find(uint64_t id) const;
  /// The answer to an open of a session that exists.
  Outcome reopen(Session& session, const wire::Open& open) const;
  wire::Opened opened(const Session& session) const;
  Outcome come_back(uint64_t session, milliseconds retry_after, std::string_view why) const;
  /// Puts a step or a truncation where its sequence number belongs.
  template <typename Request>
  Outcome enqueue(const Request& request);

  SessionHost& host_;
  const Ticket& ticket_;
  std::vector<std::byte> payload_;
};

SessionHost::Handler::Outcome SessionHost::Handler::operator()(const wire::Ping& ping) {
  if (ping.reply == wire::PingReply::kEcho) return Reply{wire::Pong{}, std::move(payload_)};
  if (ping.reply == wire::PingReply::kNothing) return Reply{wire::Pong{}, {}};
  const auto profile = std::as_bytes(std::span(host_.options_.profile));
  return Reply{wire::Pong{}, {profile.begin(), profile.end()}};
}

SessionHost::SessionHost(engine::Engine& engine, const model::Fingerprint& fingerprint,
                         ServerOptions options, const Clock& clock, Observer& observer)
    : engine_(engine),
      fingerprint_(fingerprint),
      options_(std::move(options)),
      clock_(clock),
      observer_(observer),
      admission_(options_.quotas),
      scheduler_(options_.batch, engine.info().positions_per_row) {
  if (const Status valid = options_.validate(); !valid)
    throw std::invalid_argument(valid.error().message);
}

SessionHost::~SessionHost() = default;

void SessionHost::receive(transport::Incoming request, Clock::TimePoint arrived) {
  Ticket ticket{.from = std::move(request.from), .arrived = arrived};
  bool opens = false;
  const Handler::Outcome outcome = [&]() -> Handler::Outcome {
    ISTHMUS_ASSIGN(const wire::Envelope envelope, wire::decode(request.message.envelope));
    ticket.request_id = envelope.request_id;
    opens = std::holds_alternative<wire::Open>(envelope.body);
    return guarded([&] {
      return std::visit(Handler(*this, ticket, std::move(request.message.payload)), envelope.body);
    });
  }();
  if (outcome) {
    if (*outcome) answer(ticket, **outcome);
    return;
  }
  observer_.on_event({.kind = opens ? Event::Kind::kRefused : Event::Kind::kFailed,
                      .code = outcome.error().code,
                      .client = ticket.from.public_key,
                      .detail = outcome.error().message});
  answer(ticket, failure(outcome.error()));
}

std::vector<Answer> SessionHost::take_answers() {
  return std::exchange(answers_, {});
}

void SessionHost::answer(const Ticket& ticket, const Reply& reply) {
  try {
    answers_.push_back(
        {ticket.from,
         {wire::encode({.request_id = ticket.request_id, .body = reply.body}), reply.payload}});
  } catch (const std::bad_alloc&) {
    return;  // like one that got lost on its way, it is the client's to ask for again
  }
}

uint64_t SessionHost::client_id(const std::string& key) {
  if (const auto known = clients_.find(key); known != clients_.end()) return known->second;
  if (clients_.size() >= kClientsRemembered + sessions_.size()) {
    std::erase_if(clients_, [&](const auto& entry) {
      const auto first = sessions_.lower_bound({entry.first, 0});
      if (first != sessions_.end() && first->first.first == entry.first) return false;
      admission_.forget(entry.second);
      return true;
    });
  }
  return clients_.emplace(key, next_client_++).first->second;
}

void SessionHost::expire_idle() {
  const Clock::TimePoint now = clock_.now();
  std::vector<Session*> idle;
  for (const auto& [name, session] : sessions_) {
    if (session->queue().empty() && now - session->last_used > options_.idle_timeout) {
      idle.push_back(session.get());
    }
  }
  for (Session* session : idle) end(*session, Event::Kind::kExpired);
  observer_.on_load({.sessions = admission_.sessions(),
                     .kv_bytes = admission_.kv_bytes(),
                     .waiting_steps = scheduler_.waiting(),
                     .waiting_rows = admission_.waiting_rows()});
}

Result<Session*> SessionHost::Handler::find(uint64_t id) const {
  // Another client's session looks exactly like one that does not exist.
  const auto found = host_.sessions_.find({ticket_.from.public_key, id});
  if (found == host_.sessions_.end()) {
    return fail(ErrorCode::kUnknownSession, "server: no such session");
  }
  found->second->last_used = host_.clock_.now();
  return found->second.get();
}

SessionHost::Handler::Outcome SessionHost::Handler::operator()(const wire::Open& open) {
  const std::string& key = ticket_.from.public_key;
  const auto known = host_.sessions_.find({key, open.session});
  if (known != host_.sessions_.end()) return reopen(*known->second, open);
  if (host_.draining_) return tl::unexpected<Error>(draining());
  ISTHMUS_TRY(check_open(open, host_.engine_, host_.fingerprint_));

  ISTHMUS_ASSIGN(const codec::CodecSpec codec, codec::CodecSpec::parse(open.codec_up));
  const SharedArtefact artefact = artefact::find(codec, host_.options_.artefacts);
  const int64_t prompt = artefact == nullptr ? 0 : artefact->soft_prompt().rows();
  const int64_t context = std::max<int64_t>(1, host_.engine_.config().context_length - prompt);
  const auto capacity = static_cast<int32_t>(
      std::min({int64_t{open.max_tokens}, int64_t{host_.options_.max_tokens}, context}));
  SessionOwner owner{.key = key,
                     .client = host_.client_id(key),
                     .lane = host_.next_lane_++,
                     .kv_bytes = kv_bytes(host_.engine_, open, capacity + prompt)};
  if (Status room = host_.admission_.admit_session(owner.client, owner.kv_bytes); !room) {
    if (!host_.options_.wait_when_full) return propagate(std::move(room));
    return come_back(0, kRetryOpenAfter, room.error().message);
  }
  // From here on the session's place must be given back if it cannot be made.
  auto made = Session::make(host_.engine_, host_.options_, open, artefact, capacity, owner);
  if (!made) {
    host_.admission_.release_session(owner.client, owner.kv_bytes);
    return propagate(std::move(made));
  }
  Session& session = **made;
  session.last_used = host_.clock_.now();
  host_.lanes_.emplace(owner.lane, &session);
  host_.sessions_.emplace(std::pair(key, open.session), std::move(*made));
  const std::string detail = "layers [" + std::to_string(open.cut) + ", " +
                             std::to_string(open.tail) + ") up " + open.codec_up + " for " +
                             std::to_string(capacity) + " tokens" +
                             (open.resumes ? ", resumes" : "");
  host_.observer_.on_event({.kind = Event::Kind::kOpened,
                            .session = open.session,
                            .resumes = open.resumes,
                            .client = key,
                            .detail = detail});
  return Reply{opened(session), {}};
}

wire::Opened SessionHost::Handler::opened(const Session& session) const {
  const engine::EngineInfo info = host_.engine_.info();
  return {.session = session.open().session,
          .max_tokens = static_cast<uint32_t>(session.capacity()),
          .max_step_tokens = static_cast<uint32_t>(host_.options_.max_step_tokens),
          .device = info.device,
          .precision = info.precision,
          .max_in_flight = static_cast<uint32_t>(host_.options_.max_in_flight)};
}

SessionHost::Handler::Outcome SessionHost::Handler::reopen(Session& session,
                                                           const wire::Open& open) const {
  if (session.queue().done() > 0 || !session.queue().empty() || session.open() != open) {
    return fail(ErrorCode::kInvalidArgument, "server: the session's number is in use");
  }
  session.last_used = host_.clock_.now();
  return Reply{opened(session), {}};
}

SessionHost::Handler::Outcome SessionHost::Handler::come_back(uint64_t session,
                                                              milliseconds retry_after,
                                                              std::string_view why) const {
  host_.observer_.on_event({.kind = Event::Kind::kBusy,
                            .code = ErrorCode::kBusy,
                            .session = session,
                            .client = ticket_.from.public_key,
                            .detail = why});
  return busy(retry_after);
}

SessionHost::Handler::Outcome SessionHost::Handler::operator()(const wire::Step& step) {
  return enqueue(step);
}

SessionHost::Handler::Outcome SessionHost::Handler::operator()(const wire::Truncate& truncate) {
  payload_.clear();
  return enqueue(truncate);
}

template <typename Request>
SessionHost::Handler::Outcome SessionHost::Handler::enqueue(const Request& request) {
  ISTHMUS_ASSIGN(Session* const session, find(request.session));
  StepQueue& queue = session->queue();
  switch (queue.place(request.sequence)) {
    case StepQueue::Place::kAnswered:
      return queue.kept(request.sequence);
    case StepQueue::Place::kWaiting:
      queue.redirect(request.sequence, ticket_);
      return std::nullopt;
    case StepQueue::Place::kOutOfOrder:
      return fail(ErrorCode::kOutOfOrder, "server: sequence " + std::to_string(request.sequence) +
                                              " after " + std::to_string(queue.done()));
    case StepQueue::Place::kHeldBack:
      return come_back(request.session, kRetryHeldBackAfter, "an earlier step was told so");
    case StepQueue::Place::kFull:
      queue.hold_back();
      return come_back(request.session, kRetryHeldBackAfter, "too many steps in flight");
    case StepQueue::Place::kNext:
      break;
  }
  if (host_.draining_) return tl::unexpected<Error>(draining());
  if constexpr (std::is_same_v<Request, wire::Step>) {
    ISTHMUS_TRY(session->check(request, payload_.size()));
    const auto wait = host_.admission_.admit_step(session->owner().client,
                                                  static_cast<int32_t>(request.token_count),
                                                  payload_.size(), ticket_.arrived);
    if (wait) {
      queue.hold_back();
      return come_back(request.session, *wait, "a queue or a quota is full");
    }
  } else {
    ISTHMUS_TRY(session->check(request));
  }
  if (queue.empty()) host_.forecast_.arrived(session->owner().lane, ticket_.arrived);
  queue.push({request, std::move(payload_), ticket_});
  if (&queue.head() == &queue.back()) {
    host_.advance(*session);
  } else {
    host_.schedule(*session);
  }
  return std::nullopt;
}

SessionHost::Handler::Outcome SessionHost::Handler::operator()(const wire::Close& close) {
  ISTHMUS_ASSIGN(Session* const session, find(close.session));
  host_.end(*session, Event::Kind::kClosed);
  return Reply{wire::Closed{.session = close.session}, {}};
}

}  // namespace isthmus::server
