#include <isthmus/transport/channel.h>
#include <netdb.h>

#include <array>
#include <cerrno>

#include "host.h"
#include "monitor.h"
#include "sockets.h"

namespace isthmus::transport {
namespace {

using std::chrono::milliseconds;

constexpr int kQueueMessages = 64;
constexpr int kReconnectMs = 100;  // first pause between two attempts; doubles up to the next
constexpr int kReconnectMaxMs = 2000;
/// One hang-up may be a server that just stops; a server that cannot read us hangs up every time.
constexpr int kHangUpsThatRefuse = 2;

/// The address to connect to. A name is looked up here, not by libzmq, which would ask for IPv6
/// addresses alone when IPv6 is on and would never say that a name is unknown.
Result<std::string> numeric_host(const std::string& host) {
  if (is_ipv4(host) || is_ipv6(host)) return host;
  // What a listener makes of it too, and never a question for the network (RFC 6761, section 6.3).
  if (host == "localhost") return "127.0.0.1";
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (const int error = ::getaddrinfo(host.c_str(), nullptr, &hints, &found); error != 0) {
    return fail(ErrorCode::kServerLost,
                "transport: cannot look up '" + host + "': " + ::gai_strerror(error));
  }
  const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> owner(found, ::freeaddrinfo);
  // IPv4 first: a name often means both, and a server bound to one IPv4 address does not answer on
  // IPv6.
  const addrinfo* best = found;
  while (best != nullptr && best->ai_family != AF_INET) best = best->ai_next;
  if (best == nullptr) best = found;
  std::array<char, NI_MAXHOST> text{};
  if (const int error = ::getnameinfo(best->ai_addr, best->ai_addrlen, text.data(), text.size(),
                                      nullptr, 0, NI_NUMERICHOST);
      error != 0) {
    return fail(ErrorCode::kServerLost,
                "transport: cannot look up '" + host + "': " + ::gai_strerror(error));
  }
  return std::string(text.data());
}

}  // namespace

Status ChannelOptions::validate() const {
  if (server.host.empty() || server.port == 0) {
    return fail(ErrorCode::kInvalidArgument, "transport: the server's host or port is missing");
  }
  ISTHMUS_TRY(check_limits(max_frame_bytes, max_silence));
  if (server.public_key.empty()) {
    if (allow_plaintext) return {};
    return fail(ErrorCode::kInvalidArgument,
                "transport: the server's address has no key, so nothing would be encrypted");
  }
  if (!is_key(server.public_key)) {
    return fail(ErrorCode::kInvalidArgument, "transport: the server's key is not z85");
  }
  if (!is_key(keys.public_key) || !is_key(keys.secret_key)) {
    return fail(ErrorCode::kInvalidArgument, "transport: our own keys are missing or not z85");
  }
  return {};
}

/// A socket and the events of its connection, in a context of their own: ending the context is the
/// one way to end them that waits for nobody, even when unread events have filled their queue.
struct Channel::Link {
  Link(const ChannelOptions& options, const std::string& host)
      : socket(context, zmq::socket_type::dealer), monitor(context, socket) {
    const bool encrypted = !options.server.public_key.empty();
    set_limits(socket, options.max_frame_bytes, options.max_silence, encrypted);
    socket.set(zmq::sockopt::sndhwm, kQueueMessages);
    socket.set(zmq::sockopt::rcvhwm, kQueueMessages);
    socket.set(zmq::sockopt::reconnect_ivl, kReconnectMs);
    socket.set(zmq::sockopt::reconnect_ivl_max, kReconnectMaxMs);
    socket.set(zmq::sockopt::ipv6, is_ipv6(host));
    if (encrypted) {
      socket.set(zmq::sockopt::curve_serverkey, options.server.public_key);
      socket.set(zmq::sockopt::curve_publickey, options.keys.public_key);
      socket.set(zmq::sockopt::curve_secretkey, options.keys.secret_key);
    }
    socket.connect("tcp://" + bracketed(host) + ':' + std::to_string(options.server.port));
  }

  zmq::context_t context;
  zmq::socket_t socket;
  Monitor monitor;
};

struct Channel::Impl {
  Impl(const ChannelOptions& channel_options, std::string numeric)
      : options(channel_options),
        host(std::move(numeric)),
        name(bracketed(options.server.host) + ':' + std::to_string(options.server.port)) {}

  Link& live_link() {
    if (!link) link.emplace(options, host);
    return *link;
  }

  Status wait_until_connected(const Deadline& deadline);
  void note_events();
  void note(ConnectionEvent event);
  void note_refusal(const std::string& why);
  tl::unexpected<Error> give_up_link();

  ChannelOptions options;
  std::string host;  // numeric form of options.server.host
  std::string name;  // host:port for messages
  std::optional<Link> link;
  // What has become of the link's connection.
  bool connected = false;
  bool explained = false;  // an event has said why the connection is about to end
  int hang_ups = 0;        // in a row
  std::optional<Error> failure;

