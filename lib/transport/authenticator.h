// Decides which client keys may connect: the ZAP handler (ZeroMQ RFC 27) of one context.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <thread>
#include <zmq.hpp>

namespace isthmus::transport {

/// Serves authentication requests on a thread of its own until it is destroyed. A client that is
/// let in gets its public key as user id, so that each of its messages carries it.
class Authenticator {
 public:
  /// \param allow_list read afresh at every handshake; one that cannot be read admits nobody.
  ///   Nothing: every key is admitted.
  /// `context` must outlive this. \throws zmq::error_t
  Authenticator(zmq::context_t& context, std::optional<std::filesystem::path> allow_list);
  /// Shuts `context` down, because that is what wakes the thread: close its other sockets first.
  ~Authenticator();
  Authenticator(const Authenticator&) = delete;
  Authenticator& operator=(const Authenticator&) = delete;

 private:
  void serve() noexcept;
  void answer_one();
  void refuse_unanswered() noexcept;
  [[nodiscard]] bool admits(const std::string& public_key) const;

  zmq::context_t& context_;
  zmq::socket_t requests_;
  std::optional<std::filesystem::path> allow_list_;
  std::thread thread_;
};

}  // namespace isthmus::transport
