// The server's side of the protocol without its sockets: requests in, passes over the layers,
// answers out.
//
// Everything a client sends is treated as hostile. A session belongs to the key that opened it.
// Steps are idempotent: the answers to the last ones are kept and given again when one is repeated.
#pragma once

#include <isthmus/core/clock.h>
#include <isthmus/core/error.h>
#include <isthmus/engine/engine.h>
#include <isthmus/model/fingerprint.h>
#include <isthmus/scheduler/admission.h>
#include <isthmus/scheduler/batch_scheduler.h>
#include <isthmus/scheduler/pass_times.h>
#include <isthmus/scheduler/return_forecast.h>
#include <isthmus/server/observer.h>
#include <isthmus/server/options.h>
#include <isthmus/transport/channel.h>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace isthmus::server {

class Session;
struct Reply;
struct Ticket;

/// An answer and where it goes.
struct Answer {
  transport::Peer to;
  transport::Message message;
};

/// All sessions of a server, over one engine. Not thread-safe. Borrows engine, clock and observer,
/// which must outlive it.
class SessionHost {
 public:
  /// `fingerprint` is that of the engine's model; clients of another one are refused.
  /// \throws std::invalid_argument when `options` are not valid.
  SessionHost(engine::Engine& engine, const model::Fingerprint& fingerprint, ServerOptions options,
              const Clock& clock, Observer& observer);
  ~SessionHost();
  SessionHost(const SessionHost&) = delete;
  SessionHost& operator=(const SessionHost&) = delete;

  /// Takes in one request. Its answer is among `take_answers` now, or after some `run_batch`.
  void receive(transport::Incoming request, Clock::TimePoint arrived);

  /// All that had come by now has been received: what is received next came after.
  void caught_up() { forecast_.caught_up(clock_.now()); }

  /// One pass over the layers for all sessions that have something to compute; or, while others are
  /// worth waiting for, one with a piece of a prompt that is done before they are here. \returns
  /// whether there was anything.
  bool run_batch();

  /// How long the next pass is worth putting off for requests that are probably on their way.
  [[nodiscard]] std::chrono::nanoseconds worth_waiting() const;

  /// The answers that have become ready since the last call, those to one client in the order in
  /// which they became so.
  [[nodiscard]] std::vector<Answer> take_answers();

  /// From now on only what is queued is finished: new sessions and new steps get kDraining.
  void drain() { draining_ = true; }

  /// Closes sessions that have been idle too long, and tells the observer what the others hold. To
  /// be called several times a second.
  void expire_idle();

  /// Steps that wait for their answers.
  [[nodiscard]] size_t waiting_steps() const { return scheduler_.waiting(); }
  [[nodiscard]] const scheduler::Admission& admission() const { return admission_; }
  [[nodiscard]] size_t session_count() const { return sessions_.size(); }

 private:
  class Handler;

  void answer(const Ticket& ticket, const Reply& reply);
  /// Numbers a client for scheduler and quotas.
  uint64_t client_id(const std::string& key);

  /// Sessions that decode and are worth waiting for.
  [[nodiscard]] scheduler::ReturnForecast::Wait expected_soon() const;
  /// How many rows of prompts are computed before those are here.
  [[nodiscard]] int32_t rows_meanwhile(const scheduler::ReturnForecast::Wait& wait) const;
  /// Makes a session's next rows ready. \returns how many are: fewer than `rows` when a step behind
  /// the head cannot be begun.
  [[nodiscard]] Result<int32_t> begin(Session& session, int32_t rows);
  /// Learns from a pass and tells the observer of it.
  void note_pass(std::span<const scheduler::Piece> pieces, size_t rows,
                 std::chrono::nanoseconds time);
  /// Answers the step at the head of the queue, all of whose pieces have been computed.
  void finish(Session& session);
  /// Answers the step at the head of the queue with an error, and those behind it, which build on
  /// it, as out of order.
  void fail_head(Session& session, const Error& error);
  /// Carries out truncations at the head of the queue and hands the next steps to the scheduler.
  void advance(Session& session);
  /// Hands the scheduler the step at the head and those behind it that may share a pass with it.
  void schedule(Session& session);
  /// Takes back all that a pass over what is ready will leave: the steps that have not been begun.
  void unschedule(Session& session);
  /// Answers all that waits with errors; nothing of it has happened.
  void drop_waiting(Session& session, const Error& first, const Error& others);
  /// Answers everything that waits with an error and frees all that the session holds.
  void end(Session& session, Event::Kind why);

  engine::Engine& engine_;
  model::Fingerprint fingerprint_;
  ServerOptions options_;
  const Clock& clock_;
  Observer& observer_;
  scheduler::Admission admission_;
  scheduler::BatchScheduler scheduler_;
  scheduler::ReturnForecast forecast_;
  scheduler::PassTimes pass_times_;
  std::chrono::nanoseconds last_pass_{0};  // that was not computed meanwhile
  bool draining_ = false;
  uint64_t next_lane_ = 1;
  uint64_t next_client_ = 1;
  std::map<std::string, uint64_t> clients_;
  /// A session is named by its client's key and the number the client drew.
  std::map<std::pair<std::string, uint64_t>, std::unique_ptr<Session>> sessions_;
  std::map<uint64_t, Session*> lanes_;
  std::vector<Answer> answers_;
};

}  // namespace isthmus::server
