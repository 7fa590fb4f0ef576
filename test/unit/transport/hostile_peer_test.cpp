// Peers that break the rules.
#include <zmq.hpp>

#include "peers.h"
#include "raw_socket.h"

namespace isthmus::transport {
namespace {

using test::value_of;

constexpr size_t kFrameLimit = 10'000;

ListenerOptions small_listener(bool encrypted = true) {
  ListenerOptions options = open_listener(encrypted);
  options.max_frame_bytes = kFrameLimit;
  return options;
}

/// Any ZeroMQ peer, without the manners of a Channel.
struct RawPeer {
  explicit RawPeer(zmq::socket_type type) : socket(context, type) {
    socket.set(zmq::sockopt::linger, 0);
    socket.set(zmq::sockopt::rcvtimeo, 20'000);
  }
  void connect(const ServerAddress& server, const KeyPair& keys) {
    if (!server.public_key.empty()) {
      socket.set(zmq::sockopt::curve_serverkey, server.public_key);
      socket.set(zmq::sockopt::curve_publickey, keys.public_key);
      socket.set(zmq::sockopt::curve_secretkey, keys.secret_key);
    }
    socket.connect("tcp://127.0.0.1:" + std::to_string(server.port));
  }
  void send(const std::vector<std::string>& frames) {
    for (size_t i = 0; i < frames.size(); ++i) {
      socket.send(zmq::buffer(frames[i]),
                  i + 1 < frames.size() ? zmq::send_flags::sndmore : zmq::send_flags::none);
    }
  }
  std::string receive_frame() {
    zmq::message_t frame;
    REQUIRE(socket.recv(frame).has_value());
    return frame.to_string();
  }

  zmq::context_t context;
  zmq::socket_t socket;
};

TEST_CASE("messages of more than two frames are dropped and counted", "[transport][hostile]") {
  Listener listener = value_of(Listener::bind(small_listener()));
  RawPeer peer(zmq::socket_type::dealer);
  peer.connect(listener.address(), generate_keys());
  peer.send({"a", "b", "c"});
  peer.send({"a", "b", "c", std::string(kFrameLimit, 'd'), "", ""});
  peer.send({"one", "two"});
  peer.send({""});
  const Incoming good = received(listener);
  CHECK(text_of(good.message.envelope) == "one");
  CHECK(text_of(good.message.payload) == "two");
  CHECK(received(listener).message.envelope.empty());
  CHECK(listener.dropped_messages() == 2);
}

TEST_CASE("a dropped message does not hide the one behind it", "[transport][hostile]") {
  Listener listener = value_of(Listener::bind(small_listener()));
  RawPeer peer(zmq::socket_type::dealer);
  peer.connect(listener.address(), generate_keys());
  int together = 0;
  for (int round = 0; round < 50; ++round) {
    peer.send({"good"});
    peer.send({"a", "b", "c"});
    peer.send({"good"});
    CHECK(text_of(received(listener).message.envelope) == "good");
    // The others are here by now, or are not: a look that finds both must not stop at the first.
    std::optional<Incoming> second;
    while (!second) {
      const uint64_t before = listener.dropped_messages();
      second = value_of(listener.receive(milliseconds(0)));
      if (second && listener.dropped_messages() > before) ++together;
    }
  }
  CHECK(listener.dropped_messages() == 50);
  CHECK(together > 0);
}

TEST_CASE("whoever sends nothing but what is dropped does not hold up the caller",
          "[transport][hostile]") {
  Listener listener = value_of(Listener::bind(small_listener()));
  RawPeer peer(zmq::socket_type::dealer);
  peer.connect(listener.address(), generate_keys());
  for (int i = 0; i < 900; ++i) peer.send({"a", "b", "c"});
  // Comes back on its own, long before its time is up.
  CHECK_FALSE(value_of(listener.receive(std::chrono::hours(1))).has_value());
  CHECK(listener.dropped_messages() < 900);
}

TEST_CASE("frames up to the limit pass and longer ones end the connection",
          "[transport][hostile]") {
  const bool encrypted = GENERATE(true, false);
  CAPTURE(encrypted);
  Listener listener = value_of(Listener::bind(small_listener(encrypted)));
  ChannelOptions options = client_of(listener.address());
  options.max_frame_bytes = kFrameLimit;
  Channel channel = connected(options);

  value_of(channel.send({noise(kFrameLimit), noise(kFrameLimit)}));
  const Incoming incoming = received(listener);
  CHECK(incoming.message.payload.size() == kFrameLimit);

  SECTION("from the client") {
    value_of(channel.send({bytes_of("e"), noise(kFrameLimit + 1)}));
    CHECK_FAILS_WITH(channel.receive(kPatience), ErrorCode::kServerLost);
  }
  SECTION("from the server") {
    value_of(listener.send(incoming.from, {noise(kFrameLimit), noise(kFrameLimit)}));
    CHECK(received(channel).payload.size() == kFrameLimit);
    value_of(listener.send(incoming.from, {bytes_of("e"), noise(kFrameLimit + 1)}));
    CHECK_FAILS_WITH(channel.receive(kPatience), ErrorCode::kServerLost);
  }
  value_of(channel.send(message_of("again")));
  CHECK(text_of(received(listener).message.envelope) == "again");
}

TEST_CASE("a small frame limit lets envelopes and handshakes pass", "[transport][hostile]") {
  ListenerOptions server = open_listener();
  server.max_frame_bytes = 0;
  Listener listener = value_of(Listener::bind(server));
  ChannelOptions client = client_of(listener.address());
  client.max_frame_bytes = 0;
  Channel channel = connected(client);
  value_of(channel.send({noise(4096), {}}));
  CHECK(received(listener).message.envelope.size() == 4096);
}

TEST_CASE("a server's message of three frames is an error and not the end",
          "[transport][hostile]") {
  const KeyPair keys = generate_keys();
  RawPeer server(zmq::socket_type::router);
  server.socket.set(zmq::sockopt::curve_server, true);
  server.socket.set(zmq::sockopt::curve_secretkey, keys.secret_key);
  server.socket.bind("tcp://127.0.0.1:*");
  const std::string endpoint = server.socket.get(zmq::sockopt::last_endpoint);
  const auto port = static_cast<uint16_t>(std::stoi(endpoint.substr(endpoint.rfind(':') + 1)));
  Channel channel = connected(client_of({"127.0.0.1", port, keys.public_key}));
  value_of(channel.send(message_of("hello")));
  const std::string id = server.receive_frame();
  CHECK(server.receive_frame() == "hello");
  server.send({id, "a", "b", "c"});
  server.send({id, "fine"});
  CHECK_FAILS_WITH(channel.receive(kPatience), ErrorCode::kCorrupt);
  CHECK(text_of(received(channel).envelope) == "fine");
}

TEST_CASE("bytes that are no protocol do not disturb the others", "[transport][hostile]") {
  EchoServer server(small_listener());
  const uint16_t port = server.address().port;
  // A greeting of ZeroMQ's own protocol, version 3.1, CURVE: valid, and then followed by rubbish.
  const std::string greeting =
      std::string("\xff\0\0\0\0\0\0\0\x01\x7f\x03\x01", 12) + "CURVE" + std::string(15 + 32, '\0');
  REQUIRE(greeting.size() == 64);
  const auto random = noise(5000);
  const std::vector<std::string> rubbish = {
      "",
      "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
      std::string(10'000, '\0'),
      std::string(10'000, '\xff'),
      text_of(random),
      greeting,
      greeting.substr(0, 20),
      greeting + text_of(random),
      greeting + std::string("\x04\xff", 2) + std::string(255, 'x'),      // a command
      greeting + std::string("\x02\x7f\xff\xff\xff\xff\xff\xff\xff", 9),  // 2^63 - 1 bytes to come
      std::string("\x01\x00", 2) + "an old protocol",
      std::string("\x05\x00rubb", 6)};
  std::vector<RawClient> clients;  // most stay open and silent
  for (const std::string& bytes : rubbish) {
    clients.emplace_back(port).send(bytes);
    RawClient(port).send(bytes);  // these hang up
  }
  Channel channel = connected(client_of(server.address()));
  value_of(channel.send({bytes_of("still"), noise(kFrameLimit)}));
  CHECK(text_of(received(channel).envelope) == "still");
  CHECK(server.failures() == 0);
}

/// Says hello as a DEALER without encryption (ZeroMQ RFC 23), and then whatever it is told to.
class RawDealer {
 public:
  explicit RawDealer(uint16_t port) : client_(port) {
    const std::string greeting =
        std::string("\xff\0\0\0\0\0\0\0\0\x7f\x03\0NULL", 16) + std::string(48, '\0');
    const std::string ready(
        "\x04\x1c\x05READY\x0bSocket-Type\0\0\0\x06"
        "DEALER",
        30);
    REQUIRE(client_.send(greeting));
    REQUIRE(client_.receive(greeting.size()));
    REQUIRE(client_.send(ready));
  }
  /// A frame after which more are to come.
  [[nodiscard]] bool send_more(size_t bytes) const {
    std::string frame("\x03", 1);
    for (int shift = 56; shift >= 0; shift -= 8) frame += static_cast<char>(bytes >> shift);
    return client_.send(frame + std::string(bytes, 'x'));
  }

 private:
  RawClient client_;
};

TEST_CASE("a message without an end is cut off before it fills the memory",
          "[transport][hostile]") {
  ListenerOptions options = open_listener(/*encrypted=*/false);
  options.max_frame_bytes = 1UL << 20U;
  Listener listener = value_of(Listener::bind(options));
  Channel good = connected(client_of(listener.address()));
  constexpr size_t kFrames = 2000;  // 2 GB
  const RawDealer endless(listener.address().port);
  size_t sent = 0;
  while (sent < kFrames && endless.send_more(1UL << 20U)) ++sent;
  // 18 messages' worth and 8 MiB are allowed, and what arrives until it is noticed comes on top.
  CHECK(sent < kFrames);
  CHECK(listener.cut_connections() == 1);
  // Large messages that do end are no offence, however many.
  for (int i = 0; i < 100; ++i) {
    value_of(good.send({bytes_of("large"), noise(1UL << 20U)}));
    CHECK(received(listener).message.payload.size() == 1UL << 20U);
  }
  CHECK(listener.cut_connections() == 1);
}

TEST_CASE("many connections with unfinished messages are cut off together",
          "[transport][hostile]") {
  ListenerOptions options = open_listener(/*encrypted=*/false);
  options.max_frame_bytes = 8192;
  options.queue_messages = 1;
  Listener listener = value_of(Listener::bind(options));
  // 8 MB and a little are allowed to each, 16 times as much to all.
  std::vector<RawDealer> crowd;
  for (int i = 0; i < 24; ++i) {
    crowd.emplace_back(listener.address().port);
    for (int frame = 0; frame < 900; ++frame) static_cast<void>(crowd.back().send_more(8192));
  }
  const auto give_up = std::chrono::steady_clock::now() + kPatience;
  while (listener.cut_connections() < 5 && std::chrono::steady_clock::now() < give_up) {
    std::this_thread::sleep_for(milliseconds(5));
  }
  CHECK(listener.cut_connections() >= 5);
  CHECK(listener.cut_connections() < 24);
}

TEST_CASE("a client cannot take another one's place", "[transport][hostile]") {
  Listener listener = value_of(Listener::bind(small_listener()));
  const KeyPair first_keys = generate_keys();
  RawPeer first(zmq::socket_type::dealer);
  first.socket.set(zmq::sockopt::routing_id, "chosen");
  first.connect(listener.address(), first_keys);
  first.send({"one"});
  const Incoming incoming = received(listener);
  CHECK(incoming.from.routing_id == "chosen");

  RawPeer second(zmq::socket_type::dealer);
  second.socket.set(zmq::sockopt::routing_id, "chosen");
  second.connect(listener.address(), generate_keys());
  second.send({"two"});
  CHECK_FALSE(value_of(listener.receive(milliseconds(300))).has_value());
  value_of(listener.send(incoming.from, message_of("for the first")));
  CHECK(first.receive_frame() == "for the first");
  first.send({"three"});
  CHECK(received(listener).from.public_key == first_keys.public_key);
}

TEST_CASE("a client that reads no answers costs a bounded queue and blocks nobody",
          "[transport][hostile]") {
  ListenerOptions options = open_listener();
  options.queue_messages = 4;
  Listener listener = value_of(Listener::bind(options));
  RawPeer deaf(zmq::socket_type::dealer);
  deaf.socket.set(zmq::sockopt::rcvhwm, 1);
  deaf.connect(listener.address(), generate_keys());
  deaf.send({"talk to me"});
  const Peer peer = received(listener).from;
  const Message answer{bytes_of("answer"), noise(1UL << 20U)};
  Status status;
  int sent = 0;
  // The operating system's socket buffers take some megabytes before the queue fills.
  while (status && sent < 200) {
    status = listener.send(peer, answer);
    sent += status ? 1 : 0;
  }
  CHECK_FAILS_WITH(status, ErrorCode::kBusy);
  CHECK(sent < 200);

  Channel channel = connected(client_of(listener.address()));
  value_of(channel.send(message_of("hello")));
  const Incoming incoming = received(listener);
  value_of(listener.send(incoming.from, answer));
  CHECK(received(channel).payload == answer.payload);
}

}  // namespace
}  // namespace isthmus::transport
