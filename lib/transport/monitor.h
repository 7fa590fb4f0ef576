// What happens to a client socket's connection, told apart from libzmq's socket events.
#pragma once

#include <optional>
#include <zmq.hpp>

namespace isthmus::transport {

enum class ConnectionEvent {
  kReady,        ///< the handshake is done
  kUnreachable,  ///< nothing accepts connections there; libzmq tries again
  kRefused,      ///< the server said that our key is not enrolled; libzmq gives up
  kMismatch,     ///< the peer speaks another protocol or no encryption; libzmq gives up
  kHungUp,       ///< the peer closed during the handshake: what a server does that cannot open our
                 ///< first message, and also one that dies at that moment; libzmq tries again
  kSilent,       ///< the peer did not finish the handshake in time; libzmq tries again
  kBroken,       ///< a connection ended; follows all of the above but the first two. Alone, it ends
                 ///< a connection that was ready, or one whose peer broke a rule: then libzmq
                 ///< gives up.
};

/// The events of one socket, which must be watched before it connects.
class Monitor {
 public:
  /// One for each context. \throws zmq::error_t
  Monitor(zmq::context_t& context, zmq::socket_t& watched);

  /// Readable when there may be an event.
  [[nodiscard]] zmq::socket_t& socket() { return events_; }
  /// The next event that has happened; never blocks.
  [[nodiscard]] std::optional<ConnectionEvent> next();

 private:
  zmq::socket_t events_;
};

}  // namespace isthmus::transport
