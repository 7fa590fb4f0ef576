// Servers that are not there, go away, come back, or say nothing.
#include <sys/socket.h>

#include <optional>

#include "peers.h"
#include "raw_socket.h"
#include "support/recording_proxy.h"
#include "support/temp_folder.h"

namespace isthmus::transport {
namespace {

using test::RecordingProxy;
using test::TempFolder;
using test::value_of;

/// Sends until the echo comes back, as a caller with idempotent requests does.
Message echoed(Channel& channel, const Message& message) {
  value_of(channel.send(message));
  return received(channel);
}

ServerAddress through(const RecordingProxy& proxy, ServerAddress address) {
  address.port = proxy.port();
  return address;
}

TEST_CASE("a port where nothing listens is a lost server at once", "[transport][lost]") {
  uint16_t port = 0;
  {
    const Listener listener = value_of(Listener::bind(open_listener()));
    port = listener.address().port;
  }
  const auto begin = std::chrono::steady_clock::now();
  CHECK_FAILS_WITH(
      Channel::connect(client_of({"127.0.0.1", port, generate_keys().public_key}), seconds(10)),
      ErrorCode::kServerLost);
  CHECK(std::chrono::steady_clock::now() - begin < seconds(5));
}

TEST_CASE("a name that cannot be looked up is a lost server", "[transport][lost]") {
  CHECK_FAILS_WITH(
      Channel::connect(client_of({"not..a.name", 1, generate_keys().public_key}), seconds(10)),
      ErrorCode::kServerLost);
}

TEST_CASE("a server that accepts and says nothing is a timeout", "[transport][lost]") {
  const RawListener silent;
  const auto begin = std::chrono::steady_clock::now();
  CHECK_FAILS_WITH(
      Channel::connect(client_of({"127.0.0.1", silent.port(), generate_keys().public_key}),
                       milliseconds(300)),
      ErrorCode::kTimeout);
  const auto elapsed = std::chrono::steady_clock::now() - begin;
  CHECK(elapsed >= milliseconds(300));
  CHECK(elapsed < seconds(5));
}

TEST_CASE("a restarted server is lost once and then works again", "[transport][lost]") {
  ListenerOptions options = open_listener();
  std::optional<EchoServer> server(std::in_place, options);
  options.port = server->address().port;
  Channel channel = connected(client_of(server->address()));
  CHECK(text_of(echoed(channel, message_of("one")).envelope) == "one");

  server.reset();
  CHECK_FAILS_WITH(channel.receive(kPatience), ErrorCode::kServerLost);
  CHECK_FALSE(value_of(channel.receive(milliseconds(250))).has_value());

  server.emplace(options);
  CHECK(text_of(echoed(channel, message_of("two")).envelope) == "two");
}

TEST_CASE("what is sent while the server is away arrives when it is back", "[transport][lost]") {
  ListenerOptions options = open_listener();
  std::optional<EchoServer> server(std::in_place, options);
  options.port = server->address().port;
  Channel channel = connected(client_of(server->address()));
  server.reset();
  CHECK_FAILS_WITH(channel.receive(kPatience), ErrorCode::kServerLost);
  value_of(channel.send(message_of("early")));
  server.emplace(options);
  CHECK(text_of(received(channel).envelope) == "early");
}

TEST_CASE("a server that stays away fills the queue, never the memory", "[transport][lost]") {
  std::optional<EchoServer> server(std::in_place, open_listener());
  Channel channel = connected(client_of(server->address()));
  server.reset();
  CHECK_FAILS_WITH(channel.receive(kPatience), ErrorCode::kServerLost);
  int sent = 0;
  Status status;
  while (status && sent < 1000) {
    status = channel.send(message_of("again"));
    sent += status ? 1 : 0;
  }
  CHECK_FAILS_WITH(status, ErrorCode::kBusy);
  CHECK(sent > 0);
  CHECK(sent < 1000);
}

TEST_CASE("each broken connection is reported once", "[transport][lost]") {
  EchoServer server(open_listener());
  RecordingProxy proxy(server.address().port);
  Channel channel = connected(client_of(through(proxy, server.address())));
  for (int round = 0; round < 3; ++round) {
    CAPTURE(round);
    proxy.cut();
    CHECK_FAILS_WITH(channel.receive(kPatience), ErrorCode::kServerLost);
    CHECK(text_of(echoed(channel, message_of("hello")).envelope) == "hello");
  }
  CHECK(proxy.connections_accepted() == 4);
}

TEST_CASE("an answer that arrived before the break is still delivered", "[transport][lost]") {
  Listener listener = value_of(Listener::bind(open_listener()));
  RecordingProxy proxy(listener.address().port);
  Channel channel = connected(client_of(through(proxy, listener.address())));
  value_of(channel.send(message_of("question")));
  const Incoming incoming = received(listener);
  value_of(listener.send(incoming.from, message_of("first")));
  CHECK(text_of(received(channel).envelope) == "first");

  // The connection ends with the last byte of the second answer.
  value_of(listener.send(incoming.from, message_of("second")));
  const size_t frame_on_the_wire = 2 + 33 + 6;  // length, encryption, text
  proxy.cut_after(RecordingProxy::Direction::kDown, frame_on_the_wire);
  value_of(listener.send(incoming.from, message_of("third!")));
  CHECK(text_of(received(channel).envelope) == "second");
}

TEST_CASE("a request cut short is not delivered", "[transport][lost]") {
  Listener listener = value_of(Listener::bind(open_listener()));
  RecordingProxy proxy(listener.address().port);
  Channel channel = connected(client_of(through(proxy, listener.address())));
  proxy.cut_after(RecordingProxy::Direction::kUp, 50'000);
  value_of(channel.send({bytes_of("half"), noise(100'000)}));
  CHECK_FAILS_WITH(channel.receive(kPatience), ErrorCode::kServerLost);
  value_of(channel.send(message_of("whole")));
  CHECK(text_of(received(listener).message.envelope) == "whole");
}

TEST_CASE("a server that falls silent is lost", "[transport][lost]") {
  EchoServer server(open_listener());
  RecordingProxy proxy(server.address().port);
  ChannelOptions options = client_of(through(proxy, server.address()));
  options.max_silence = milliseconds(200);
  Channel channel = connected(options);
  // Heartbeats keep an idle connection alive.
  CHECK_FALSE(value_of(channel.receive(milliseconds(600))).has_value());
  CHECK(proxy.connections_accepted() == 1);
  proxy.hold(true);
  CHECK_FAILS_WITH(channel.receive(kPatience), ErrorCode::kServerLost);
}

TEST_CASE("a slow link delays and breaks nothing", "[transport][lost]") {
  EchoServer server(open_listener());
  RecordingProxy proxy(server.address().port);
  proxy.delay(milliseconds(40));
  Channel channel = connected(client_of(through(proxy, server.address())));
  const auto begin = std::chrono::steady_clock::now();
  CHECK(text_of(echoed(channel, message_of("hello")).envelope) == "hello");
  CHECK(std::chrono::steady_clock::now() - begin >= milliseconds(80));
}

TEST_CASE("a client that is struck off is refused when it reconnects, until it is enrolled again",
          "[transport][lost]") {
  const TempFolder folder;
  ListenerOptions options = open_listener();
  options.allow_any_client = false;
  options.allow_list = folder.path() / "allowed";
  EchoServer server(options);
  RecordingProxy proxy(server.address().port);
  const ChannelOptions client = client_of(through(proxy, server.address()));
  value_of(enrol(options.allow_list, client.keys.public_key, ""));
  Channel channel = connected(client);

  std::filesystem::remove(options.allow_list);
  CHECK(text_of(echoed(channel, message_of("still here")).envelope) == "still here");
  proxy.cut();
  CHECK_FAILS_WITH(channel.receive(kPatience), ErrorCode::kServerLost);
  CHECK_FAILS_WITH(channel.receive(kPatience), ErrorCode::kKeyRefused);
  CHECK_FAILS_WITH(channel.receive(kPatience), ErrorCode::kKeyRefused);
  value_of(enrol(options.allow_list, client.keys.public_key, ""));
  CHECK(text_of(echoed(channel, message_of("back")).envelope) == "back");
}

TEST_CASE("a server that comes back with another key is refused", "[transport][lost]") {
  ListenerOptions options = open_listener();
  std::optional<EchoServer> server(std::in_place, options);
  options.port = server->address().port;
  Channel channel = connected(client_of(server->address()));
  server.reset();
  options.keys = generate_keys();
  server.emplace(options);
  CHECK_FAILS_WITH(channel.receive(kPatience), ErrorCode::kServerLost);
  CHECK_FAILS_WITH(channel.receive(kPatience), ErrorCode::kKeyRefused);
}

TEST_CASE("an answer to a client that has gone is dropped", "[transport][lost]") {
  Listener listener = value_of(Listener::bind(open_listener()));
  std::optional<Channel> channel(connected(client_of(listener.address())));
  value_of(channel->send(message_of("bye")));
  const Incoming incoming = received(listener);
  channel.reset();
  // The listener learns of it with some delay.
  Status status;
  const auto begin = std::chrono::steady_clock::now();
  while (status && std::chrono::steady_clock::now() - begin < kPatience) {
    status = listener.send(incoming.from, message_of("answer"));
    static_cast<void>(value_of(listener.receive(milliseconds(10))));
  }
  CHECK_FAILS_WITH(status, ErrorCode::kBusy);
  CHECK_FAILS_WITH(listener.send({"never seen", ""}, message_of("answer")), ErrorCode::kBusy);
}

TEST_CASE("a last message is delivered although the channel is destroyed", "[transport][lost]") {
  Listener listener = value_of(Listener::bind(open_listener()));
  {
    Channel channel = connected(client_of(listener.address()));
    value_of(channel.send(message_of("close")));
  }
  CHECK(text_of(received(listener).message.envelope) == "close");
}

TEST_CASE("a last answer is delivered although the listener is destroyed", "[transport][lost]") {
  std::optional<Listener> listener(value_of(Listener::bind(open_listener())));
  Channel channel = connected(client_of(listener->address()));
  value_of(channel.send(message_of("stop")));
  const Incoming incoming = received(*listener);
  value_of(listener->send(incoming.from, {bytes_of("stopped"), noise(1UL << 20U)}));
  listener.reset();
  CHECK(text_of(received(channel).envelope) == "stopped");
  CHECK_FAILS_WITH(channel.receive(kPatience), ErrorCode::kServerLost);
}

}  // namespace
}  // namespace isthmus::transport
