// What happens to clients, as log lines on stderr, and everything that is told as metrics beside
// it.
#pragma once

#include <isthmus/core/clock.h>
#include <isthmus/server/observer.h>

#include <atomic>
#include <chrono>

namespace isthmus::tools {

/// Logs events, passes everything on to `next`, which may be null and is borrowed, and remembers
/// when the server's loop last turned.
class EventLog final : public server::Observer {
 public:
  EventLog(const Clock& clock, server::Observer* next) : clock_(clock), next_(next) {}

  void on_event(const server::Event& event) override;
  void on_batch(const server::BatchReport& report) override;
  void on_step(const server::StepReport& report) override;
  void on_load(const server::Load& load) override;

  /// Whether the loop turned within `limit`, or has not started yet. Thread-safe.
  [[nodiscard]] bool turned_within(std::chrono::seconds limit) const;
  /// Whether it has turned at all. Thread-safe.
  [[nodiscard]] bool started() const { return last_turn_.load() != Clock::TimePoint(); }

 private:
  const Clock& clock_;
  server::Observer* next_;
  std::atomic<Clock::TimePoint> last_turn_{Clock::TimePoint()};
};

}  // namespace isthmus::tools
