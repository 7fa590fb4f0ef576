// A TCP proxy on 127.0.0.1 that writes down what passes and can be told to misbehave.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <mutex>
#include <span>
#include <string_view>
#include <thread>
#include <vector>

namespace isthmus::test {

/// Forwards each connection to a port of this machine. All methods are safe from any thread and
/// take effect on bytes that have not been forwarded yet. \throws std::runtime_error from the
/// constructor.
class RecordingProxy {
 public:
  /// `up` is from the client to the target.
  enum class Direction { kUp, kDown };

  explicit RecordingProxy(uint16_t target_port);
  ~RecordingProxy();
  RecordingProxy(const RecordingProxy&) = delete;
  RecordingProxy& operator=(const RecordingProxy&) = delete;

  [[nodiscard]] uint16_t port() const { return port_; }

  /// Everything forwarded in one direction so far, all connections together.
  [[nodiscard]] std::vector<std::byte> recorded(Direction direction) const;
  /// Whether `text` occurs in what was forwarded in either direction.
  [[nodiscard]] bool saw(std::string_view text) const;
  [[nodiscard]] bool saw(std::span<const std::byte> bytes) const;
  [[nodiscard]] size_t connections_accepted() const;

  /// Ends all connections; what they had not forwarded is lost. New ones are accepted.
  void cut();
  /// Ends all connections as soon as `count` more bytes have been forwarded in this direction.
  void cut_after(Direction direction, size_t count);
  /// While held, connections stay open and nothing is forwarded.
  void hold(bool on);
  /// What arrives from now on is forwarded in pieces of so many bytes, one every millisecond.
  void trickle(size_t bytes);
  /// Each byte is forwarded this long after its arrival.
  void delay(std::chrono::milliseconds pause);

 private:
  struct Chunk {
    std::chrono::steady_clock::time_point due;
    std::vector<std::byte> bytes;
  };
  /// One way of one connection.
  struct Flow {
    Direction direction;
    int from;
    int to;
    std::deque<Chunk> chunks;
    size_t waiting = 0;  // bytes in `chunks`
    bool ended = false;  // nothing more will be read
  };
  struct Connection {
    Flow up;
    Flow down;
    bool over = false;
  };

  void run();
  [[nodiscard]] int wait();
  void accept_one();
  void read_from(Connection& connection, Flow& flow);
  void write_to(Connection& connection, Flow& flow);
  void wake() const;
  void close_finished();

  uint16_t target_port_;
  uint16_t port_ = 0;
  int listener_ = -1;
  int waker_ = -1;

  mutable std::mutex mutex_;  // guards all that follows
  std::deque<Connection> connections_;
  std::vector<std::byte> recorded_[2];
  size_t accepted_ = 0;
  size_t cut_at_[2] = {SIZE_MAX, SIZE_MAX};
  std::chrono::milliseconds delay_{0};
  size_t piece_ = SIZE_MAX;  // bytes forwarded at once
  bool held_ = false;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace isthmus::test
