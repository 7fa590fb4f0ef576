#include <isthmus/transport/channel.h>

#include <cerrno>
#include <charconv>
#include <system_error>

#include "authenticator.h"
#include "flood_guard.h"
#include "host.h"
#include "sockets.h"

namespace isthmus::transport {
namespace {

using std::chrono::milliseconds;

/// Makes ZeroMQ ask the authenticator; without it a missing one would let everybody in.
constexpr const char* kZapDomain = "isthmus";

/// Who sends more than this of what is dropped does not keep `receive` from returning.
constexpr int kDropsPerCall = 256;

/// Where a client on this machine finds a server bound to `host`.
std::string reachable(const std::string& host) {
  if (host == "*" || host == "0.0.0.0") return "127.0.0.1";
  if (host == "::") return "::1";
  return host;
}

/// What a client that keeps to the rules can have on its way to us: full queues, and the system's
/// buffers on top.
FloodGuard::Limits flood_limits(const ListenerOptions& options) {
  constexpr uint64_t kSystemBuffers = uint64_t{8} << 20U;
  constexpr uint64_t kConnections = 16;  // so many at their limits at the same time
  const auto messages = static_cast<uint64_t>(options.queue_messages) + 2;
  const uint64_t one = messages * frame_limit(options.max_frame_bytes) + kSystemBuffers;
  return {.per_connection = one, .total = kConnections * one};
}

Result<uint16_t> port_of(const std::string& endpoint) {
  uint16_t port = 0;
  const char* digits = endpoint.data() + endpoint.rfind(':') + 1;
  if (std::from_chars(digits, endpoint.data() + endpoint.size(), port).ec != std::errc()) {
    return fail(ErrorCode::kInternal, "transport: bound to '" + endpoint + "', which has no port");
  }
  return port;
}

}  // namespace

Status ListenerOptions::validate() const {
  if (host != "*" && host != "localhost" && !is_ipv4(host) && !is_ipv6(host)) {
    return fail(ErrorCode::kInvalidArgument,
                "transport: cannot bind '" + host + "', which is neither '*' nor an ip address");
  }
  ISTHMUS_TRY(check_limits(max_frame_bytes, max_silence));
  if (queue_messages < 1 || queue_messages > 100'000) {
    return fail(ErrorCode::kInvalidArgument, "transport: queue_messages is " +
                                                 std::to_string(queue_messages) +
                                                 ", allowed are 1 to 100000");
  }
  if (!keys) {
    if (insecure || transport::is_loopback(host)) return {};
    return fail(ErrorCode::kInvalidArgument, "transport: '" + host +
                                                 "' can be reached from other machines, and "
                                                 "without keys nothing would be encrypted");
  }
  if (!is_key(keys->public_key) || !is_key(keys->secret_key)) {
    return fail(ErrorCode::kInvalidArgument, "transport: our keys are not z85");
  }
  if (!allow_any_client && allow_list.empty()) {
    return fail(ErrorCode::kInvalidArgument,
                "transport: no allow-list is named, so no client could connect");
  }
  return {};
}

struct Listener::Impl {
  explicit Impl(const ListenerOptions& listener_options) : options(listener_options) {
    // Before the socket is bound, so that the first client finds it.
    if (options.keys) {
      authenticator.emplace(
          context, options.allow_any_client ? std::nullopt : std::optional(options.allow_list));
    }
    socket = zmq::socket_t(context, zmq::socket_type::router);
    set_limits(socket, options.max_frame_bytes, options.max_silence, options.keys.has_value());
    socket.set(zmq::sockopt::sndhwm, options.queue_messages);
    socket.set(zmq::sockopt::rcvhwm, options.queue_messages);
    socket.set(zmq::sockopt::router_mandatory, true);  // tells us of answers that go nowhere
    socket.set(zmq::sockopt::ipv6, options.host == "*" || is_ipv6(options.host));
    if (options.keys) {
      socket.set(zmq::sockopt::curve_server, true);
      socket.set(zmq::sockopt::curve_secretkey, options.keys->secret_key);
      socket.set(zmq::sockopt::zap_domain, kZapDomain);
    }
    guard.emplace(context, socket, flood_limits(options));
  }

