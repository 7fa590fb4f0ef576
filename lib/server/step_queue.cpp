#include "step_queue.h"

#include <utility>

namespace isthmus::server {

uint64_t Waiting::sequence() const {
  return std::visit([](const auto& request) { return request.sequence; }, body);
}

void Waiting::wait_from(Clock::TimePoint now) {
  const auto* step = std::get_if<wire::Step>(&body);
  if (step == nullptr || step->timeout_ms == 0) return;
  expires = now + std::chrono::milliseconds(step->timeout_ms);
}

uint32_t Waiting::length_after() const {
  if (const auto* step = std::get_if<wire::Step>(&body)) return step->position + step->token_count;
  return std::get<wire::Truncate>(body).length;
}

StepQueue::Place StepQueue::place(uint64_t sequence) const {
  if (sequence <= done_) {
    return sequence + kept_.size() > done_ ? Place::kAnswered : Place::kOutOfOrder;
  }
  const uint64_t ahead = sequence - done_ - 1;
  if (ahead < waiting_.size()) return Place::kWaiting;
  if (ahead == waiting_.size()) return waiting_.size() < limit_ ? Place::kNext : Place::kFull;
  return held_back_ && ahead < limit_ + waiting_.size() ? Place::kHeldBack : Place::kOutOfOrder;
}

void StepQueue::push(Waiting request) {
  held_back_ = false;
  waiting_.push_back(std::move(request));
}

void StepQueue::redirect(uint64_t sequence, const Ticket& ticket) {
  Waiting& request = waiting_[sequence - done_ - 1];
  request.ticket.from = ticket.from;
  request.ticket.request_id = ticket.request_id;
  if (request.expires) request.wait_from(ticket.arrived);
}

const Reply& StepQueue::kept(uint64_t sequence) const {
  return kept_[kept_.size() - 1 - (done_ - sequence)];
}

void StepQueue::complete_head(Reply reply) {
  kept_.push_back(std::move(reply));
  if (kept_.size() > limit_) kept_.pop_front();
  waiting_.pop_front();
  ++done_;
}

std::deque<Waiting> StepQueue::drop_all() {
  held_back_ = false;
  return std::exchange(waiting_, {});
}

}  // namespace isthmus::server
