#include "device.h"

#include <isthmus/core/random.h>

#include <algorithm>
#include <deque>
#include <thread>

namespace isthmus::tools {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kPoll{200};  // how soon a stop is noticed

uint32_t milliseconds_of(std::chrono::nanoseconds time) {
  return static_cast<uint32_t>(std::chrono::ceil<milliseconds>(time).count());
}

}  // namespace

Outcome SimulatedDevice::serve(const Request& request, const std::atomic<bool>& stop) {
  Outcome outcome{.arrived = request.at};
  stop_ = &stop;
  deadline_ = clock_.now() + timeout_;
  const Status done = [&]() -> Status {
    ISTHMUS_ASSIGN(opened_, open(outcome));
    sequence_ = 0;
    position_ = 0;
    const auto room = static_cast<int32_t>(opened_.max_tokens);
    if (request.prompt_tokens + request.output_tokens - 1 > room)
      return fail(ErrorCode::kContextFull, "the server grants fewer tokens than the request has");
    ISTHMUS_TRY(advance(request.prompt_tokens, std::min(chunk_, opened_.max_step_tokens), outcome));
    for (int32_t i = 1; i < request.output_tokens; ++i) ISTHMUS_TRY(advance(1, 1, outcome));
    return {};
  }();
  if (!done) outcome.failed = done.error().code;
  close();
  return outcome;
}

Result<wire::Opened> SimulatedDevice::open(Outcome& outcome) {
  do {
    session_ = SystemRandom().next_u64();
  } while (session_ == 0);
  wire::Open open = recording_.open;
  open.session = session_;
  while (true) {
    const uint64_t id = next_request_++;
    ISTHMUS_TRY(channel_.send({wire::encode({.request_id = id, .body = open}), {}}));
    ISTHMUS_ASSIGN(const wire::Envelope answer, receive());
    if (answer.request_id != id) continue;
    if (const auto* opened = std::get_if<wire::Opened>(&answer.body)) return *opened;
    if (const auto* failure = std::get_if<wire::Failure>(&answer.body)) {
      return fail(failure->code, failure->message);
    }
    if (const auto* busy = std::get_if<wire::Busy>(&answer.body)) pause(*busy, outcome);
  }
}

void SimulatedDevice::close() {
  const uint64_t id = next_request_++;
  if (!channel_.send({wire::encode({.request_id = id, .body = wire::Close{session_}}), {}})) return;
  // Until the answer is here the session counts; but nobody waits for it for long.
  const Clock::TimePoint give_up = clock_.now() + milliseconds(500);
  while (clock_.now() < give_up) {
    const auto message = channel_.receive(kPoll);
    if (!message) return;
    if (!*message) continue;
    const auto envelope = wire::decode((*message)->envelope);
    if (envelope && envelope->request_id == id) return;
  }
}

Status SimulatedDevice::send(InFlight& request) {
  request.request_id = next_request_++;
  ISTHMUS_ASSIGN(std::vector<std::byte> payload,
                 recording_.codec->encode(recording_.rows.view().middle_rows(
                     request.step.position, request.step.token_count)));
  return channel_.send(
      {wire::encode({.request_id = request.request_id, .body = request.step}), std::move(payload)});
}

Result<wire::Envelope> SimulatedDevice::receive() {
  while (clock_.now() < deadline_) {
    if (*stop_) return fail(ErrorCode::kCancelled, "stopped");
    ISTHMUS_ASSIGN(const std::optional<transport::Message> message, channel_.receive(kPoll));
    if (message) return wire::decode(message->envelope);
  }
  return fail(ErrorCode::kTimeout, "no answer in time");
}

void SimulatedDevice::pause(const wire::Busy& busy, Outcome& outcome) {
  ++outcome.busy;
  // Jitter of up to as much again keeps those who were sent away together from coming back
  // together.
  const double jitter = counter_uniform(seed_, pauses_++);
  const milliseconds wait(std::clamp<uint32_t>(busy.retry_after_ms, 1, 5000));
  std::this_thread::sleep_for(
      std::chrono::duration_cast<std::chrono::microseconds>(wait * (1 + jitter)));
}

Status SimulatedDevice::advance(int32_t count, uint32_t width, Outcome& outcome) {
  const uint32_t end = position_ + static_cast<uint32_t>(count);
  std::deque<InFlight> waiting;
  uint32_t next = position_;
  while (position_ < end) {
    while (next < end && waiting.size() < opened_.max_in_flight) {
      const uint32_t rows = std::min(width, end - next);
      waiting.push_back({.step = {.session = session_,
                                  .sequence = sequence_ + waiting.size() + 1,
                                  .position = next,
                                  .token_count = rows,
                                  .wants_reply = next + rows == end,
                                  .reply_start = end,
                                  .timeout_ms = milliseconds_of(timeout_)}});
      ISTHMUS_TRY(send(waiting.back()));
      next += rows;
    }
    ISTHMUS_ASSIGN(const wire::Envelope answer, receive());
    const auto asked = std::find_if(waiting.begin(), waiting.end(), [&](const InFlight& request) {
      return request.request_id == answer.request_id;
    });
    if (asked == waiting.end()) continue;  // to a request that was repeated
    if (const auto* failure = std::get_if<wire::Failure>(&answer.body)) {
      return fail(failure->code, failure->message);
    }
    if (const auto* busy = std::get_if<wire::Busy>(&answer.body)) {
      pause(*busy, outcome);
      // Those behind it are told so too; all are sent again in order.
      for (auto again = asked; again != waiting.end(); ++again) ISTHMUS_TRY(send(*again));
      continue;
    }
    if (asked != waiting.begin() || !std::holds_alternative<wire::StepResult>(answer.body)) {
      return fail(ErrorCode::kCorrupt, "the server's answer is not the one that was due");
    }
    position_ += asked->step.token_count;
    ++sequence_;
    waiting.pop_front();
  }
  outcome.tokens.push_back(now());
  return {};
}

}  // namespace isthmus::tools
