// The loop, over a real socket.
#include <isthmus/server/server.h>

#include "host_fixture.h"

namespace isthmus::server {
namespace {

constexpr std::string_view kPlain;  // the key of a client without encryption

transport::Listener plain_listener() {
  transport::ListenerOptions options;
  options.insecure = true;
  return value_of(transport::Listener::bind(options));
}

/// A clock on which a second passes whenever somebody looks.
class HurriedClock final : public Clock {
 public:
  TimePoint now() const override { return TimePoint(std::chrono::seconds(++seconds_)); }

 private:
  mutable int64_t seconds_ = 0;
};

TEST_CASE("an operator is told of the load while the server drains", "[server][drain]") {
  Fixture f;
  const uint64_t session = f.open();
  constexpr uint32_t kSteps = 4;
  for (uint32_t i = 0; i < kSteps; ++i) f.tell(step(session, 1 + i, i, 1), f.payload(i, 1));
  std::atomic<bool> stop = false;
  size_t loads_before = 0;
  f.on_pass = [&] {
    if (!stop.exchange(true)) loads_before = f.loads;
  };
  transport::Listener listener = plain_listener();
  const HurriedClock clock;
  value_of(serve(listener, f.host, std::chrono::hours(1), clock, stop));
  CHECK(f.host.waiting_steps() == 0);
  CHECK(f.loads - loads_before >= kSteps - 1);
}

TEST_CASE("what can be answered at once does not wait for a pass", "[server]") {
  Fixture f;
  const wire::Open open = f.open_message();
  f.expect<wire::Opened>(f.ask(open, {}, kPlain));
  f.expect<wire::StepResult>(f.ask(step(open.session, 1, 0, 2), f.payload(0, 2), kPlain));

  transport::Listener listener = plain_listener();
  transport::Channel client = value_of(transport::Channel::connect(
      {.server = listener.address(), .allow_plaintext = true}, std::chrono::seconds(20)));
  constexpr uint64_t kRepeated = 7;
  const auto send = [&](uint64_t id, const wire::Step& body, std::vector<std::byte> payload) {
    value_of(client.send({wire::encode({.request_id = id, .body = body}), std::move(payload)}));
  };
  send(kRepeated, step(open.session, 1, 0, 2), {});
  send(kRepeated + 1, step(open.session, 2, 2, 2), f.payload(2, 2));
  std::atomic<bool> stop = false;
  std::optional<transport::Message> early;
  f.on_pass = [&] {
    early = value_of(client.receive(std::chrono::seconds(5)));
    stop = true;
  };
  const SteadyClock clock;
  value_of(serve(listener, f.host, std::chrono::seconds(1), clock, stop));
  REQUIRE(early.has_value());
  CHECK(value_of(wire::decode(early->envelope)).request_id == kRepeated);
}

}  // namespace
}  // namespace isthmus::server
