// How the steps of a SessionHost's sessions are computed: together, a piece of each in every pass.
#include <isthmus/server/session_host.h>

#include <algorithm>
#include <span>
#include <utility>

#include "guarded.h"
#include "session.h"

namespace isthmus::server {
namespace {

constexpr int kPatience = 4;  // a pass is put off by at most one part in so many of its time

/// Nobody waits any more for a step whose deadline has passed.
Status check_in_time(const Waiting& request, Clock::TimePoint now) {
  if (!request.expires || now <= *request.expires) return {};
  return fail(ErrorCode::kTimeout,
              "server: the step was not begun within the " +
                  std::to_string(std::get<wire::Step>(request.body).timeout_ms) +
                  " ms that its client waits");
}

/// What the engine makes of each slice. A batch that there is no memory for is computed slice by
/// slice, so that nobody fails for what others need; on an error the engine has changed no cache.
std::vector<Result<Matrix>> forward_each(engine::Engine& engine,
                                         std::span<const engine::Slice> slices) {
  std::vector<Result<Matrix>> results;
  results.reserve(slices.size());
  Result<std::vector<Matrix>> outputs = engine.forward(slices);
  if (outputs) {
    for (Matrix& output : *outputs) results.emplace_back(std::move(output));
    return results;
  }
  const bool too_many = outputs.error().code == ErrorCode::kOutOfMemory && slices.size() > 1;
  for (const engine::Slice& slice : slices) {
    if (too_many) outputs = engine.forward({&slice, 1});
    if (outputs) {
      results.emplace_back(std::move(outputs->front()));
    } else {
      results.push_back(tl::unexpected<Error>(outputs.error()));
    }
  }
  return results;
}

}  // namespace

bool SessionHost::run_batch() {
  const int32_t meanwhile = rows_meanwhile(expected_soon());
  const std::vector<scheduler::Piece> plan =
      meanwhile > 0 ? scheduler_.next_prompts(meanwhile)
                    : scheduler_.next_batch(forecast_.expects_any(clock_.now()));
  std::vector<scheduler::Piece> pieces;
  std::vector<engine::Slice> slices;
  size_t rows = 0;
  for (scheduler::Piece piece : plan) {
    Session& session = *lanes_.at(piece.lane);
    const Result<int32_t> ready = begin(session, piece.count);
    if (!ready) {
      fail_head(session, ready.error());
      continue;
    }
    if (*ready < piece.count) {
      unschedule(session);
      piece.count = *ready;
      piece.last = true;
    }
    pieces.push_back(piece);
    slices.push_back(session.slice(piece.count));
    rows += static_cast<size_t>(piece.count);
  }
  if (pieces.empty()) return !plan.empty();

  const Clock::TimePoint start = clock_.now();
  std::vector<Result<Matrix>> outputs = forward_each(engine_, slices);
  const std::chrono::nanoseconds time = clock_.now() - start;
  note_pass(pieces, rows, time);
  if (meanwhile == 0) last_pass_ = time;
  for (size_t i = 0; i < pieces.size(); ++i) {
    Session& session = *lanes_.at(pieces[i].lane);
    if (!outputs[i]) {
      fail_head(session, outputs[i].error());
      continue;
    }
    session.absorb(pieces[i].count, std::move(*outputs[i]), time);
    while (session.head_computed()) finish(session);
  }
  return true;
}

Result<int32_t> SessionHost::begin(Session& session, int32_t rows) {
  if (!session.begun()) ISTHMUS_TRY(check_in_time(session.queue().head(), clock_.now()));
  return session.begin(rows, clock_);
}

void SessionHost::note_pass(std::span<const scheduler::Piece> pieces, size_t rows,
                            std::chrono::nanoseconds time) {
  const bool brief = std::all_of(pieces.begin(), pieces.end(), [&](const auto& piece) {
    return piece.first == 0 && piece.last && piece.count <= options_.batch.short_rows();
  });
  if (brief) pass_times_.note(pieces.size(), time);
  admission_.note_speed(static_cast<int64_t>(rows), time);
  observer_.on_batch({.steps = pieces.size(), .rows = rows, .time = time});
}

std::chrono::nanoseconds SessionHost::worth_waiting() const {
  const scheduler::ReturnForecast::Wait wait = expected_soon();
  return rows_meanwhile(wait) > 0 ? std::chrono::nanoseconds(0) : wait.longest;
}

int32_t SessionHost::rows_meanwhile(const scheduler::ReturnForecast::Wait& wait) const {
  const double next = scheduler_.next_prompt_row();
  // No prompt, or nothing is known of this engine's passes yet.
  if (next == 0 || pass_times_.expected(1).count() == 0) return 0;
  // Not all of it: how long they are away is learnt from those that come while nothing is computed.
  const std::chrono::nanoseconds time = wait.usual * 3 / 4;
  int32_t rows = 0;
  while (rows < options_.batch.token_budget && pass_times_.expected(rows + 1) <= time) ++rows;
  return next <= rows ? rows : 0;
}

scheduler::ReturnForecast::Wait SessionHost::expected_soon() const {
  const auto ready = static_cast<int64_t>(scheduler_.waiting());
  const std::chrono::nanoseconds longest = last_pass_ / kPatience;
  return forecast_.worth_waiting(clock_.now(), [&](size_t missing) {
    const auto absent = static_cast<int64_t>(missing);
    // A prompt takes the room that they leave, so the pass that they miss is none the shorter.
    const std::chrono::nanoseconds loss =
        scheduler_.prompt_waits() ? last_pass_ * absent / (ready + absent)
                                  : pass_times_.saved_together(scheduler_.waiting(), missing);
    return std::min(loss, longest);
  });
}

void SessionHost::finish(Session& session) {
  Result<Session::Finished> finished = guarded([&] { return session.finish(clock_); });
  if (!finished) return fail_head(session, finished.error());
  observer_.on_step(finished->report);
  admission_.release_step(session.owner().client, static_cast<int32_t>(finished->report.rows));
  session.last_used = clock_.now();
  answer(session.queue().head().ticket, finished->reply);
  session.queue().complete_head(std::move(finished->reply));
  advance(session);
  if (session.queue().empty()) forecast_.answered(session.owner().lane, session.last_used);
}

void SessionHost::advance(Session& session) {
  StepQueue& queue = session.queue();
  while (!queue.empty()) {
    if (std::holds_alternative<wire::Step>(queue.head().body)) {
      queue.head().wait_from(clock_.now());
      schedule(session);
      return;
    }
    Result<Reply> reply = session.truncate();
    if (!reply) return fail_head(session, reply.error());
    answer(queue.head().ticket, *reply);
    queue.complete_head(std::move(*reply));
  }
}

void SessionHost::schedule(Session& session) {
  const SessionOwner& owner = session.owner();
  const wire::Step* previous = nullptr;
  for (Waiting& request : session.queue().waiting()) {
    const auto* step = std::get_if<wire::Step>(&request.body);
    if (step == nullptr) return;
    if (!request.scheduled) {
      const int32_t rows = session.computed_rows(*step);
      if (previous == nullptr) {
        scheduler_.submit(owner.lane, owner.client, rows, static_cast<int32_t>(step->position));
      } else if (!session.runs_on(*previous) || !scheduler_.extend(owner.lane, rows)) {
        return;
      }
      request.scheduled = true;
    }
    previous = step;
  }
}

void SessionHost::unschedule(Session& session) {
  scheduler_.cancel(session.owner().lane);
  std::deque<Waiting>& waiting = session.queue().waiting();
  for (size_t i = session.begun_steps(); i < waiting.size(); ++i) waiting[i].scheduled = false;
}

void SessionHost::fail_head(Session& session, const Error& error) {
  scheduler_.cancel(session.owner().lane);
  session.roll_back();
  observer_.on_event({.kind = Event::Kind::kFailed,
                      .code = error.code,
                      .session = session.open().session,
                      .client = session.owner().key,
                      .detail = error.message});
  drop_waiting(session, error,
               {ErrorCode::kOutOfOrder, "server: a step that this one builds on has failed"});
}

void SessionHost::drop_waiting(Session& session, const Error& first, const Error& others) {
  const Error* error = &first;
  for (const Waiting& request : session.queue().drop_all()) {
    if (const auto* step = std::get_if<wire::Step>(&request.body)) {
      admission_.release_step(session.owner().client, static_cast<int32_t>(step->token_count));
    }
    answer(request.ticket, {wire::Failure{error->code, error->message}, {}});
    error = &others;
  }
}

void SessionHost::end(Session& session, Event::Kind why) {
  const SessionOwner owner = session.owner();
  const Error ended{ErrorCode::kCancelled, "server: the session was closed"};
  scheduler_.cancel(owner.lane);
  drop_waiting(session, ended, ended);
  observer_.on_event({.kind = why, .session = session.open().session, .client = owner.key});
  admission_.release_session(owner.client, owner.kv_bytes);
  forecast_.forget(owner.lane);
  lanes_.erase(owner.lane);
  sessions_.erase({owner.key, session.open().session});
}

}  // namespace isthmus::server
