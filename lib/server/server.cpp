#include <isthmus/server/server.h>

namespace isthmus::server {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kIdlePoll{200};  // how soon a stop or an expiry is noticed
// One round takes in no more than this, so a flood cannot keep the engine from working.
constexpr int kRequestsPerRound = 256;

class Loop {
 public:
  Loop(transport::Listener& listener, SessionHost& host, const Clock& clock)
      : listener_(listener), host_(host), clock_(clock) {}

  Status run(milliseconds drain_timeout, const std::atomic<bool>& stop) {
    while (!stop) ISTHMUS_TRY(round(kIdlePoll));
    host_.drain();
    const Clock::TimePoint deadline = clock_.now() + drain_timeout;
    while (host_.waiting_steps() > 0 && clock_.now() < deadline) ISTHMUS_TRY(round(kIdlePoll));
    // What has arrived by now is told that there is no use in waiting.
    return round(milliseconds(0));
  }

 private:
  Status round(milliseconds idle_poll) {
    expire_now_and_then();
    ISTHMUS_TRY(collect(idle_poll));
    host_.run_batch();
    deliver();
    return {};
  }

  /// Takes in what is here, and what is worth waiting for.
  Status collect(milliseconds idle_poll) {
    for (int taken = 0; taken < kRequestsPerRound; ++taken) {
      ISTHMUS_ASSIGN(std::optional<transport::Incoming> incoming,
                     listener_.receive(milliseconds(0)));
      if (!incoming) {
        host_.caught_up();
        auto patience = taken == 0 ? idle_poll : milliseconds(0);  // answers may be ready by then
        if (host_.waiting_steps() > 0)
          patience = std::chrono::ceil<milliseconds>(host_.worth_waiting());
        if (patience.count() == 0) return {};
        ISTHMUS_ASSIGN(incoming, listener_.receive(patience));
        if (!incoming) return {};
        host_.caught_up();  // it came only now
      }
      host_.receive(std::move(*incoming), clock_.now());
      // What is answered at once may be the copy of a large answer that was asked for in few bytes.
      deliver();
    }
    return {};
  }

  void deliver() {
    for (const Answer& answer : host_.take_answers()) {
      // An answer that cannot be delivered is the client's to ask for again.
      (void)listener_.send(answer.to, answer.message);
    }
  }

  void expire_now_and_then() {
    const Clock::TimePoint now = clock_.now();
    if (now - last_expiry_ < kIdlePoll) return;
    last_expiry_ = now;
    host_.expire_idle();
  }

  transport::Listener& listener_;
  SessionHost& host_;
  const Clock& clock_;
  Clock::TimePoint last_expiry_;
};

}  // namespace

Status serve(transport::Listener& listener, SessionHost& host, milliseconds drain_timeout,
             const Clock& clock, const std::atomic<bool>& stop) {
  return Loop(listener, host, clock).run(drain_timeout, stop);
}

}  // namespace isthmus::server
