// A server for a model's later layers in this process, behind a real encrypted socket.
#pragma once

#include <isthmus/core/clock.h>
#include <isthmus/core/error.h>
#include <isthmus/engine/engine.h>
#include <isthmus/server/server.h>
#include <isthmus/transport/channel.h>

#include <atomic>
#include <memory>
#include <string>
#include <thread>

namespace isthmus::tools {

/// Serves on a free loopback port, with keys made for it, until it is destroyed.
class LoopbackServer {
 public:
  /// `engine` is borrowed, and used by the server's thread alone as long as the server lives.
  /// \returns the errors of Listener::bind.
  [[nodiscard]] static Result<std::unique_ptr<LoopbackServer>> start(engine::Engine& engine,
                                                                     int32_t max_tokens);
  ~LoopbackServer();
  LoopbackServer(const LoopbackServer&) = delete;
  LoopbackServer& operator=(const LoopbackServer&) = delete;

  /// The connection string.
  [[nodiscard]] std::string address() const { return listener_.address().to_string(); }

 private:
  LoopbackServer(engine::Engine& engine, server::ServerOptions options,
                 transport::Listener listener);

  server::ServerOptions options_;
  SteadyClock clock_;
  server::Observer observer_;
  server::SessionHost host_;
  transport::Listener listener_;
  std::atomic<bool> stop_ = false;
  std::thread thread_;
};

}  // namespace isthmus::tools
