// Bounds what unfinished messages can make a listening socket hold.
//
// libzmq counts whole messages against its queues and keeps the frames of one that never ends. This
// compares what the kernel received on each connection with what came out of the socket as complete
// messages, and cuts the connection when the difference is more than a well-behaved client can
// cause.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <thread>
#include <zmq.hpp>

namespace isthmus::transport {

class FloodGuard {
 public:
  struct Limits {
    uint64_t per_connection = 0;  ///< bytes received that were not delivered yet
    uint64_t total = 0;           ///< the same over all; beyond it the largest are cut
  };

  /// Watches the connections that `listening` accepts, on a thread of its own. The socket must not
  /// be bound yet and must outlive this. \throws zmq::error_t, std::system_error
  FloodGuard(zmq::context_t& context, zmq::socket_t& listening, Limits limits);
  ~FloodGuard();
  FloodGuard(const FloodGuard&) = delete;
  FloodGuard& operator=(const FloodGuard&) = delete;

  /// A complete message of so many frames and bytes came out of connection `fd`. Thread-safe.
  void delivered(int fd, size_t frames, size_t bytes);

  /// Connections cut so far. Thread-safe.
  [[nodiscard]] uint64_t cut() const { return cut_; }

 private:
  struct Connection {
    int fd = -1;
    uint64_t received = 0;   // by the kernel
    uint64_t accounted = 0;  // delivered, and what the protocol itself needs
    [[nodiscard]] uint64_t unread() const { return received - accounted; }
  };

  void watch() noexcept;
  void take_events();
  void look_at_connections();
  void cut_off(const Connection& connection);

  Limits limits_;
  zmq::socket_t events_;
  std::mutex mutex_;
  std::map<uint64_t, Connection> connections_;  // by socket cookie, which is never used again
  std::atomic<uint64_t> cut_ = 0;
  std::atomic<bool> stop_ = false;
  std::thread thread_;
};

}  // namespace isthmus::transport
