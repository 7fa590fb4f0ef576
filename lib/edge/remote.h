// One session, on whichever of its servers is there: requests, repetitions, deadlines, and moving
// on to another server.
#pragma once

#include <isthmus/core/clock.h>
#include <isthmus/core/error.h>
#include <isthmus/edge/device.h>
#include <isthmus/transport/channel.h>
#include <isthmus/wire/messages.h>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "history.h"

namespace isthmus::edge {

/// An answer to a step, and its payload.
struct StepAnswer {
  wire::StepResult result;
  std::vector<std::byte> payload;
};

/// The client's end of a session. Several steps may be under way; answers come in their order.
///
/// A request whose answer never came is in doubt: before anything else is asked, the very same
/// bytes are sent again, and the server, which answers a repetition with its stored answer, settles
/// it. When the server is lost, a session is opened on the next one that answers, and the very same
/// bytes bring it to the same state.
class Remote {
 public:
  /// Opens a session on the first of `servers` that can be connected to; its number is drawn here.
  [[nodiscard]] static Result<std::unique_ptr<Remote>> open(
      std::vector<transport::ChannelOptions> servers, const SessionOptions& options,
      wire::Open open);

  /// Closes the session on the server; waits for the answer only briefly.
  ~Remote();
  Remote(const Remote&) = delete;
  Remote& operator=(const Remote&) = delete;

  /// Whether another step may be sent before an answer is received.
  [[nodiscard]] bool can_send() const { return history_.open() < window(); }
  [[nodiscard]] bool is_waiting() const { return history_.open() > 0; }
  /// Sends the next rows; session, sequence and position are filled in here.
  void send(wire::Step step, std::vector<std::byte> payload);
  /// Waits for the answer to the oldest step that has none. After a failure of the server, the
  /// steps behind it have not happened either.
  [[nodiscard]] Result<StepAnswer> receive();
  /// Settles what is in doubt, and forgets positions [length, ...). A session that has lost its
  /// server forgets first and is resumed then.
  [[nodiscard]] Status truncate(int32_t length);

  /// What was granted. A step may have `max_step_tokens` rows on whichever server: no more than
  /// 128.
  [[nodiscard]] const wire::Opened& opened() const { return opened_; }
  /// Tokens the server holds, as far as its answers tell.
  [[nodiscard]] int32_t length() const { return length_; }
  [[nodiscard]] uint64_t bytes_sent() const;
  [[nodiscard]] uint64_t bytes_received() const;
  /// How often another session had to take over.
  [[nodiscard]] uint64_t resumes() const { return resumes_; }

 private:
  Remote(std::vector<transport::ChannelOptions> servers, const SessionOptions& options,
         wire::Open open);

  [[nodiscard]] size_t window() const;

  /// How long a server is waited for.
  struct Patience {
    std::chrono::milliseconds handshake;
    std::chrono::milliseconds each;  ///< for each of its answers
    Clock::TimePoint end = Clock::TimePoint::max();
  };
  /// What one server may use up of a time in which each of them is to get a try.
  [[nodiscard]] std::chrono::milliseconds share_of(std::chrono::milliseconds timeout) const;
  /// When a wait that begins now ends.
  [[nodiscard]] Clock::TimePoint end_of(std::chrono::milliseconds wait,
                                        const Patience& patience) const;
  [[nodiscard]] size_t after(size_t server) const { return (server + 1) % servers_.size(); }

  /// Connects to a server and opens a session there, to which everything is to be sent anew.
  Result<wire::Opened> connect(size_t server, const Patience& patience);
  /// Ends the session on a server that still answers, as far as can be told; on one that does not,
  /// when it is connected to again.
  void leave();
  Status send_close(uint64_t session);
  /// Brings a new session on one of the servers to the state of the lost one. \returns `why` when
  /// that cannot be done by `deadline`.
  Status resume(const Error& why, Clock::TimePoint deadline);
  Status replay(size_t server, const Patience& patience);

  /// Waits for the oldest open request and settles it, on whichever server.
  Result<Parcel> settle_next();
  /// Waits for the answer to the oldest open request. \returns the server's error when it refuses;
  /// then nothing is open any more.
  Status await_oldest();
  /// The oldest open request was refused: those behind it must have been refused too.
  Status drop_refused();
  /// The request at `index` and those behind it that may be under way with it, numbered from
  /// `sequence` on.
  std::vector<Request*> open_window(size_t index, uint64_t sequence);
  /// Sends those of `requests` that have to go out, and waits until the first has its answer, which
  /// may be a wire::Failure. All of them have to go out again if that fails.
  Status await(std::span<Request* const> requests, Clock::TimePoint deadline);
  Status exchange(std::span<Request* const> requests, Clock::TimePoint deadline);
  Status send_pending(std::span<Request* const> requests);
  /// Takes in one message. \returns how long to wait before everything is sent again, if it says
  /// so.
  Result<std::optional<std::chrono::milliseconds>> take(transport::Message message,
                                                        std::span<Request* const> requests);

  std::vector<transport::ChannelOptions> servers_;
  size_t server_ = 0;  // the one in use
  wire::Open open_;
  std::chrono::milliseconds connect_timeout_;
  std::chrono::milliseconds request_timeout_;
  std::chrono::milliseconds reconnect_timeout_;
  std::chrono::milliseconds resume_timeout_;
  SteadyClock clock_;
  std::optional<transport::Channel> channel_;
  // Set while the connection is broken, or has only just come back: until when to wait for it.
  std::optional<Clock::TimePoint> back_by_;
  // Sessions that could not be closed, and their servers.
  std::vector<std::pair<size_t, uint64_t>> left_behind_;
  wire::Opened opened_;
  uint64_t next_request_ = 1;
  uint64_t carried_out_ = 0;  // requests in this session on this server
  int32_t length_ = 0;
  History history_;
  uint64_t resumes_ = 0;
  uint64_t earlier_sent_ = 0;  // bytes, over channels that were given up
  uint64_t earlier_received_ = 0;
};

}  // namespace isthmus::edge
