#include "sockets.h"

#include <algorithm>
#include <cerrno>

namespace isthmus::transport {
namespace {

using std::chrono::milliseconds;

constexpr size_t kMinFrameBytes = 8192;
constexpr size_t kMaxFrameBytes = 1UL << 30U;
constexpr milliseconds kMinSilence{100};
constexpr milliseconds kMaxSilence{600'000};
constexpr int kPingsPerSilence = 4;
constexpr const char* kUserId = "User-Id";  // a property of what an authenticated peer sends

std::vector<std::byte> bytes_of(const zmq::message_t& frame) {
  const auto* data = frame.data<std::byte>();
  return {data, data + frame.size()};
}

/// Repeats a call that a signal interrupted.
template <typename Call>
auto uninterrupted(Call call) {
  while (true) {
    try {
      return call();
    } catch (const zmq::error_t& error) {
      if (error.num() != EINTR) throw;
    }
  }
}

}  // namespace

milliseconds Deadline::remaining() const {
  const auto left = end_ - std::chrono::steady_clock::now();
  return std::max(milliseconds(0), std::chrono::ceil<milliseconds>(left));
}

Status check_limits(size_t max_frame_bytes, milliseconds max_silence) {
  if (max_frame_bytes > kMaxFrameBytes) {
    return fail(ErrorCode::kInvalidArgument,
                "transport: max_frame_bytes is " + std::to_string(max_frame_bytes) +
                    ", the limit is " + std::to_string(kMaxFrameBytes));
  }
  if (max_silence < kMinSilence || max_silence > kMaxSilence) {
    return fail(ErrorCode::kInvalidArgument,
                "transport: max_silence is " + std::to_string(max_silence.count()) +
                    " ms, allowed are " + std::to_string(kMinSilence.count()) + " to " +
                    std::to_string(kMaxSilence.count()));
  }
  return {};
}

size_t frame_limit(size_t max_frame_bytes) {
  return std::max(max_frame_bytes, kMinFrameBytes);
}

void set_limits(zmq::socket_t& socket, size_t max_frame_bytes, milliseconds max_silence,
                bool encrypted) {
  const size_t on_the_wire = frame_limit(max_frame_bytes) + (encrypted ? kCurveOverheadBytes : 0);
  const auto silence_ms = static_cast<int>(max_silence.count());
  socket.set(zmq::sockopt::maxmsgsize, static_cast<int64_t>(on_the_wire));
  socket.set(zmq::sockopt::linger, kLingerMs);
  socket.set(zmq::sockopt::handshake_ivl, kHandshakeMs);
  socket.set(zmq::sockopt::heartbeat_ivl, silence_ms / kPingsPerSilence);
  socket.set(zmq::sockopt::heartbeat_timeout, silence_ms);
}

bool take_frame(zmq::socket_t& socket, zmq::message_t& frame) {
  return uninterrupted([&] { return socket.recv(frame, zmq::recv_flags::dontwait).has_value(); });
}

bool put_frame(zmq::socket_t& socket, zmq::message_t frame, bool more) {
  const auto flags =
      more ? zmq::send_flags::dontwait | zmq::send_flags::sndmore : zmq::send_flags::dontwait;
  return uninterrupted([&] { return socket.send(frame, flags).has_value(); });
}

bool put_message(zmq::socket_t& socket, const Message& message) {
  const auto frame = [](const std::vector<std::byte>& bytes) {
    return zmq::message_t(bytes.data(), bytes.size());
  };
  const bool has_payload = !message.payload.empty();
  // Once the first frame is taken, libzmq has room for the rest of the message.
  if (!put_frame(socket, frame(message.envelope), has_payload)) return false;
  return !has_payload || put_frame(socket, frame(message.payload), false);
}

bool wait_readable(std::initializer_list<zmq::socket_t*> sockets, const Deadline& deadline) {
  std::vector<zmq::pollitem_t> items;
  for (zmq::socket_t* socket : sockets) items.push_back({socket->handle(), 0, ZMQ_POLLIN, 0});
  try {
    return zmq::poll(items, deadline.remaining()) > 0;
  } catch (const zmq::error_t& error) {
    if (error.num() != EINTR) throw;
    return false;
  }
}

std::optional<Frames> take_message(zmq::socket_t& socket, size_t max_frame_bytes) {
  zmq::message_t frame;
  if (!take_frame(socket, frame)) return std::nullopt;
  Frames frames;
  if (const char* id = zmq_msg_gets(frame.handle(), kUserId)) frames.user_id = id;
  frames.fd = zmq_msg_get(frame.handle(), ZMQ_SRCFD);
  Message message;
  bool acceptable = true;
  while (true) {
    ++frames.count;
    frames.bytes += frame.size();
    acceptable = acceptable && frames.count <= 2 && frame.size() <= frame_limit(max_frame_bytes);
    if (acceptable) (frames.count == 1 ? message.envelope : message.payload) = bytes_of(frame);
    if (!frame.more() || !take_frame(socket, frame)) break;
  }
  if (acceptable) frames.message = std::move(message);
  return frames;
}

tl::unexpected<Error> zmq_failure(const char* what, const zmq::error_t& error) {
  const bool exhausted = error.num() == ENOMEM || error.num() == EMFILE;
  return fail(exhausted ? ErrorCode::kOutOfMemory : ErrorCode::kIo,
              std::string("transport: ") + what + ": " + error.what());
}

}  // namespace isthmus::transport
