// Listeners, channels and echoing servers for the transport tests.
#pragma once

#include <isthmus/transport/channel.h>

#include <atomic>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "support/catch.h"

namespace isthmus::transport {

using std::chrono::milliseconds;
using std::chrono::seconds;

/// Far more than anything here takes; only a failing test waits so long.
constexpr seconds kPatience{20};

inline std::vector<std::byte> bytes_of(std::string_view text) {
  const auto bytes = std::as_bytes(std::span(text));
  return {bytes.begin(), bytes.end()};
}

inline std::string text_of(const std::vector<std::byte>& bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

inline Message message_of(std::string_view envelope, std::string_view payload = {}) {
  return {bytes_of(envelope), bytes_of(payload)};
}

/// Bytes that look random, the same for the same seed.
inline std::vector<std::byte> noise(size_t size, uint32_t seed = 1) {
  std::vector<std::byte> bytes(size);
  for (std::byte& byte : bytes) {
    seed = seed * 1664525U + 1013904223U;
    byte = static_cast<std::byte>(seed >> 24U);
  }
  return bytes;
}

/// A listener on a free port that admits every key.
inline ListenerOptions open_listener(bool encrypted = true) {
  ListenerOptions options;
  if (encrypted) options.keys = generate_keys();
  options.allow_any_client = true;
  return options;
}

inline ChannelOptions client_of(const ServerAddress& server) {
  ChannelOptions options;
  options.server = server;
  options.keys = generate_keys();
  options.allow_plaintext = server.public_key.empty();
  return options;
}

inline Channel connected(const ChannelOptions& options) {
  return test::value_of(Channel::connect(options, kPatience));
}

/// The next message, which must come.
inline Message received(Channel& channel) {
  auto message = test::value_of(channel.receive(kPatience));
  REQUIRE(message.has_value());
  return std::move(*message);
}

inline Incoming received(Listener& listener) {
  auto incoming = test::value_of(listener.receive(kPatience));
  REQUIRE(incoming.has_value());
  return std::move(*incoming);
}

/// Sends every message back on a thread of its own.
class EchoServer {
 public:
  explicit EchoServer(const ListenerOptions& options)
      : listener_(test::value_of(Listener::bind(options))), thread_([this] { run(); }) {}
  ~EchoServer() {
    stopping_ = true;
    thread_.join();
  }
  EchoServer(const EchoServer&) = delete;
  EchoServer& operator=(const EchoServer&) = delete;

  [[nodiscard]] const ServerAddress& address() const { return listener_.address(); }
  [[nodiscard]] int failures() const { return failures_; }

 private:
  void run() {
    while (!stopping_) {
      auto incoming = listener_.receive(milliseconds(20));
      if (!incoming) ++failures_;
      if (!incoming || !*incoming) continue;
      // A client may have gone by now, which is its own affair.
      static_cast<void>(listener_.send((*incoming)->from, std::move((*incoming)->message)));
    }
  }

  Listener listener_;
  std::atomic<bool> stopping_ = false;
  std::atomic<int> failures_ = 0;
  std::thread thread_;
};

}  // namespace isthmus::transport