  uint64_t bytes_sent = 0;
  uint64_t bytes_received = 0;
};

void Channel::Impl::note_refusal(const std::string& why) {
  explained = true;
  if (!failure) failure = Error{ErrorCode::kKeyRefused, "transport: " + why};
}

void Channel::Impl::note(ConnectionEvent event) {
  const std::string mismatch =
      name + " is not an isthmus server, or " +
      (options.server.public_key.empty() ? "one with encryption" : "one without encryption");
  switch (event) {
    case ConnectionEvent::kReady:
      connected = true;
      hang_ups = 0;
      return;
    case ConnectionEvent::kUnreachable:
      hang_ups = 0;
      return;
    case ConnectionEvent::kRefused:
      return note_refusal("the server at " + name + " does not know our key, " +
                          options.keys.public_key + "; it has to be enrolled there");
    case ConnectionEvent::kMismatch:
      return note_refusal(mismatch);
    case ConnectionEvent::kHungUp:
      explained = true;
      if (++hang_ups < kHangUpsThatRefuse) return;
      return note_refusal(name +
                          " hangs up when it sees our handshake: its key is not the one in "
                          "the address, or it is not an isthmus server");
    case ConnectionEvent::kSilent:
      explained = true;
      return;
    case ConnectionEvent::kBroken:
      if (connected && !failure) {
        failure = Error{ErrorCode::kServerLost, "transport: the connection to " + name + " broke"};
      } else if (!explained) {
        note_refusal(mismatch);
      }
      explained = false;
      return;
  }
}

void Channel::Impl::note_events() {
  while (const auto event = link->monitor.next()) note(*event);
}

/// Reports the failure, once. The next use starts with a new link, because libzmq gives up on some
/// connections for good; what this one has not sent is not worth waiting for.
tl::unexpected<Error> Channel::Impl::give_up_link() {
  tl::unexpected<Error> error(std::move(*failure));
  link->socket.set(zmq::sockopt::linger, 0);
  link.reset();
  connected = false;
  explained = false;
  hang_ups = 0;
  failure.reset();
  return error;
}

Status Channel::Impl::wait_until_connected(const Deadline& deadline) {
  Link& first = live_link();
  while (!connected) {
    const auto event = first.monitor.next();
    if (event == ConnectionEvent::kUnreachable) {
      return fail(ErrorCode::kServerLost, "transport: nothing listens at " + name);
    }
    if (event) {
      note(*event);
    } else if (failure) {
      return give_up_link();
    } else if (deadline.passed()) {
      return fail(ErrorCode::kTimeout,
                  "transport: " + name + " did not finish the handshake in time");
    } else {
      static_cast<void>(wait_readable({&first.monitor.socket()}, deadline));
    }
  }
  return {};
}

Result<Channel> Channel::connect(const ChannelOptions& options, milliseconds timeout) {
  ISTHMUS_TRY(options.validate());
  const Deadline deadline(timeout);
  ISTHMUS_ASSIGN(std::string host, numeric_host(options.server.host));
  try {
    auto impl = std::make_unique<Impl>(options, std::move(host));
    ISTHMUS_TRY(impl->wait_until_connected(deadline));
    return Channel(std::move(impl));
  } catch (const zmq::error_t& error) {
    return zmq_failure("cannot connect", error);
  }
}

Channel::Channel(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Channel::Channel(Channel&&) noexcept = default;
Channel& Channel::operator=(Channel&&) noexcept = default;
Channel::~Channel() = default;

Status Channel::send(const Message& message) {
  try {
    if (!put_message(impl_->live_link().socket, message)) {
      return fail(ErrorCode::kBusy, "transport: " + std::to_string(kQueueMessages) +
                                        " messages wait for " + impl_->name + " already");
    }
    impl_->bytes_sent += message.envelope.size() + message.payload.size();
    return {};
  } catch (const zmq::error_t& error) {
    return zmq_failure("cannot send", error);
  }
}

Result<std::optional<Message>> Channel::receive(milliseconds timeout) {
  const Deadline deadline(timeout);
  try {
    while (true) {
      Link& link = impl_->live_link();
      // Events are read first and reported last: what had arrived when a connection broke is good.
      impl_->note_events();
      if (auto frames = take_message(link.socket, impl_->options.max_frame_bytes)) {
        impl_->bytes_received += frames->bytes;
        if (frames->message) return std::move(*frames->message);
        const Error& error = frames->message.error();
        return fail(error.code, error.message + " from " + impl_->name);
      }
      if (impl_->failure) return impl_->give_up_link();
      if (deadline.passed()) return std::nullopt;
      static_cast<void>(wait_readable({&link.socket, &link.monitor.socket()}, deadline));
    }
  } catch (const zmq::error_t& error) {
    return zmq_failure("cannot receive", error);
  }
}

bool Channel::is_connected() const {
  return impl_->connected;
}
uint64_t Channel::bytes_sent() const {
  return impl_->bytes_sent;
}
uint64_t Channel::bytes_received() const {
  return impl_->bytes_received;
}

}  // namespace isthmus::transport
