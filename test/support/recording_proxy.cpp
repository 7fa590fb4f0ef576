#include "support/recording_proxy.h"

#include <arpa/inet.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <stdexcept>

namespace isthmus::test {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr size_t kMaxWaiting = 1UL << 20U;  // bytes read ahead of what could be written

sockaddr_in loopback(uint16_t port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

size_t index_of(RecordingProxy::Direction direction) {
  return direction == RecordingProxy::Direction::kUp ? 0 : 1;
}

bool would_block() {
  return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR;
}

}  // namespace

RecordingProxy::RecordingProxy(uint16_t target_port) : target_port_(target_port) {
  listener_ = ::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  waker_ = ::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  sockaddr_in address = loopback(0);
  socklen_t size = sizeof address;
  auto* generic = reinterpret_cast<sockaddr*>(&address);
  if (listener_ < 0 || waker_ < 0 || ::bind(listener_, generic, size) != 0 ||
      ::listen(listener_, 16) != 0 || ::getsockname(listener_, generic, &size) != 0) {
    throw std::runtime_error("proxy: cannot listen");
  }
  port_ = ntohs(address.sin_port);
  thread_ = std::thread([this] { run(); });
}

RecordingProxy::~RecordingProxy() {
  {
    const std::scoped_lock lock(mutex_);
    stopping_ = true;
  }
  wake();
  thread_.join();
  ::close(listener_);
  ::close(waker_);
}

std::vector<std::byte> RecordingProxy::recorded(Direction direction) const {
  const std::scoped_lock lock(mutex_);
  return recorded_[index_of(direction)];
}

bool RecordingProxy::saw(std::string_view text) const {
  return saw(std::as_bytes(std::span(text)));
}

bool RecordingProxy::saw(std::span<const std::byte> bytes) const {
  const std::scoped_lock lock(mutex_);
  return std::any_of(std::begin(recorded_), std::end(recorded_), [&](const auto& record) {
    return std::search(record.begin(), record.end(), bytes.begin(), bytes.end()) != record.end();
  });
}

size_t RecordingProxy::connections_accepted() const {
  const std::scoped_lock lock(mutex_);
  return accepted_;
}

void RecordingProxy::cut() {
  {
    const std::scoped_lock lock(mutex_);
    for (Connection& connection : connections_) connection.over = true;
  }
  wake();
}

void RecordingProxy::cut_after(Direction direction, size_t count) {
  const std::scoped_lock lock(mutex_);
  cut_at_[index_of(direction)] = recorded_[index_of(direction)].size() + count;
}

void RecordingProxy::hold(bool on) {
  {
    const std::scoped_lock lock(mutex_);
    held_ = on;
  }
  wake();
}

void RecordingProxy::trickle(size_t bytes) {
  const std::scoped_lock lock(mutex_);
  piece_ = bytes;
}

void RecordingProxy::delay(milliseconds pause) {
  const std::scoped_lock lock(mutex_);
  delay_ = pause;
}

void RecordingProxy::wake() const {
  const uint64_t one = 1;
  static_cast<void>(::write(waker_, &one, sizeof one));  // full means that it is awake already
}

void RecordingProxy::run() {
  while (true) {
    const int acceptable = wait();
    const std::scoped_lock lock(mutex_);
    if (stopping_) {
      for (Connection& connection : connections_) connection.over = true;
      close_finished();
      return;
    }
    if (acceptable != 0) accept_one();
    for (Connection& connection : connections_) {
      for (Flow* flow : {&connection.up, &connection.down}) {
        read_from(connection, *flow);
        write_to(connection, *flow);
      }
    }
    close_finished();
  }
}

/// Sleeps until there may be work. Returns nonzero when a client is waiting to be accepted.
int RecordingProxy::wait() {
  std::vector<pollfd> polled = {{listener_, POLLIN, 0}, {waker_, POLLIN, 0}};
  milliseconds timeout(-1);
  {
    const std::scoped_lock lock(mutex_);
    const auto now = steady_clock::now();
    for (Connection& connection : connections_) {
      for (const Flow* flow : {&connection.up, &connection.down}) {
        if (flow->waiting < kMaxWaiting && !flow->ended) polled.push_back({flow->from, POLLIN, 0});
        if (flow->chunks.empty() || held_) continue;
        const auto left = std::chrono::ceil<milliseconds>(flow->chunks.front().due - now);
        if (left <= milliseconds(0)) {
          polled.push_back({flow->to, POLLOUT, 0});
        } else if (timeout < milliseconds(0) || left < timeout) {
          timeout = left;
        }
      }
    }
  }
  static_cast<void>(::poll(polled.data(), polled.size(), static_cast<int>(timeout.count())));
  uint64_t count = 0;
  static_cast<void>(::read(waker_, &count, sizeof count));
  return polled[0].revents & POLLIN;
}

void RecordingProxy::accept_one() {
  const int client = ::accept4(listener_, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
  if (client < 0) return;
  ++accepted_;
  const int target = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const sockaddr_in address = loopback(target_port_);
  const bool connected =
      ::connect(target, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
  connections_.push_back(
      {.up = {.direction = Direction::kUp, .from = client, .to = target, .chunks = {}},
       .down = {.direction = Direction::kDown, .from = target, .to = client, .chunks = {}},
       .over = !connected});
}

void RecordingProxy::read_from(Connection& connection, Flow& flow) {
  std::array<std::byte, 65536> buffer;
  while (!connection.over && !flow.ended && flow.waiting < kMaxWaiting) {
    const ssize_t count = ::recv(flow.from, buffer.data(), buffer.size(), MSG_DONTWAIT);
    if (count < 0 && would_block()) return;
    if (count < 0) {
      connection.over = true;
      return;
    }
    if (count == 0) {
      flow.ended = true;  // what is on its way is still forwarded
      break;
    }
    auto due = steady_clock::now() + delay_;
    if (!flow.chunks.empty() && piece_ != SIZE_MAX)
      due = std::max(due, flow.chunks.back().due + milliseconds(1));
    std::span<const std::byte> rest(buffer.data(), static_cast<size_t>(count));
    for (; !rest.empty(); due += milliseconds(1)) {
      const auto piece = rest.first(std::min(piece_, rest.size()));
      flow.chunks.push_back({due, {piece.begin(), piece.end()}});
      rest = rest.subspan(piece.size());
    }
    flow.waiting += static_cast<size_t>(count);
  }
  if (flow.ended && flow.chunks.empty()) connection.over = true;
}

void RecordingProxy::write_to(Connection& connection, Flow& flow) {
  const size_t index = index_of(flow.direction);
  std::vector<std::byte>& record = recorded_[index];
  while (!connection.over && !held_ && !flow.chunks.empty() &&
         flow.chunks.front().due <= steady_clock::now()) {
    std::vector<std::byte>& bytes = flow.chunks.front().bytes;
    const size_t allowed = std::min(bytes.size(), cut_at_[index] - record.size());
    const ssize_t count = ::send(flow.to, bytes.data(), allowed, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (count < 0 && would_block()) return;
    if (count < 0) {
      connection.over = true;
      return;
    }
    record.insert(record.end(), bytes.begin(), bytes.begin() + count);
    bytes.erase(bytes.begin(), bytes.begin() + count);
    flow.waiting -= static_cast<size_t>(count);
    if (bytes.empty()) flow.chunks.pop_front();
    if (flow.ended && flow.chunks.empty()) connection.over = true;
    if (record.size() == cut_at_[index]) {
      cut_at_[index] = SIZE_MAX;
      for (Connection& other : connections_) other.over = true;
    }
  }
}

void RecordingProxy::close_finished() {
  for (const Connection& connection : connections_) {
    if (!connection.over) continue;
    ::close(connection.up.from);
    ::close(connection.up.to);
  }
  std::erase_if(connections_, [](const Connection& connection) { return connection.over; });
}

}  // namespace isthmus::test
