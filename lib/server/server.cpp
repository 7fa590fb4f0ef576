#include <isthmus/server/server.h>

#include <deque>

namespace isthmus::server {
namespace {

constexpr std::chrono::milliseconds kIdlePoll{200};  // how soon a stop or an expiry is noticed
constexpr std::chrono::milliseconds kRetryAfter{
    50};  // what a client is told to wait when the queue is full

struct Waiting {
  transport::Incoming incoming;
  Clock::TimePoint arrived;
};

class Loop {
 public:
  Loop(transport::Listener& listener, SessionHost& host, const ServerOptions& options,
       const Clock& clock)
      : listener_(listener), host_(host), options_(options), clock_(clock) {}

  Status run(const std::atomic<bool>& stop) {
    while (!stop) {
      ISTHMUS_TRY(collect(queue_.empty() ? kIdlePoll : std::chrono::milliseconds(0)));
      answer_next();
      host_.expire_idle();
    }
    while (!queue_.empty()) answer_next();
    return {};
  }

 private:
  // Takes in everything that has arrived, so that the order of arrival and the time of waiting are
  // known.
  Status collect(std::chrono::milliseconds timeout) {
    // One round takes in no more than the queue can hold twice over, so a flood cannot keep the
    // engine from working.
    for (int32_t taken = 0; taken < 2 * options_.max_queue; ++taken) {
      ISTHMUS_ASSIGN(std::optional<transport::Incoming> incoming, listener_.receive(timeout));
      if (!incoming) return {};
      timeout = std::chrono::milliseconds(0);
      if (queue_.size() < static_cast<size_t>(options_.max_queue)) {
        queue_.push_back({std::move(*incoming), clock_.now()});
      } else {
        send(incoming->from, SessionHost::busy(incoming->message, kRetryAfter));
      }
    }
    return {};
  }

  void answer_next() {
    if (queue_.empty()) return;
    const Waiting next = std::move(queue_.front());
    queue_.pop_front();
    send(next.incoming.from,
         host_.handle(next.incoming.from.public_key, next.incoming.message, next.arrived));
  }

  // An answer that cannot be delivered is the client's to ask for again.
  void send(const transport::Peer& to, const transport::Message& message) {
    (void)listener_.send(to, message);
  }

  transport::Listener& listener_;
  SessionHost& host_;
  const ServerOptions& options_;
  const Clock& clock_;
  std::deque<Waiting> queue_;
};

}  // namespace

Status serve(transport::Listener& listener, SessionHost& host, const ServerOptions& options,
             const Clock& clock, const std::atomic<bool>& stop) {
  return Loop(listener, host, options, clock).run(stop);
}

}  // namespace isthmus::server
