#include "flood_guard.h"

#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstring>
#include <optional>

#include "signals_blocked.h"
#include "sockets.h"

namespace isthmus::transport {
namespace {

using std::chrono::milliseconds;

constexpr const char* kEndpoint = "inproc://accepted-connections";
constexpr milliseconds kPeriod{20};
// More than what encryption and framing add to a frame.
constexpr uint64_t kFrameOverhead = 64;
// Heartbeats are never delivered. They are fewer bytes than this for every look (50 bytes a
// second).
constexpr uint64_t kIdleAllowance = 1;

template <typename Value>
bool read_option(int fd, int level, int name, Value& value, size_t least) {
  socklen_t size = sizeof value;
  return getsockopt(fd, level, name, &value, &size) == 0 && size >= least;
}

/// What tells a socket from every other one since the system started.
std::optional<uint64_t> cookie_of(int fd) {
  uint64_t cookie = 0;
  if (!read_option(fd, SOL_SOCKET, SO_COOKIE, cookie, sizeof cookie)) return std::nullopt;
  return cookie;
}

std::optional<uint64_t> bytes_received(int fd) {
  tcp_info info{};
  constexpr size_t kNeeded = offsetof(tcp_info, tcpi_bytes_received) + sizeof(uint64_t);
  if (!read_option(fd, IPPROTO_TCP, TCP_INFO, info, kNeeded)) return std::nullopt;
  return info.tcpi_bytes_received;
}

}  // namespace

FloodGuard::FloodGuard(zmq::context_t& context, zmq::socket_t& listening, Limits limits)
    : limits_(limits), events_(context, zmq::socket_type::pair) {
  if (zmq_socket_monitor(listening.handle(), kEndpoint, ZMQ_EVENT_ACCEPTED) != 0) {
    throw zmq::error_t();
  }
  events_.set(zmq::sockopt::linger, 0);
  events_.connect(kEndpoint);
  const SignalsBlocked blocked;
  thread_ = std::thread([this] { watch(); });
}

FloodGuard::~FloodGuard() {
  stop_ = true;
  thread_.join();
}

void FloodGuard::delivered(int fd, size_t frames, size_t bytes) {
  const std::optional<uint64_t> cookie = cookie_of(fd);
  if (!cookie) return;  // closed meanwhile
  const std::lock_guard lock(mutex_);
  Connection& connection = connections_[*cookie];
  connection.fd = fd;
  connection.accounted += bytes + frames * kFrameOverhead;
}

void FloodGuard::watch() noexcept {
  while (!stop_) {
    try {
      if (wait_readable({&events_}, Deadline(kPeriod))) take_events();
      look_at_connections();
    } catch (const zmq::error_t&) {
      return;  // the context is going down
    } catch (const std::bad_alloc&) {
      continue;  // the next look may find memory
    }
  }
}

void FloodGuard::take_events() {
  zmq::message_t frame;
  while (take_frame(events_, frame)) {
    uint32_t fd = 0;
    if (frame.size() == sizeof(uint16_t) + sizeof fd) {
      std::memcpy(&fd, frame.data<char>() + sizeof(uint16_t), sizeof fd);
      if (const auto cookie = cookie_of(static_cast<int>(fd))) {
        const std::lock_guard lock(mutex_);
        connections_[*cookie].fd = static_cast<int>(fd);
      }
    }
    while (frame.more() && take_frame(events_, frame)) continue;  // the endpoint's name
  }
}

void FloodGuard::look_at_connections() {
  const std::lock_guard lock(mutex_);
  uint64_t total = 0;
  for (auto entry = connections_.begin(); entry != connections_.end();) {
    Connection& connection = entry->second;
    const auto received = bytes_received(connection.fd);
    if (!received || cookie_of(connection.fd) != entry->first) {
      entry = connections_.erase(entry);
      continue;
    }
    connection.received = *received;
    connection.accounted = std::min(connection.received, connection.accounted + kIdleAllowance);
    if (connection.unread() > limits_.per_connection) {
      cut_off(connection);
      entry = connections_.erase(entry);
      continue;
    }
    total += connection.unread();
    ++entry;
  }
  while (total > limits_.total) {
    const auto largest = std::max_element(
        connections_.begin(), connections_.end(),
        [](const auto& a, const auto& b) { return a.second.unread() < b.second.unread(); });
    total -= largest->second.unread();
    cut_off(largest->second);
    connections_.erase(largest);
  }
}

void FloodGuard::cut_off(const Connection& connection) {
  // libzmq sees the end of the stream, lets go of the unfinished message, and closes the
  // descriptor. Should that have happened this very moment, and the number be another client's
  // already, that one connects again. Counted first: who notices the end may ask for the count.
  ++cut_;
  // Closing is to reset the connection: a peer that waits for room to send more would otherwise be
  // told nothing for minutes, and the kernel would keep the rest for as long.
  const linger none{.l_onoff = 1, .l_linger = 0};
  setsockopt(connection.fd, SOL_SOCKET, SO_LINGER, &none, sizeof none);
  shutdown(connection.fd, SHUT_RDWR);
}

}  // namespace isthmus::transport
