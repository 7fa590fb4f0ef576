// What works, and who is let in.
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <fstream>

#include "peers.h"
#include "support/recording_proxy.h"
#include "support/temp_folder.h"

namespace isthmus::transport {
namespace {

using test::RecordingProxy;
using test::TempFolder;
using test::value_of;

TEST_CASE("messages of every size come back as they were", "[transport][channel]") {
  const bool encrypted = GENERATE(true, false);
  EchoServer server(open_listener(encrypted));
  Channel channel = connected(client_of(server.address()));
  uint64_t bytes = 0;
  for (const size_t size : {0UL, 1UL, 33UL, 2048UL, 65'536UL, 4UL << 20U}) {
    CAPTURE(encrypted, size);
    const Message sent{noise(size % 4096), noise(size, 7)};
    value_of(channel.send(sent));
    const Message echo = received(channel);
    CHECK(echo.envelope == sent.envelope);
    CHECK(echo.payload == sent.payload);
    bytes += sent.envelope.size() + sent.payload.size();
    CHECK(channel.bytes_sent() == bytes);
    CHECK(channel.bytes_received() == bytes);
  }
  CHECK(server.failures() == 0);
}

TEST_CASE("messages keep their order", "[transport][channel]") {
  Listener listener = value_of(Listener::bind(open_listener()));
  Channel channel = connected(client_of(listener.address()));
  for (int i = 0; i < 40; ++i) value_of(channel.send(message_of(std::to_string(i))));
  for (int i = 0; i < 40; ++i) {
    CHECK(text_of(received(listener).message.envelope) == std::to_string(i));
  }
}

TEST_CASE("each client is known by the key it has proven and gets its own answers",
          "[transport][channel]") {
  Listener listener = value_of(Listener::bind(open_listener()));
  std::vector<ChannelOptions> options;
  std::vector<Channel> channels;
  for (int i = 0; i < 12; ++i) {
    options.push_back(client_of(listener.address()));
    channels.push_back(connected(options.back()));
    value_of(channels.back().send(message_of(options.back().keys.public_key)));
  }
  for (size_t i = 0; i < channels.size(); ++i) {
    const Incoming incoming = received(listener);
    CHECK(incoming.from.public_key == text_of(incoming.message.envelope));
    value_of(listener.send(incoming.from, message_of("for " + incoming.from.public_key)));
  }
  for (size_t i = 0; i < channels.size(); ++i) {
    CHECK(text_of(received(channels[i]).envelope) == "for " + options[i].keys.public_key);
  }
}

TEST_CASE("without encryption no key is claimed", "[transport][channel]") {
  Listener listener = value_of(Listener::bind(open_listener(/*encrypted=*/false)));
  CHECK(listener.address().public_key.empty());
  Channel channel = connected(client_of(listener.address()));
  value_of(channel.send(message_of("hello")));
  CHECK(received(listener).from.public_key.empty());
}

TEST_CASE("receiving ends with nothing when nothing comes", "[transport][channel]") {
  Listener listener = value_of(Listener::bind(open_listener()));
  Channel channel = connected(client_of(listener.address()));
  const auto timeout = milliseconds(GENERATE(0, 30));
  const auto begin = std::chrono::steady_clock::now();
  CHECK_FALSE(value_of(channel.receive(timeout)).has_value());
  CHECK_FALSE(value_of(listener.receive(timeout)).has_value());
  CHECK(std::chrono::steady_clock::now() - begin >= 2 * timeout);
}

TEST_CASE("a timeout may be as long as there are numbers for", "[transport][channel]") {
  EchoServer server(open_listener());
  Channel channel = connected(client_of(server.address()));
  value_of(channel.send(message_of("hello")));
  CHECK(value_of(channel.receive(milliseconds::max())).has_value());
}

TEST_CASE("ipv6 addresses work", "[transport][channel]") {
  ListenerOptions options = open_listener();
  options.host = "::1";
  auto listener = Listener::bind(options);
  if (!listener) {
    WARN("this machine has no ::1: " << listener.error().message);
    return;
  }
  const ServerAddress address = value_of(ServerAddress::parse(listener->address().to_string()));
  Channel channel = connected(client_of(address));
  value_of(channel.send(message_of("six")));
  CHECK(text_of(received(*listener).message.envelope) == "six");
}

TEST_CASE("a server on every address says where it is found from here", "[transport][channel]") {
  ListenerOptions options = open_listener();
  options.host = "*";
  Listener listener = value_of(Listener::bind(options));
  CHECK(listener.address().host == "127.0.0.1");
  CHECK(listener.address().public_key == options.keys->public_key);
  ServerAddress by_name = listener.address();
  by_name.host = "localhost";
  Channel channel = connected(client_of(by_name));
  value_of(channel.send(message_of("hello")));
  CHECK(text_of(received(listener).message.envelope) == "hello");
}

TEST_CASE("a port that is taken cannot be bound", "[transport][channel]") {
  const Listener first = value_of(Listener::bind(open_listener()));
  ListenerOptions options = open_listener();
  options.port = first.address().port;
  CHECK_FAILS_WITH(Listener::bind(options), ErrorCode::kIo);
}

TEST_CASE("a server key other than the address names is refused", "[transport][keys]") {
  EchoServer server(open_listener());
  ChannelOptions options = client_of(server.address());
  options.server.public_key = generate_keys().public_key;
  const auto begin = std::chrono::steady_clock::now();
  CHECK_FAILS_WITH(Channel::connect(options, seconds(5)), ErrorCode::kKeyRefused);
  CHECK(std::chrono::steady_clock::now() - begin < seconds(5));
}

TEST_CASE("a client is let in as soon as it is enrolled, and not before", "[transport][keys]") {
  const TempFolder folder;
  ListenerOptions options = open_listener();
  options.allow_any_client = false;
  options.allow_list = folder.path() / "allowed";
  EchoServer server(options);
  const ChannelOptions client = client_of(server.address());

  const auto begin = std::chrono::steady_clock::now();
  const auto refused = Channel::connect(client, seconds(5));
  CHECK_FAILS_WITH(refused, ErrorCode::kKeyRefused);
  CHECK(refused.error().message.find(client.keys.public_key) != std::string::npos);
  CHECK(std::chrono::steady_clock::now() - begin < seconds(5));

  value_of(enrol(options.allow_list, generate_keys().public_key, "someone else"));
  CHECK_FAILS_WITH(Channel::connect(client, seconds(5)), ErrorCode::kKeyRefused);

  value_of(enrol(options.allow_list, client.keys.public_key, "us"));
  {
    Channel channel = connected(client);
    value_of(channel.send(message_of("hello")));
    CHECK(text_of(received(channel).envelope) == "hello");
  }
  // A list that cannot be read admits nobody.
  std::ofstream(options.allow_list, std::ios::app) << "nonsense\n";
  CHECK_FAILS_WITH(Channel::connect(client, seconds(5)), ErrorCode::kKeyRefused);
  std::filesystem::remove(options.allow_list);
  CHECK_FAILS_WITH(Channel::connect(client, seconds(5)), ErrorCode::kKeyRefused);
}

TEST_CASE("a client whose secret key is not its public key's is refused", "[transport][keys]") {
  EchoServer server(open_listener());
  ChannelOptions options = client_of(server.address());
  options.keys.secret_key = generate_keys().secret_key;
  CHECK_FAILS_WITH(Channel::connect(options, seconds(5)), ErrorCode::kKeyRefused);
}

TEST_CASE("encryption is never negotiated away", "[transport][keys]") {
  SECTION("a client with keys and a server without") {
    EchoServer server(open_listener(/*encrypted=*/false));
    ChannelOptions options = client_of(server.address());
    options.server.public_key = generate_keys().public_key;
    CHECK_FAILS_WITH(Channel::connect(options, seconds(5)), ErrorCode::kKeyRefused);
  }
  SECTION("a client without keys and a server with them") {
    Listener listener = value_of(Listener::bind(open_listener()));
    ChannelOptions options = client_of(listener.address());
    options.server.public_key.clear();
    CHECK_FAILS_WITH(Channel::connect(options, seconds(5)), ErrorCode::kInvalidArgument);
    options.allow_plaintext = true;
    CHECK_FAILS_WITH(Channel::connect(options, seconds(5)), ErrorCode::kKeyRefused);
    CHECK_FALSE(value_of(listener.receive(milliseconds(0))).has_value());
  }
}

TEST_CASE("the wire shows nothing of what an encrypted message says", "[transport][keys]") {
  const bool encrypted = GENERATE(true, false);
  EchoServer server(open_listener(encrypted));
  RecordingProxy proxy(server.address().port);
  ServerAddress address = server.address();
  address.port = proxy.port();
  const ChannelOptions options = client_of(address);
  Channel channel = connected(options);

  const std::vector<std::byte> payload = noise(40'000, 3);
  value_of(channel.send({bytes_of("the secret envelope"), payload}));
  CHECK(received(channel).payload == payload);
  CAPTURE(encrypted);
  // Any 16 bytes in a row would be a leak; without encryption this finds them, so it can fail.
  CHECK(proxy.saw("the secret envel") == !encrypted);
  for (size_t at = 0; at + 16 <= payload.size(); at += 4000) {
    CHECK(proxy.saw(std::span(payload).subspan(at, 16)) == !encrypted);
  }
  CHECK(proxy.recorded(RecordingProxy::Direction::kUp).size() > payload.size());
  CHECK(proxy.recorded(RecordingProxy::Direction::kDown).size() > payload.size());
  CHECK_FALSE(proxy.saw(options.keys.public_key));
}

TEST_CASE("listener options are checked", "[transport][options]") {
  const ListenerOptions good = open_listener();
  CHECK(good.validate().has_value());
  ListenerOptions bad = good;
  SECTION("a name is no address to bind") {
    bad.host = "server.example";
  }
  SECTION("nor is an empty host") {
    bad.host = "";
  }
  SECTION("frame limit") {
    bad.max_frame_bytes = (1UL << 30U) + 1;
  }
  SECTION("no queue") {
    bad.queue_messages = 0;
  }
  SECTION("endless queue") {
    bad.queue_messages = 100'001;
  }
  SECTION("too little silence") {
    bad.max_silence = milliseconds(99);
  }
  SECTION("too much silence") {
    bad.max_silence = milliseconds(600'001);
  }
  SECTION("public key") {
    bad.keys->public_key = "x";
  }
  SECTION("secret key") {
    bad.keys->secret_key = "";
  }
  SECTION("nobody may connect") {
    bad.allow_any_client = false;
  }
  SECTION("every address without keys") {
    bad.keys.reset();
    bad.host = "*";
  }
  SECTION("one outside address without keys") {
    bad.keys.reset();
    bad.host = "192.0.2.1";
  }
  CHECK_FAILS_WITH(bad.validate(), ErrorCode::kInvalidArgument);
  CHECK_FAILS_WITH(Listener::bind(bad), ErrorCode::kInvalidArgument);
}

TEST_CASE("a server may listen to the world without keys only when told to",
          "[transport][options]") {
  ListenerOptions options = open_listener(/*encrypted=*/false);
  options.host = "0.0.0.0";
  CHECK_FAILS_WITH(Listener::bind(options), ErrorCode::kInvalidArgument);
  options.insecure = true;
  CHECK(value_of(Listener::bind(options)).address().host == "127.0.0.1");
}

TEST_CASE("a broken allow-list is reported when the server starts", "[transport][options]") {
  const TempFolder folder;
  ListenerOptions options = open_listener();
  options.allow_any_client = false;
  options.allow_list = folder.path() / "allowed";
  std::ofstream(options.allow_list) << "nonsense\n";
  CHECK_FAILS_WITH(Listener::bind(options), ErrorCode::kCorrupt);
}

TEST_CASE("channel options are checked", "[transport][options]") {
  const ChannelOptions good = client_of({"127.0.0.1", 1, generate_keys().public_key});
  CHECK(good.validate().has_value());
  ChannelOptions bad = good;
  SECTION("no host") {
    bad.server.host = "";
  }
  SECTION("no port") {
    bad.server.port = 0;
  }
  SECTION("server key") {
    bad.server.public_key = "x";
  }
  SECTION("no server key") {
    bad.server.public_key = "";
  }
  SECTION("public key") {
    bad.keys.public_key = "";
  }
  SECTION("secret key") {
    bad.keys.secret_key = "x";
  }
  SECTION("frame limit") {
    bad.max_frame_bytes = SIZE_MAX;
  }
  SECTION("silence") {
    bad.max_silence = milliseconds(0);
  }
  CHECK_FAILS_WITH(bad.validate(), ErrorCode::kInvalidArgument);
  CHECK_FAILS_WITH(Channel::connect(bad, seconds(1)), ErrorCode::kInvalidArgument);
}

extern "C" void note_signal(int) {}

TEST_CASE("a signal ends a server's wait, so that it sees that it shall stop",
          "[transport][signals]") {
  Listener listener = value_of(Listener::bind(open_listener()));
  struct sigaction action {};
  action.sa_handler = note_signal;
  struct sigaction before {};
  REQUIRE(::sigaction(SIGUSR1, &action, &before) == 0);
  // A child signals the process, not a thread, until the wait ends: no thread of the listener's own
  // may swallow that.
  const pid_t child = ::fork();
  if (child == 0) {
    const pid_t parent = ::getppid();
    while (::getppid() == parent && ::kill(parent, SIGUSR1) == 0) ::usleep(20'000);
    ::_exit(0);
  }
  const auto begin = std::chrono::steady_clock::now();
  CHECK_FALSE(value_of(listener.receive(kPatience)).has_value());
  CHECK(std::chrono::steady_clock::now() - begin < kPatience);

  // A device's wait goes on, and its sending and receiving are not disturbed.
  Channel channel = connected(client_of(listener.address()));
  const auto wait_begin = std::chrono::steady_clock::now();
  CHECK_FALSE(value_of(channel.receive(milliseconds(100))).has_value());
  CHECK(std::chrono::steady_clock::now() - wait_begin >= milliseconds(100));
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  ::sigaction(SIGUSR1, &before, nullptr);
}

}  // namespace
}  // namespace isthmus::transport
