#include "event_log.h"

#include <spdlog/spdlog.h>

namespace isthmus::tools {
namespace {

using Kind = server::Event::Kind;

constexpr const char* kNames[] = {"opened", "refused", "closed", "expired", "busy", "failed"};

bool has_code(Kind kind) {
  return kind == Kind::kRefused || kind == Kind::kBusy || kind == Kind::kFailed;
}

spdlog::level::level_enum level(Kind kind) {
  if (kind == Kind::kBusy) return spdlog::level::debug;  // many, when many ask too much
  return has_code(kind) ? spdlog::level::warn : spdlog::level::info;
}

}  // namespace

void EventLog::on_event(const server::Event& event) {
  spdlog::log(level(event.kind), "event={} code={} session={:016x} client={} detail=\"{}\"",
              kNames[static_cast<size_t>(event.kind)],
              has_code(event.kind) ? to_string(event.code) : "-", event.session,
              event.client.empty() ? "-" : event.client, event.detail);
  if (next_ != nullptr) next_->on_event(event);
}

void EventLog::on_batch(const server::BatchReport& report) {
  if (next_ != nullptr) next_->on_batch(report);
}

void EventLog::on_step(const server::StepReport& report) {
  if (next_ != nullptr) next_->on_step(report);
}

void EventLog::on_load(const server::Load& load) {
  last_turn_ = clock_.now();
  if (next_ != nullptr) next_->on_load(load);
}

bool EventLog::turned_within(std::chrono::seconds limit) const {
  const Clock::TimePoint last = last_turn_;
  return last == Clock::TimePoint() || clock_.now() - last < limit;
}

}  // namespace isthmus::tools
