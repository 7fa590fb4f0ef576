// What Channel and Listener share: frames, deadlines, and the one place where libzmq's exceptions
// become Isthmus errors.
#pragma once

#include <isthmus/transport/channel.h>
#include <algorithm>
#include <chrono>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <zmq.hpp>

namespace isthmus::transport {

/// Encryption adds this to each frame (ZeroMQ RFC 26, MESSAGE command).
inline constexpr size_t kCurveOverheadBytes = 33;
/// How long a closed socket may still deliver what it was given, such as a last answer.
inline constexpr int kLingerMs = 250;
/// A handshake takes two round trips; a peer that needs longer than this is not talking to us.
inline constexpr int kHandshakeMs = 10'000;

class Deadline {
 public:
  /// A timeout of more than a year counts as a year.
  explicit Deadline(std::chrono::milliseconds timeout)
      : end_(std::chrono::steady_clock::now() +
             std::min<std::chrono::milliseconds>(timeout, std::chrono::years(1))) {}
  /// Rounded up, so that waiting this long reaches the deadline; never negative.
  [[nodiscard]] std::chrono::milliseconds remaining() const;
  [[nodiscard]] bool passed() const { return std::chrono::steady_clock::now() >= end_; }

 private:
  std::chrono::steady_clock::time_point end_;
};

/// \returns kInvalidArgument when the frame limit or the silence limit is out of its range.
[[nodiscard]] Status check_limits(size_t max_frame_bytes, std::chrono::milliseconds max_silence);

/// What a frame limit of so many bytes comes to: handshakes and envelopes always pass.
[[nodiscard]] size_t frame_limit(size_t max_frame_bytes);

/// Sets what both ends have in common.
void set_limits(zmq::socket_t& socket, size_t max_frame_bytes,
                std::chrono::milliseconds max_silence, bool encrypted);

/// Takes one frame if there is one. Never blocks.
[[nodiscard]] bool take_frame(zmq::socket_t& socket, zmq::message_t& frame);

/// Puts a whole message, behind a routing id if there is one; false when there is no room for it.
/// Never blocks. \throws zmq::error_t; then nothing of the message was put.
[[nodiscard]] bool put_message(zmq::socket_t& socket, const Message& message,
                               std::optional<std::string_view> routing_id = std::nullopt);

/// Waits until one of the sockets is readable. False when the deadline or a signal came first.
[[nodiscard]] bool wait_readable(std::initializer_list<zmq::socket_t*> sockets,
                                 const Deadline& deadline);

/// The frames of one message after any routing id; all are taken, whatever becomes of them.
struct Frames {
  /// kCorrupt when there were not one or two, all within the limit; kOutOfMemory.
  Result<Message> message;
  std::string user_id;  ///< what the authenticator calls the sender; empty without encryption
  int fd = -1;          ///< the connection's; may be closed by now
  size_t count = 0;
  size_t bytes = 0;
};
/// Takes one message, or nothing when there is none. Never blocks.
[[nodiscard]] std::optional<Frames> take_message(zmq::socket_t& socket, size_t max_frame_bytes);

/// kOutOfMemory where libzmq ran out of memory or descriptors, otherwise kIo.
[[nodiscard]] tl::unexpected<Error> zmq_failure(const char* what, const zmq::error_t& error);

}  // namespace isthmus::transport
