#include "monitor.h"

#include <cerrno>
#include <cstring>

#include "sockets.h"

namespace isthmus::transport {
namespace {

constexpr const char* kEndpoint = "inproc://connection-events";
constexpr int kWatched = ZMQ_EVENT_HANDSHAKE_SUCCEEDED | ZMQ_EVENT_HANDSHAKE_FAILED_AUTH |
                         ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL |
                         ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL | ZMQ_EVENT_DISCONNECTED |
                         ZMQ_EVENT_CLOSED;

/// Meaning of a libzmq 4.3 event and its value on a CURVE client; each case has its test.
std::optional<ConnectionEvent> meaning(uint16_t event, uint32_t value) {
  switch (event) {
    case ZMQ_EVENT_HANDSHAKE_SUCCEEDED:
      return ConnectionEvent::kReady;
    case ZMQ_EVENT_CLOSED:  // the socket of an attempt to connect
      return ConnectionEvent::kUnreachable;
    case ZMQ_EVENT_HANDSHAKE_FAILED_AUTH:
      return ConnectionEvent::kRefused;
    case ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL:
      return ConnectionEvent::kMismatch;
    case ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL:
      // EAGAIN stands for the handshake timer.
      return value == EAGAIN ? ConnectionEvent::kSilent : ConnectionEvent::kHungUp;
    case ZMQ_EVENT_DISCONNECTED:
      return ConnectionEvent::kBroken;
    default:
      return std::nullopt;
  }
}

}  // namespace

Monitor::Monitor(zmq::context_t& context, zmq::socket_t& watched)
    : events_(context, zmq::socket_type::pair) {
  if (zmq_socket_monitor(watched.handle(), kEndpoint, kWatched) != 0) throw zmq::error_t();
  events_.set(zmq::sockopt::linger, 0);
  events_.connect(kEndpoint);
}

std::optional<ConnectionEvent> Monitor::next() {
  zmq::message_t frame;
  while (take_frame(events_, frame)) {
    uint16_t event = 0;
    uint32_t value = 0;
    if (frame.size() == sizeof event + sizeof value) {
      std::memcpy(&event, frame.data(), sizeof event);
      std::memcpy(&value, frame.data<char>() + sizeof event, sizeof value);
    }
    while (frame.more() && take_frame(events_, frame)) continue;  // the endpoint's name
    if (const auto known = meaning(event, value)) return known;
  }
  return std::nullopt;
}

}  // namespace isthmus::transport
