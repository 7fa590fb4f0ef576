#include "status_endpoint.h"

#include <CivetServer.h>

#include <utility>
#include <vector>

namespace isthmus::tools {

/// One page: its status and its text, made afresh for every request.
class StatusEndpoint::Page final : public CivetHandler {
 public:
  using Content = std::pair<bool, std::string>;
  explicit Page(std::function<Content()> make) : make_(std::move(make)) {}

  bool handleGet(CivetServer* /*server*/, mg_connection* connection) override {
    const auto [good, text] = make_();
    mg_printf(connection,
              "HTTP/1.1 %s\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: %zu\r\n"
              "Connection: close\r\n\r\n",
              good ? "200 OK" : "503 Service Unavailable", text.size());
    mg_write(connection, text.data(), text.size());
    return true;
  }

 private:
  std::function<Content()> make_;
};

StatusEndpoint::StatusEndpoint() = default;
StatusEndpoint::StatusEndpoint(StatusEndpoint&&) noexcept = default;
StatusEndpoint& StatusEndpoint::operator=(StatusEndpoint&&) noexcept = default;
StatusEndpoint::~StatusEndpoint() = default;

Result<StatusEndpoint> StatusEndpoint::start(const std::string& address, Sources sources) {
  const auto yes_or_no = [](std::function<bool()> ask) {
    return [ask = std::move(ask)]() -> Page::Content {
      return ask() ? Page::Content{true, "yes\n"} : Page::Content{false, "no\n"};
    };
  };
  StatusEndpoint endpoint;
  endpoint.metrics_ =
      std::make_unique<Page>([make = std::move(sources.metrics)]() -> Page::Content {
        return {true, make()};
      });
  endpoint.health_ = std::make_unique<Page>(yes_or_no(std::move(sources.healthy)));
  endpoint.readiness_ = std::make_unique<Page>(yes_or_no(std::move(sources.ready)));
  // For civetweb a port alone is one on all interfaces.
  const std::string port = address.starts_with("*:") ? address.substr(2) : address;
  try {
    endpoint.server_ = std::make_unique<CivetServer>(std::vector<std::string>{
        "listening_ports", port, "num_threads", "2", "request_timeout_ms", "5000"});
  } catch (const CivetException& error) {
    return fail(ErrorCode::kIo, "cannot serve metrics on " + address + ": " + error.what());
  }
  endpoint.server_->addHandler("/metrics$", *endpoint.metrics_);
  endpoint.server_->addHandler("/healthz$", *endpoint.health_);
  endpoint.server_->addHandler("/readyz$", *endpoint.readiness_);
  return endpoint;
}

}  // namespace isthmus::tools
