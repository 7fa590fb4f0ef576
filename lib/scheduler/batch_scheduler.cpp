#include <isthmus/scheduler/batch_scheduler.h>

#include <algorithm>
#include <deque>
#include <limits>
#include <set>
#include <stdexcept>
#include <string>
#include <tuple>

namespace isthmus::scheduler {
namespace {

/// How many of `rows` rows behind `position` others have room.
int32_t rows_within(double room, int32_t position, int32_t rows, double per_position) {
  int32_t count = 0;
  while (count < rows) {
    room -= 1 + per_position * (position + count);
    if (room < 0) break;
    ++count;
  }
  return count;
}

/// What rows [position, position + count) count.
double work(int32_t position, int32_t count, double per_position) {
  return count * (1 + per_position * (position + (count - 1) / 2.0));
}

}  // namespace

Status BatchOptions::validate() const {
  if (token_budget >= 16 && token_budget <= 4096) return {};
  return fail(
      ErrorCode::kInvalidArgument,
      "scheduler: token_budget is " + std::to_string(token_budget) + ", must be in [16, 4096]");
}

BatchScheduler::BatchScheduler(BatchOptions options, int32_t positions_per_row)
    : options_(options), per_position_(positions_per_row == 0 ? 0 : 1.0 / positions_per_row) {
  if (const Status valid = options_.validate(); !valid)
    throw std::invalid_argument(valid.error().message);
  if (positions_per_row < 0)
    throw std::invalid_argument("scheduler: positions_per_row is negative");
}

void BatchScheduler::submit(uint64_t lane, uint64_t client, int32_t rows, int32_t position) {
  if (rows < 1) throw std::invalid_argument("scheduler: a step has no rows");
  if (steps_.contains(lane)) throw std::logic_error("scheduler: the lane carries a step already");
  const uint64_t floor = least_served();
  Client& owner = clients_[client];
  steps_.emplace(lane, Step{lane, client, next_order_++, rows, position, 0});
  if (owner.steps++ == 0) owner.served = std::max(owner.served, floor);
}

bool BatchScheduler::extend(uint64_t lane, int32_t rows) {
  const auto found = steps_.find(lane);
  if (found == steps_.end() || kind_of(found->second) != Kind::kPrompt) return false;
  if (rows > kLongestPrompt - found->second.rows) return false;
  found->second.rows += rows;
  return true;
}

void BatchScheduler::cancel(uint64_t lane) {
  remove(lane);
}

std::vector<Piece> BatchScheduler::next_batch(bool expected) {
  const std::vector<Step*> brief = steps(Kind::kShort);
  const std::vector<Step*> prompts = steps(Kind::kPrompt);
  const bool lone = brief.empty() && !expected;
  const int32_t budget = lone ? std::max(options_.token_budget, kLoneRows) : options_.token_budget;
  const int32_t kept = prompts.empty() ? 0 : options_.prompt_rows();
  std::vector<Piece> batch;
  const double left = take(brief, /*whole=*/true, /*per_position=*/0, budget - kept, batch);
  take(prompts, /*whole=*/false, lone ? 0 : per_position_, left + kept, batch);
  remove_finished(batch);
  return batch;
}

std::vector<Piece> BatchScheduler::next_prompts(int32_t rows) {
  std::vector<Piece> batch;
  take(steps(Kind::kPrompt), /*whole=*/false, per_position_, rows, batch);
  remove_finished(batch);
  return batch;
}

std::vector<BatchScheduler::Step*> BatchScheduler::steps(Kind kind) {
  std::vector<Step*> found;
  for (auto& [lane, step] : steps_) {
    if (kind_of(step) == kind) found.push_back(&step);
  }
  return found;
}

void BatchScheduler::remove_finished(std::span<const Piece> batch) {
  for (const Piece& piece : batch) {
    if (piece.last) remove(piece.lane);
  }
  // An idle client that is not ahead of the others would be set to their level when it comes back.
  const uint64_t floor = least_served();
  std::erase_if(clients_, [&](const auto& entry) {
    return entry.second.steps == 0 && entry.second.served <= floor;
  });
}

double BatchScheduler::take(std::span<Step* const> steps, bool whole, double per_position,
                            double room, std::vector<Piece>& batch) {
  std::map<uint64_t, std::deque<Step*>> queues;  // by client, in order of submission
  for (Step* step : steps) queues[step->client].push_back(step);
  std::set<std::tuple<uint64_t, uint64_t, uint64_t>> turns;  // rows served, order, client
  const auto line_up = [&](uint64_t client) {
    const std::deque<Step*>& queue = queues[client];
    if (!queue.empty()) turns.emplace(clients_[client].served, queue.front()->order, client);
  };
  for (auto& [client, queue] : queues) {
    std::sort(queue.begin(), queue.end(),
              [](const Step* a, const Step* b) { return a->order < b->order; });
    line_up(client);
  }
  bool took = false;
  while (room > 0 && !turns.empty()) {
    const uint64_t client = std::get<2>(turns.extract(turns.begin()).value());
    Step& step = *queues[client].front();
    const int32_t position = step.position + step.done;
    // It waits, and is soon the first to choose because its client is served less than the others.
    if (whole && step.rows > room) break;
    int32_t count =
        whole ? step.rows : rows_within(room, position, step.rows - step.done, per_position);
    if (count == 0 && took) break;
    count = std::max(count, 1);  // however far a prompt has come, it gets on
    took = true;
    queues[client].pop_front();
    batch.push_back({step.lane, step.done, count, step.done + count == step.rows});
    step.done += count;
    room -= work(position, count, per_position);
    clients_[client].served += static_cast<uint64_t>(count);
    line_up(client);
  }
  return room;
}

bool BatchScheduler::prompt_waits() const {
  return std::any_of(steps_.begin(), steps_.end(),
                     [&](const auto& entry) { return kind_of(entry.second) == Kind::kPrompt; });
}

double BatchScheduler::next_prompt_row() const {
  double most = 0;
  for (const auto& [lane, step] : steps_) {
    if (kind_of(step) == Kind::kPrompt)
      most = std::max(most, work(step.position + step.done, 1, per_position_));
  }
  return most;
}

void BatchScheduler::remove(uint64_t lane) {
  const auto found = steps_.find(lane);
  if (found == steps_.end()) return;
  --clients_[found->second.client].steps;
  steps_.erase(found);
}

uint64_t BatchScheduler::least_served() const {
  uint64_t least = std::numeric_limits<uint64_t>::max();
  uint64_t most = 0;
  for (const auto& [id, client] : clients_) {
    most = std::max(most, client.served);
    if (client.steps > 0) least = std::min(least, client.served);
  }
  // With nobody at work, everybody starts anew at the level of the one that was served most.
  return std::min(least, most);
}

}  // namespace isthmus::scheduler
