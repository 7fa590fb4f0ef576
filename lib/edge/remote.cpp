#include "remote.h"

#include <isthmus/core/random.h>

#include <algorithm>
#include <array>
#include <thread>
#include <utility>

namespace isthmus::edge {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kCloseWait{200};
constexpr milliseconds kShortestPause{5};  // between repetitions to a busy server
constexpr milliseconds kLongestPause{1000};
constexpr milliseconds kFirstRetry{50};  // between rounds through servers that do not answer
constexpr uint32_t kMostStepRows = 128;  // servers that grant less are few, and all can take over
constexpr size_t kMostInFlight = 16;     // far below what a channel queues

milliseconds left_until(Clock::TimePoint deadline, Clock::TimePoint now) {
  // Rounded up, so that a wait never ends just before its deadline.
  return std::max(milliseconds(0), std::chrono::ceil<milliseconds>(deadline - now));
}

/// Whether another server, or a new session, can help. A key that was good when the session was
/// opened is refused by what stands in front of a server that has gone: a tunnel, a proxy.
bool is_lost(ErrorCode code) {
  return code == ErrorCode::kServerLost || code == ErrorCode::kTimeout ||
         code == ErrorCode::kUnknownSession || code == ErrorCode::kDraining ||
         code == ErrorCode::kKeyRefused;
}

/// The error in an answer that is a failure; nothing otherwise.
Status status_of(const wire::Body& body) {
  if (const auto* failure = std::get_if<wire::Failure>(&body))
    return fail(failure->code, failure->message);
  return {};
}

/// Whether an answer belongs to this very request and has the only outcome it can have. The server
/// is not trusted to be right about anything that the device computes with.
Status check_carried_out(const wire::Body& request, const wire::Body& answer) {
  const auto fields = [](const auto& body) -> std::array<uint64_t, 3> {
    if constexpr (requires {
                    body.session;
                    body.sequence;
                    body.length;
                  }) {
      return {body.session, body.sequence, body.length};
    } else if constexpr (requires {
                           body.session;
                           body.sequence;
                         }) {
      return {body.session, body.sequence, 0};
    } else {
      return {};
    }
  };
  std::array<uint64_t, 3> expected = std::visit(fields, request);
  expected[2] = static_cast<uint64_t>(length_after(request));
  const bool same_kind = std::holds_alternative<wire::Step>(request)
                             ? std::holds_alternative<wire::StepResult>(answer)
                             : std::holds_alternative<wire::Truncated>(answer);
  if (same_kind && std::visit(fields, answer) == expected) return {};
  return fail(ErrorCode::kCorrupt, "edge: the server's answer does not belong to the request");
}

template <typename Expected>
Result<Expected> expect(const wire::Body& answer) {
  ISTHMUS_TRY(status_of(answer));
  if (const auto* body = std::get_if<Expected>(&answer)) return *body;
  return fail(ErrorCode::kCorrupt, "edge: the server's answer is of another kind than the request");
}

int32_t chosen_token(const wire::Body& answer) {
  const auto* result = std::get_if<wire::StepResult>(&answer);
  return result == nullptr ? -1 : result->token;
}

/// Puts a request into a session, at a place in its order.
void number(wire::Body& body, uint64_t session, uint64_t sequence) {
  std::visit(
      [&](auto& b) {
        if constexpr (requires {
                        b.sequence;
                        b.session;
                      }) {
          b.session = session;
          b.sequence = sequence;
        }
      },
      body);
}

}  // namespace

Remote::Remote(std::vector<transport::ChannelOptions> servers, const SessionOptions& options,
               wire::Open open)
    : servers_(std::move(servers)),
      open_(std::move(open)),
      connect_timeout_(options.connect_timeout),
      request_timeout_(options.request_timeout),
      reconnect_timeout_(options.reconnect_timeout),
      resume_timeout_(options.resume_timeout),
      history_(options.history_bytes) {}

Result<std::unique_ptr<Remote>> Remote::open(std::vector<transport::ChannelOptions> servers,
                                             const SessionOptions& options, wire::Open open) {
  std::unique_ptr<Remote> remote(new Remote(std::move(servers), options, std::move(open)));
  const Patience patience{.handshake = options.connect_timeout,
                          .each = remote->share_of(options.request_timeout)};
  Result<wire::Opened> opened = remote->connect(0, patience);
  for (size_t next = 1; !opened && next < remote->servers_.size(); ++next)
    opened = remote->connect(next, patience);
  if (!opened) return propagate(std::move(opened));
  remote->opened_ = std::move(*opened);
  // Whoever takes over is to grant just as much: the device's caches have this size.
  remote->open_.max_tokens = remote->opened_.max_tokens;
  remote->opened_.max_step_tokens = std::min(remote->opened_.max_step_tokens, kMostStepRows);
  return remote;
}

