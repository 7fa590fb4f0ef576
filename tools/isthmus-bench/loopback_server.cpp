#include "loopback_server.h"

#include <utility>

namespace isthmus::tools {

Result<std::unique_ptr<LoopbackServer>> LoopbackServer::start(engine::Engine& engine,
                                                              int32_t max_tokens) {
  server::ServerOptions options;
  options.quotas.max_sessions = 2;
  options.max_tokens = max_tokens;
  transport::ListenerOptions listening;
  listening.keys = transport::generate_keys();
  listening.allow_any_client = true;
  listening.max_frame_bytes =
      options.max_payload_bytes(static_cast<size_t>(engine.config().hidden_size));
  ISTHMUS_ASSIGN(transport::Listener listener, transport::Listener::bind(listening));
  return std::unique_ptr<LoopbackServer>(new LoopbackServer(engine, options, std::move(listener)));
}

LoopbackServer::LoopbackServer(engine::Engine& engine, server::ServerOptions options,
                               transport::Listener listener)
    : options_(options),
      host_(engine, /*fingerprint=*/{}, options, clock_, observer_),
      listener_(std::move(listener)),
      // A listener that fails is seen by the client, whose requests time out.
      thread_([this] {
        (void)server::serve(listener_, host_, options_.drain_timeout, clock_, stop_);
      }) {}

LoopbackServer::~LoopbackServer() {
  stop_ = true;
  thread_.join();
}

}  // namespace isthmus::tools
