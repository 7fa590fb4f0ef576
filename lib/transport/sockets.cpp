#include "sockets.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <new>

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

/// Takes the frame at `index` of a message into it.
Status take_in(const zmq::message_t& frame, size_t index, size_t max_frame_bytes,
               Message& message) {
  if (index >= 2 || frame.size() > frame_limit(max_frame_bytes)) {
    return fail(ErrorCode::kCorrupt, "transport: a message of more than two frames, or a long one");
  }
  try {
    (index == 0 ? message.envelope : message.payload) = bytes_of(frame);
  } catch (const std::bad_alloc&) {
    return fail(ErrorCode::kOutOfMemory,
                "transport: no memory for a message's " + std::to_string(frame.size()) + " bytes");
  }
  return {};
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

bool put_message(zmq::socket_t& socket, const Message& message,
                 std::optional<std::string_view> routing_id) {
  // All that needs memory comes first: what follows a message that ends in its middle becomes a
  // part of it.
  std::array<zmq::message_t, 3> frames;
  size_t count = 0;
  const auto add = [&](const void* data, size_t size) {
    frames[count++] = zmq::message_t(data, size);
  };
  if (routing_id) add(routing_id->data(), routing_id->size());
  add(message.envelope.data(), message.envelope.size());
  if (!message.payload.empty()) add(message.payload.data(), message.payload.size());
  // Once the first frame is taken, libzmq has room for the rest of the message.
  for (size_t i = 0; i < count; ++i) {
    auto flags = zmq::send_flags::dontwait;
    if (i + 1 < count) flags = flags | zmq::send_flags::sndmore;
    if (!uninterrupted([&] { return socket.send(frames[i], flags).has_value(); })) return false;
  }
  return true;
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
  while (true) {
    if (frames.message) {
      const Status taken = take_in(frame, frames.count, max_frame_bytes, *frames.message);
      if (!taken) frames.message = tl::unexpected<Error>(taken.error());
    }
    ++frames.count;
    frames.bytes += frame.size();
    if (!frame.more() || !take_frame(socket, frame)) break;
  }
  return frames;
}

tl::unexpected<Error> zmq_failure(const char* what, const zmq::error_t& error) {
  const bool exhausted = error.num() == ENOMEM || error.num() == EMFILE;
  return fail(exhausted ? ErrorCode::kOutOfMemory : ErrorCode::kIo,
              std::string("transport: ") + what + ": " + error.what());
}

}  // namespace isthmus::transport