Remote::~Remote() {
  leave();
}

void Remote::leave() {
  if (!channel_) return;
  // Best effort: a session that is not closed expires on the server.
  const Status sent = send_close(open_.session);
  if (back_by_ || !sent) {
    left_behind_.emplace_back(server_, open_.session);
  } else {
    (void)channel_->receive(kCloseWait);
  }
  earlier_sent_ += channel_->bytes_sent();
  earlier_received_ += channel_->bytes_received();
  channel_.reset();
}

Status Remote::send_close(uint64_t session) {
  return channel_->send(
      {wire::encode({.request_id = next_request_++, .body = wire::Close{.session = session}}), {}});
}

size_t Remote::window() const {
  return std::min<size_t>(opened_.max_in_flight, kMostInFlight);
}

milliseconds Remote::share_of(milliseconds timeout) const {
  return std::max(milliseconds(1), timeout / static_cast<int64_t>(servers_.size()));
}

Clock::TimePoint Remote::end_of(milliseconds wait, const Patience& patience) const {
  return std::min(clock_.now() + wait, patience.end);
}

Result<wire::Opened> Remote::connect(size_t server, const Patience& patience) {
  leave();
  const milliseconds handshake = left_until(end_of(patience.handshake, patience), clock_.now());
  ISTHMUS_ASSIGN(transport::Channel channel,
                 transport::Channel::connect(servers_[server], handshake));
  channel_.emplace(std::move(channel));
  back_by_.reset();
  server_ = server;
  carried_out_ = 0;
  history_.rewind();
  // First of all: they may have what the new one needs.
  std::erase_if(left_behind_, [&](const auto& left) {
    return left.first == server && send_close(left.second).has_value();
  });
  // The number is ours from here on: whatever happens, `leave` closes the session.
  do {
    open_.session = SystemRandom().next_u64();
  } while (open_.session == 0);
  Request request{.parcel = {open_, {}}};
  Request* const only = &request;
  ISTHMUS_TRY(await({&only, 1}, end_of(patience.each, patience)));
  ISTHMUS_ASSIGN(wire::Opened opened, expect<wire::Opened>(request.answer->body));
  if (opened.session != open_.session || opened.max_tokens > open_.max_tokens) {
    return fail(ErrorCode::kCorrupt, "edge: the server opened another session than asked for");
  }
  return opened;
}

uint64_t Remote::bytes_sent() const {
  return earlier_sent_ + (channel_ ? channel_->bytes_sent() : 0);
}

uint64_t Remote::bytes_received() const {
  return earlier_received_ + (channel_ ? channel_->bytes_received() : 0);
}

void Remote::send(wire::Step step, std::vector<std::byte> payload) {
  const size_t last = history_.size();
  step.position = static_cast<uint32_t>(
      history_.open() == 0 ? length_ : length_after(history_.at(last - 1).parcel.body));
  step.timeout_ms = static_cast<uint32_t>(request_timeout_.count());
  history_.push({.parcel = {step, std::move(payload)}});
  // What cannot be sent now is sent when its answer is waited for.
  if (channel_) (void)send_pending(open_window(history_.settled(), carried_out_ + 1));
}

Result<StepAnswer> Remote::receive() {
  ISTHMUS_ASSIGN(Parcel answer, settle_next());
  ISTHMUS_ASSIGN(const auto result, expect<wire::StepResult>(answer.body));
  return StepAnswer{result, std::move(answer.payload)};
}

Status Remote::truncate(int32_t length) {
  if (!channel_ && history_.is_complete()) {
    // Nobody holds the session: who takes over is told only of what is kept.
    history_.drop_open();
    if (length != length_) {
      history_.push({.parcel = {wire::Truncate{.length = static_cast<uint32_t>(length)}, {}}});
      history_.settle(-1);
      length_ = length;
    }
    // Before anything is computed, drawn and paid for that nobody would take.
    return resume({ErrorCode::kServerLost, "edge: the session has no server"},
                  clock_.now() + resume_timeout_);
  }
  while (is_waiting()) {
    // A request that was refused has not happened: all that matters is that it is settled.
    const Result<Parcel> settled = settle_next();
    if (!settled && is_waiting()) return fail(settled.error().code, settled.error().message);
  }
  if (length == length_) return {};
  history_.push({.parcel = {wire::Truncate{.length = static_cast<uint32_t>(length)}, {}}});
  ISTHMUS_ASSIGN(const Parcel answer, settle_next());
  ISTHMUS_TRY(expect<wire::Truncated>(answer.body));
  return {};
}

