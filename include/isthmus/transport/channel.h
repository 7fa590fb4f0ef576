// Encrypted message passing over ZeroMQ: a device's Channel (DEALER) and a server's Listener
// (ROUTER).
//
// Both move an envelope and at most one payload and know nothing about either. CURVE (ZeroMQ RFC
// 26) encrypts and authenticates both sides. Each object owns its ZeroMQ context, because ZeroMQ
// allows one authenticator per context.
#pragma once

#include <isthmus/core/error.h>
#include <isthmus/transport/address.h>
#include <isthmus/transport/keys.h>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace isthmus::transport {

struct Message {
  std::vector<std::byte> envelope;
  std::vector<std::byte> payload;  ///< empty: no payload frame
};

struct ChannelOptions {
  ServerAddress server;
  KeyPair keys;                  ///< ours; unused without a server key
  bool allow_plaintext = false;  ///< accept an address without a key
  /// Larger frames from the server break the connection; at most 1 GiB. Frames of up to 8 KiB
  /// always pass, because handshakes and envelopes need them.
  size_t max_frame_bytes = 64UL << 20U;
  std::chrono::milliseconds max_silence{30'000};  ///< a peer that answers no heartbeat for so long
                                                  ///< is taken for lost; 100 ms to 10 min

  [[nodiscard]] Status validate() const;
};

/// A device's connection to one server. It reconnects by itself; what was under way then is the
/// caller's to repeat. Owned by one thread.
class Channel {
 public:
  /// Starts connecting and waits until the encrypted handshake is done.
  /// \returns kInvalidArgument, kTimeout, kServerLost (nothing listens there), kKeyRefused (either
  /// side's key).
  [[nodiscard]] static Result<Channel> connect(const ChannelOptions& options,
                                               std::chrono::milliseconds timeout);

  Channel(Channel&&) noexcept;
  Channel& operator=(Channel&&) noexcept;
  ~Channel();

  /// \returns kBusy when the outgoing queue is full, kOutOfMemory; then nothing was sent.
  [[nodiscard]] Status send(const Message& message);

  /// The next message, or nothing when `timeout` passes first.
  /// \returns kServerLost when the connection broke (once for each break; the channel goes on
  /// trying to reconnect), kKeyRefused, kCorrupt for a message of more than two frames,
  /// kOutOfMemory.
  [[nodiscard]] Result<std::optional<Message>> receive(std::chrono::milliseconds timeout);

  /// Whether the handshake is done, as far as the last `receive` saw: not from a break on until the
  /// server is back.
  [[nodiscard]] bool is_connected() const;

  /// Bytes handed to and taken from ZeroMQ so far, frames only (encryption adds about 33 bytes a
  /// frame).
  [[nodiscard]] uint64_t bytes_sent() const;
  [[nodiscard]] uint64_t bytes_received() const;

 private:
  struct Link;
  struct Impl;
  explicit Channel(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

struct ListenerOptions {
  std::string host = "127.0.0.1";  ///< address to bind, "*" for all
  uint16_t port = 0;               ///< 0: any free one
  std::optional<KeyPair>
      keys;  ///< ours; none: no encryption, refused on a non-loopback address unless `insecure`
  bool insecure = false;
  bool allow_any_client = false;  ///< accept every client key
  std::filesystem::path
      allow_list;  ///< read at every handshake, so that enrolling needs no restart
  size_t max_frame_bytes = 64UL << 20U;  ///< as in ChannelOptions
  /// Messages buffered per peer and direction; then answers are dropped, and requests wait on the
  /// wire.
  int queue_messages = 16;
  std::chrono::milliseconds max_silence{30'000};  ///< as in ChannelOptions

  [[nodiscard]] Status validate() const;
};

/// Who sent a message: where to send the answer, and the key that was proven (empty without
/// encryption).
struct Peer {
  std::string routing_id;
  std::string public_key;
};

struct Incoming {
  Peer from;
  Message message;
};

/// A server's side: any number of clients. Owned by one thread.
class Listener {
 public:
  /// \returns kInvalidArgument (options, or a non-loopback address without keys), kIo when the
  /// address cannot be bound.
  [[nodiscard]] static Result<Listener> bind(const ListenerOptions& options);

  Listener(Listener&&) noexcept;
  Listener& operator=(Listener&&) noexcept;
  ~Listener();

  /// Where clients connect to: the bound host and port, with our public key. For "*" the host is
  /// "127.0.0.1".
  [[nodiscard]] const ServerAddress& address() const;

  /// The next message, or nothing when `timeout` passes first (or a signal arrives). Messages that
  /// are not one or two frames, or that there is no memory for, are dropped and counted; after a
  /// few hundred in a row it returns nothing, too.
  [[nodiscard]] Result<std::optional<Incoming>> receive(std::chrono::milliseconds timeout);

  /// Never blocks; an answer to a peer that has gone or does not read is dropped. \returns kBusy
  /// then, kOutOfMemory.
  [[nodiscard]] Status send(const Peer& to, const Message& message);

  [[nodiscard]] uint64_t dropped_messages() const;
  /// Connections that were cut because they sent more than they finished: the frames of an endless
  /// message, which would be held until its end.
  [[nodiscard]] uint64_t cut_connections() const;

 private:
  struct Impl;
  explicit Listener(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace isthmus::transport
