// One session on a server: requests, repetitions, deadlines, and the state both sides agree on.
#pragma once

#include <isthmus/core/clock.h>
#include <isthmus/core/error.h>
#include <isthmus/edge/device.h>
#include <isthmus/transport/channel.h>
#include <isthmus/wire/messages.h>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace isthmus::edge {

/// An answer to a step, and its payload.
struct StepAnswer {
  wire::StepResult result;
  std::vector<std::byte> payload;
};

/// The client's end of one server session. A request whose answer never came is in doubt: before
/// anything else is asked, the very same bytes are sent again, and the server, which answers a
/// repetition with its stored answer, settles it.
class Remote {
 public:
  /// Connects and opens a session; its number is drawn here.
  [[nodiscard]] static Result<std::unique_ptr<Remote>> open(
      const transport::ChannelOptions& channel, const SessionOptions& options, wire::Open open);

  /// Closes the session on the server; waits for the answer only briefly.
  ~Remote();
  Remote(const Remote&) = delete;
  Remote& operator=(const Remote&) = delete;

  /// Sends the next rows; session, sequence and position are filled in here.
  [[nodiscard]] Result<StepAnswer> step(wire::Step step, std::vector<std::byte> payload);
  [[nodiscard]] Status truncate(int32_t length);

  [[nodiscard]] const wire::Opened& opened() const { return opened_; }
  /// Tokens the server holds, as far as its answers tell.
  [[nodiscard]] int32_t length() const { return length_; }
  [[nodiscard]] uint64_t bytes_sent() const { return channel_.bytes_sent(); }
  [[nodiscard]] uint64_t bytes_received() const { return channel_.bytes_received(); }

 private:
  /// A message body with its payload: a request, or the answer to one.
  struct Parcel {
    wire::Body body;
    std::vector<std::byte> payload;
  };

  Remote(transport::Channel channel, const SessionOptions& options);

  /// Sends a request that carries the next sequence number, after settling one that is in doubt.
  Result<Parcel> call_in_sequence(Parcel request);
  /// Repeats the request that is in doubt, if there is one, until it is answered.
  Result<Parcel> settle();
  /// Sends a request until its answer comes, which may be a wire::Failure, or its deadline passes.
  Result<Parcel> call(const Parcel& request);

  transport::Channel channel_;
  std::chrono::milliseconds request_timeout_;
  std::chrono::milliseconds reconnect_timeout_;
  SteadyClock clock_;
  uint64_t session_ = 0;
  wire::Opened opened_;
  uint64_t next_request_ = 1;
  uint64_t sequence_ = 0;  // of the last request that was answered
  int32_t length_ = 0;
  std::optional<Parcel> in_doubt_;
  bool heard_ = true;  // something came in since the connection last broke
};

}  // namespace isthmus::edge