Result<Parcel> Remote::settle_next() {
  const size_t oldest = history_.settled();
  std::optional<Clock::TimePoint> deadline;  // one for all that take over and are lost again
  for (Status answered = await_oldest(); !answered; answered = await_oldest()) {
    if (!is_lost(answered.error().code)) return tl::unexpected<Error>(answered.error());
    if (!deadline) deadline = clock_.now() + resume_timeout_;
    ISTHMUS_TRY(resume(answered.error(), *deadline));
  }
  Parcel answer = std::move(*history_.at(oldest).answer);
  const wire::Body& request = history_.at(oldest).parcel.body;
  if (const Status outcome = check_carried_out(request, answer.body); !outcome) {
    history_.drop_open();  // not to be repeated: a liar would only lie again
    return tl::unexpected<Error>(outcome.error());
  }
  ++carried_out_;
  length_ = length_after(request);
  history_.settle(chosen_token(answer.body));
  // What was refused only because it came before its turn goes out again.
  for (size_t i = history_.settled(); i < history_.size(); ++i) {
    Request& next = history_.at(i);
    if (!next.answer || status_of(next.answer->body)) continue;
    next.answer.reset();
    next.id = 0;
  }
  return answer;
}

Status Remote::await_oldest() {
  if (!channel_) return fail(ErrorCode::kServerLost, "edge: the session has no server");
  const size_t oldest = history_.settled();
  ISTHMUS_TRY(await(open_window(oldest, carried_out_ + 1), clock_.now() + request_timeout_));
  Status answered = status_of(history_.at(oldest).answer->body);
  if (!answered && !is_lost(answered.error().code)) ISTHMUS_TRY(drop_refused());
  return answered;
}

Status Remote::drop_refused() {
  const Clock::TimePoint deadline = clock_.now() + request_timeout_;
  for (size_t behind = 1; behind < history_.open(); ++behind) {
    const auto requests = open_window(history_.settled() + behind, carried_out_ + 1 + behind);
    ISTHMUS_TRY(await(requests, deadline));
    if (status_of(requests.front()->answer->body))
      return fail(ErrorCode::kCorrupt, "edge: the server carried out a step behind one it refused");
  }
  history_.drop_open();
  return {};
}

Status Remote::resume(const Error& why, Clock::TimePoint deadline) {
  if (resume_timeout_.count() == 0 || !history_.is_complete()) {
    history_.rewind();  // what was answered with an error is asked anew
    return tl::unexpected<Error>(why);
  }
  const milliseconds each = std::min(request_timeout_, share_of(resume_timeout_));
  const Patience patience{
      .handshake = std::min(connect_timeout_, each), .each = each, .end = deadline};
  SystemRandom random;
  milliseconds pause = kFirstRetry;
  // One that does not answer would only be waited for once more.
  size_t server = why.code == ErrorCode::kTimeout ? after(server_) : server_;
  Error last = why;
  for (size_t tried = 1; clock_.now() < deadline; ++tried) {
    const Status replayed = replay(server, patience);
    if (replayed) {
      ++resumes_;
      return {};
    }
    last = replayed.error();
    server = after(server);
    if (tried % servers_.size() != 0) continue;
    // Between half the pause and all of it, so that clients of a lost server do not come back as
    // one.
    const auto jitter = milliseconds(random.next_u64() % static_cast<uint64_t>(pause.count()) / 2);
    std::this_thread::sleep_for(std::min(pause - jitter, left_until(deadline, clock_.now())));
    pause = std::min(2 * pause, kLongestPause);
  }
  leave();  // what was replayed to the last one is half a session
  return fail(why.code, why.message + "; no other session could take over: " + last.message);
}