  Status bind();
  /// Takes one message, or nothing when it is to be dropped or there is none.
  std::optional<Incoming> take_one();

  // Destroyed from the last to the first: the guard's thread, the socket, the authenticator's
  // thread, the context.
  ListenerOptions options;
  ServerAddress address;
  uint64_t dropped = 0;
  zmq::context_t context;
  std::optional<Authenticator> authenticator;
  zmq::socket_t socket;
  std::optional<FloodGuard> guard;
};

Status Listener::Impl::bind() {
  const std::string host = options.host == "localhost" ? "127.0.0.1" : options.host;
  const std::string port = options.port == 0 ? "*" : std::to_string(options.port);
  socket.bind("tcp://" + bracketed(host) + ':' + port);
  address.host = reachable(host);
  ISTHMUS_ASSIGN(address.port, port_of(socket.get(zmq::sockopt::last_endpoint)));
  if (options.keys) address.public_key = options.keys->public_key;
  return {};
}

std::optional<Incoming> Listener::Impl::take_one() {
  zmq::message_t routing_id;
  if (!take_frame(socket, routing_id)) return std::nullopt;
  auto frames = take_message(socket, options.max_frame_bytes);
  if (frames) guard->delivered(frames->fd, frames->count, frames->bytes);
  const bool proven = !options.keys || (frames && !frames->user_id.empty());
  if (!frames || !frames->message || !proven) {
    ++dropped;
    return std::nullopt;
  }
  return Incoming{{routing_id.to_string(), std::move(frames->user_id)},
                  std::move(*frames->message)};
}

Result<Listener> Listener::bind(const ListenerOptions& options) {
  ISTHMUS_TRY(options.validate());
  if (options.keys && !options.allow_any_client) {
    ISTHMUS_TRY(load_allow_list(options.allow_list));  // a broken one is reported now
  }
  try {
    auto impl = std::make_unique<Impl>(options);
    ISTHMUS_TRY(impl->bind());
    return Listener(std::move(impl));
  } catch (const zmq::error_t& error) {
    const std::string what = "cannot bind " + options.host + ':' + std::to_string(options.port);
    return zmq_failure(what.c_str(), error);
  } catch (const std::system_error& error) {
    return fail(ErrorCode::kOutOfMemory,
                std::string("transport: cannot start a thread: ") + error.what());
  }
}

Listener::Listener(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Listener::Listener(Listener&&) noexcept = default;
Listener& Listener::operator=(Listener&&) noexcept = default;
Listener::~Listener() = default;

const ServerAddress& Listener::address() const {
  return impl_->address;
}

Result<std::optional<Incoming>> Listener::receive(milliseconds timeout) {
  const Deadline deadline(timeout);
  try {
    // Past the deadline too, as long as messages are there: nothing means that there is none.
    for (int dropped = 0; dropped < kDropsPerCall; ++dropped) {
      if (!wait_readable({&impl_->socket}, deadline)) return std::nullopt;
      if (auto incoming = impl_->take_one()) return incoming;
    }
    return std::nullopt;
  } catch (const zmq::error_t& error) {
    return zmq_failure("cannot receive", error);
  }
}

Status Listener::send(const Peer& to, const Message& message) {
  const auto undeliverable = [] {
    return fail(ErrorCode::kBusy, "transport: the client has gone or does not read its answers");
  };
  try {
    if (!put_message(impl_->socket, message, to.routing_id)) return undeliverable();
    return {};
  } catch (const zmq::error_t& error) {
    if (error.num() == EHOSTUNREACH) return undeliverable();
    return zmq_failure("cannot send", error);
  }
}

uint64_t Listener::dropped_messages() const {
  return impl_->dropped;
}

uint64_t Listener::cut_connections() const {
  return impl_->guard->cut();
}

}  // namespace isthmus::transport
