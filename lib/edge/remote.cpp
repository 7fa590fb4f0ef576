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

milliseconds left_until(Clock::TimePoint deadline, Clock::TimePoint now) {
  // Rounded up, so that a wait never ends just before its deadline.
  return std::max(milliseconds(0), std::chrono::ceil<milliseconds>(deadline - now));
}

/// The error in an answer that is a failure; nothing otherwise.
Status status_of(const wire::Body& body) {
  if (const auto* failure = std::get_if<wire::Failure>(&body))
    return fail(failure->code, failure->message);
  return {};
}

/// Tokens the server holds once a step or a truncation has been carried out.
int32_t length_after(const wire::Body& request) {
  if (const auto* step = std::get_if<wire::Step>(&request)) {
    return static_cast<int32_t>(step->position + step->token_count);
  }
  return static_cast<int32_t>(std::get<wire::Truncate>(request).length);
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

template <typename Expected, typename P>
Result<Expected> expect(const P& answer) {
  ISTHMUS_TRY(status_of(answer.body));
  if (const auto* body = std::get_if<Expected>(&answer.body)) return *body;
  return fail(ErrorCode::kCorrupt, "edge: the server's answer is of another kind than the request");
}

}  // namespace

Remote::Remote(transport::Channel channel, const SessionOptions& options)
    : channel_(std::move(channel)),
      request_timeout_(options.request_timeout),
      reconnect_timeout_(options.reconnect_timeout) {}

Result<std::unique_ptr<Remote>> Remote::open(const transport::ChannelOptions& channel_options,
                                             const SessionOptions& options, wire::Open open) {
  ISTHMUS_ASSIGN(transport::Channel channel,
                 transport::Channel::connect(channel_options, options.connect_timeout));
  std::unique_ptr<Remote> remote(new Remote(std::move(channel), options));
  // The number is ours from here on: whatever happens, the destructor closes the session.
  do {
    remote->session_ = SystemRandom().next_u64();
  } while (remote->session_ == 0);
  open.session = remote->session_;
  ISTHMUS_ASSIGN(const Parcel answer, remote->call({open, {}}));
  ISTHMUS_ASSIGN(remote->opened_, expect<wire::Opened>(answer));
  if (remote->opened_.session != open.session || remote->opened_.max_tokens > open.max_tokens) {
    return fail(ErrorCode::kCorrupt, "edge: the server opened another session than asked for");
  }
  return remote;
}

Remote::~Remote() {
  const transport::Message close{
      wire::encode({.request_id = next_request_, .body = wire::Close{.session = session_}}), {}};
  // Best effort: a session that is not closed expires on the server.
  if (channel_.send(close)) (void)channel_.receive(kCloseWait);
}

Result<StepAnswer> Remote::step(wire::Step step, std::vector<std::byte> payload) {
  step.position = static_cast<uint32_t>(length_);
  ISTHMUS_ASSIGN(Parcel answer, call_in_sequence({step, std::move(payload)}));
  ISTHMUS_ASSIGN(const auto result, expect<wire::StepResult>(answer));
  return StepAnswer{result, std::move(answer.payload)};
}

Status Remote::truncate(int32_t length) {
  ISTHMUS_TRY(settle());
  if (length == length_) return {};
  ISTHMUS_ASSIGN(const Parcel answer,
                 call_in_sequence({wire::Truncate{.length = static_cast<uint32_t>(length)}, {}}));
  ISTHMUS_TRY(expect<wire::Truncated>(answer));
  return {};
}

Result<Remote::Parcel> Remote::call_in_sequence(Parcel request) {
  ISTHMUS_TRY(settle());
  const auto number = [&](auto& body) {
    if constexpr (requires {
                    body.sequence;
                    body.session;
                  }) {
      body.session = session_;
      body.sequence = sequence_ + 1;
    }
  };
  std::visit(number, request.body);
  in_doubt_ = std::move(request);
  return settle();
}

Result<Remote::Parcel> Remote::settle() {
  if (!in_doubt_) return Parcel{};
  ISTHMUS_ASSIGN(Parcel answer, call(*in_doubt_));
  const Parcel request = *std::exchange(in_doubt_, std::nullopt);
  if (std::holds_alternative<wire::Failure>(answer.body)) return answer;
  ISTHMUS_TRY(check_carried_out(request.body, answer.body));
  ++sequence_;
  length_ = length_after(request.body);
  return answer;
}

Result<Remote::Parcel> Remote::call(const Parcel& request) {
  const uint64_t id = next_request_++;
  const transport::Message message{wire::encode({.request_id = id, .body = request.body}),
                                   request.payload};
  Clock::TimePoint deadline = clock_.now() + request_timeout_;
  Error late{ErrorCode::kTimeout,
             "edge: no answer within " + std::to_string(request_timeout_.count()) + " ms"};
  const auto give_up_soon = [&](Error why) {
    deadline = std::min(deadline, clock_.now() + reconnect_timeout_);
    late = std::move(why);
  };
  if (!heard_) give_up_soon({ErrorCode::kServerLost, "edge: the connection has not come back"});

  ISTHMUS_TRY(channel_.send(message));
  while (clock_.now() < deadline) {
    Result<std::optional<transport::Message>> received =
        channel_.receive(left_until(deadline, clock_.now()));
    if (!received) {
      if (received.error().code != ErrorCode::kServerLost) return propagate(std::move(received));
      // Request or answer may have been lost with the connection; both sides bear a repetition.
      if (std::exchange(heard_, false)) give_up_soon(received.error());
      ISTHMUS_TRY(channel_.send(message));
      continue;
    }
    if (!*received) continue;
    heard_ = true;
    ISTHMUS_ASSIGN(wire::Envelope envelope, wire::decode((*received)->envelope));
    // A late answer to a request that was given up or repeated.
    if (envelope.request_id != id) continue;
    if (const auto* busy = std::get_if<wire::Busy>(&envelope.body)) {
      late = {ErrorCode::kBusy, "edge: the server is busy"};
      const auto pause =
          std::clamp(milliseconds(busy->retry_after_ms), kShortestPause, kLongestPause);
      std::this_thread::sleep_for(std::min(pause, left_until(deadline, clock_.now())));
      ISTHMUS_TRY(channel_.send(message));
      continue;
    }
    return Parcel{std::move(envelope.body), std::move((*received)->payload)};
  }
  return tl::unexpected<Error>(std::move(late));
}

}  // namespace isthmus::edge