Status Remote::replay(size_t server, const Patience& patience) {
  open_.resumes = true;
  ISTHMUS_ASSIGN(wire::Opened opened, connect(server, patience));
  if (opened.max_tokens < opened_.max_tokens || opened.max_step_tokens < opened_.max_step_tokens) {
    return fail(ErrorCode::kServerFull, "edge: the server granted less than the session has");
  }
  opened.max_step_tokens = opened_.max_step_tokens;
  opened_ = std::move(opened);
  for (size_t i = 0; i < history_.settled(); ++i) {
    ISTHMUS_TRY(await(open_window(i, i + 1), end_of(patience.each, patience)));
    Request& request = history_.at(i);
    ISTHMUS_TRY(status_of(request.answer->body));
    ISTHMUS_TRY(check_carried_out(request.parcel.body, request.answer->body));
    if (chosen_token(request.answer->body) != request.token) {
      return fail(ErrorCode::kModelMismatch,
                  "edge: the server chose another token than the one before it");
    }
    request.answer.reset();
    ++carried_out_;
  }
  return {};
}

std::vector<Request*> Remote::open_window(size_t index, uint64_t sequence) {
  std::vector<Request*> requests;
  const size_t end = std::min(history_.size(), index + window());
  for (size_t i = index; i < end; ++i) {
    requests.push_back(&history_.at(i));
    number(requests.back()->parcel.body, open_.session, sequence++);
  }
  return requests;
}

Status Remote::send_pending(std::span<Request* const> requests) {
  for (Request* request : requests) {
    if (request->id != 0 || request->answer) continue;
    const uint64_t id = next_request_++;
    ISTHMUS_TRY(channel_->send(
        {wire::encode({.request_id = id, .body = request->parcel.body}), request->parcel.payload}));
    request->id = id;
  }
  return {};
}

Status Remote::await(std::span<Request* const> requests, Clock::TimePoint deadline) {
  Status answered = exchange(requests, deadline);
  if (answered) return answered;
  // In doubt: before anything else happens they go out again.
  for (Request* request : requests) request->id = 0;
  return answered;
}

Status Remote::exchange(std::span<Request* const> requests, Clock::TimePoint deadline) {
  Error late{ErrorCode::kTimeout, "edge: no answer within " +
                                      std::to_string(left_until(deadline, clock_.now()).count()) +
                                      " ms"};
  Error lost{ErrorCode::kServerLost, "edge: the connection has not come back"};
  const auto send_again = [&] {
    for (Request* request : requests) request->id = 0;
    return send_pending(requests);
  };
  if (back_by_) back_by_ = clock_.now() + reconnect_timeout_;

  ISTHMUS_TRY(send_pending(requests));
  while (!requests.front()->answer && clock_.now() < deadline) {
    const Clock::TimePoint until = std::min(deadline, back_by_.value_or(deadline));
    Result<std::optional<transport::Message>> received =
        channel_->receive(left_until(until, clock_.now()));
    if (!received) {
      if (received.error().code != ErrorCode::kServerLost) return propagate(std::move(received));
      // Request or answer may have been lost with the connection; both sides bear a repetition.
      if (!back_by_) back_by_ = clock_.now() + reconnect_timeout_;
      lost = std::move(received.error());
      ISTHMUS_TRY(send_again());
      continue;
    }
    if (!*received) {
      if (!back_by_ || clock_.now() < *back_by_) continue;
      if (!channel_->is_connected()) break;
      back_by_.reset();  // it has come back, and the answer may take its time
      continue;
    }
    back_by_.reset();
    ISTHMUS_ASSIGN(const std::optional<milliseconds> busy, take(std::move(**received), requests));
    if (!busy) continue;
    late = {ErrorCode::kBusy, "edge: the server is busy"};
    std::this_thread::sleep_for(std::min(*busy, left_until(deadline, clock_.now())));
    ISTHMUS_TRY(send_again());
  }
  if (requests.front()->answer) return {};
  return tl::unexpected<Error>(std::move(channel_->is_connected() ? late : lost));
}

Result<std::optional<milliseconds>> Remote::take(transport::Message message,
                                                 std::span<Request* const> requests) {
  ISTHMUS_ASSIGN(wire::Envelope envelope, wire::decode(message.envelope));
  for (Request* request : requests) {
    if (request->id == 0 || request->id != envelope.request_id || request->answer) continue;
    if (const auto* busy = std::get_if<wire::Busy>(&envelope.body))
      return std::clamp(milliseconds(busy->retry_after_ms), kShortestPause, kLongestPause);
    request->answer = Parcel{std::move(envelope.body), std::move(message.payload)};
    break;
  }
  return std::optional<milliseconds>();  // or a late answer to what was given up or repeated
}

}  // namespace isthmus::edge
