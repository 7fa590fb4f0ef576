#include "history.h"

#include <utility>

namespace isthmus::edge {
namespace {

// What a request takes beside its payload, roughly.
constexpr size_t kOverhead = sizeof(Request);

size_t bytes_of(const Request& request) {
  return kOverhead + request.parcel.payload.size();
}

/// Tokens the server held before the step.
int32_t position_of(const wire::Step& step) {
  return static_cast<int32_t>(step.position);
}

}  // namespace

int32_t length_after(const wire::Body& request) {
  if (const auto* step = std::get_if<wire::Step>(&request))
    return position_of(*step) + static_cast<int32_t>(step->token_count);
  return static_cast<int32_t>(std::get<wire::Truncate>(request).length);
}

void History::push(Request request) {
  requests_.push_back(std::move(request));
}

void History::settle(int32_t token) {
  Request& request = requests_[settled_];
  request.answer.reset();
  request.token = token;
  if (!complete_) {
    requests_.erase(requests_.begin() + static_cast<std::ptrdiff_t>(settled_));
    return;
  }
  bytes_ += bytes_of(request);
  ++settled_;
  if (std::holds_alternative<wire::Truncate>(request.parcel.body)) forget_undone();
  if (bytes_ <= limit_bytes_) return;
  complete_ = false;
  requests_.erase(requests_.begin(), requests_.begin() + static_cast<std::ptrdiff_t>(settled_));
  settled_ = 0;
  bytes_ = 0;
}

void History::drop_open() {
  requests_.resize(settled_);
}

void History::rewind() {
  for (Request& request : requests_) {
    request.id = 0;
    request.answer.reset();
  }
}

// Called when the latest settled request is a truncation, and nothing is open: what it undid is not
// worth replaying, and it is not worth replaying itself where a step already ends there.
void History::forget_undone() {
  Request truncation = std::move(requests_[--settled_]);
  const int32_t length = length_after(truncation.parcel.body);
  bytes_ -= bytes_of(truncation);
  requests_.erase(requests_.begin() + static_cast<std::ptrdiff_t>(settled_));
  const auto undone = [&](const Request& request) {
    const auto* step = std::get_if<wire::Step>(&request.parcel.body);
    return step != nullptr ? position_of(*step) >= length
                           : length_after(request.parcel.body) >= length;
  };
  while (settled_ > 0 && undone(requests_[settled_ - 1])) {
    --settled_;
    bytes_ -= bytes_of(requests_[settled_]);
    requests_.erase(requests_.begin() + static_cast<std::ptrdiff_t>(settled_));
  }
  const int32_t held = settled_ == 0 ? 0 : length_after(requests_[settled_ - 1].parcel.body);
  if (held == length) return;
  bytes_ += bytes_of(truncation);
  requests_.insert(requests_.begin() + static_cast<std::ptrdiff_t>(settled_),
                   std::move(truncation));
  ++settled_;
}

}  // namespace isthmus::edge
