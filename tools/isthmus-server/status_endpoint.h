// /metrics, /healthz and /readyz over plain HTTP, for the operator's own network.
#pragma once

#include <isthmus/core/error.h>

#include <functional>
#include <memory>
#include <string>

class CivetServer;

namespace isthmus::tools {

/// Answers on threads of its own until it is destroyed.
class StatusEndpoint {
 public:
  /// What is asked, from any thread.
  struct Sources {
    std::function<std::string()> metrics;
    std::function<bool()> healthy;  ///< the server makes progress; if not, restart it
    std::function<bool()> ready;    ///< it takes new sessions
  };

  /// \param address "host:port", or "*:port" for all interfaces. \returns kIo when it cannot
  /// listen.
  [[nodiscard]] static Result<StatusEndpoint> start(const std::string& address, Sources sources);
  StatusEndpoint(StatusEndpoint&&) noexcept;
  StatusEndpoint& operator=(StatusEndpoint&&) noexcept;
  ~StatusEndpoint();

 private:
  class Page;
  StatusEndpoint();
  std::unique_ptr<Page> metrics_;
  std::unique_ptr<Page> health_;
  std::unique_ptr<Page> readiness_;
  std::unique_ptr<CivetServer> server_;  // first to go
};

}  // namespace isthmus::tools
