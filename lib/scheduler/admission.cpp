#include <isthmus/scheduler/admission.h>

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <string>

namespace isthmus::scheduler {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kShortestWait{5};
constexpr milliseconds kLongestWait{2000};
constexpr double kSpeedMemory = 0.9;  // weight of what was known before

Status at_least_one(const char* field, int64_t value) {
  if (value >= 1) return {};
  return fail(ErrorCode::kInvalidArgument, std::string("scheduler: ") + field + " is " +
                                               std::to_string(value) + ", must be at least 1");
}

tl::unexpected<Error> full(const std::string& what) {
  return fail(ErrorCode::kServerFull, "scheduler: " + what);
}

milliseconds rounded_wait(double seconds) {
  const double ms = std::ceil(seconds * 1e3);
  return std::clamp(milliseconds(static_cast<int64_t>(std::min(ms, 1e9))), kShortestWait,
                    kLongestWait);
}

}  // namespace

Status Quotas::validate() const {
  ISTHMUS_TRY(at_least_one("max_sessions", max_sessions));
  ISTHMUS_TRY(at_least_one("max_waiting_rows", max_waiting_rows));
  ISTHMUS_TRY(at_least_one("max_client_sessions", max_client_sessions));
  return at_least_one("max_client_waiting_rows", max_client_waiting_rows);
}

Admission::Admission(Quotas quotas) : quotas_(quotas) {
  if (const Status valid = quotas_.validate(); !valid)
    throw std::invalid_argument(valid.error().message);
}

Status Admission::admit_session(uint64_t client, uint64_t kv_bytes) {
  if (sessions_ >= quotas_.max_sessions) {
    return full("all " + std::to_string(quotas_.max_sessions) + " sessions are in use");
  }
  if (kv_bytes > quotas_.max_kv_bytes - std::min(kv_bytes_, quotas_.max_kv_bytes)) {
    return full("the session may need " + std::to_string(kv_bytes) + " bytes of keys and values, " +
                std::to_string(kv_bytes_) + " of " + std::to_string(quotas_.max_kv_bytes) +
                " are taken");
  }
  const auto known = clients_.find(client);
  if (known != clients_.end() && known->second.sessions >= quotas_.max_client_sessions) {
    return full("the client has all " + std::to_string(quotas_.max_client_sessions) +
                " sessions that one may have");
  }
  ++clients_[client].sessions;
  ++sessions_;
  kv_bytes_ += kv_bytes;
  return {};
}

void Admission::release_session(uint64_t client, uint64_t kv_bytes) {
  --clients_[client].sessions;
  --sessions_;
  kv_bytes_ -= kv_bytes;
}

std::optional<milliseconds> Admission::admit_step(uint64_t client, int32_t rows, size_t bytes,
                                                  Clock::TimePoint now) {
  Client& asking = clients_[client];
  const auto crowded = [rows](int64_t waiting, int64_t limit) {
    return waiting > 0 && waiting + rows > limit;
  };
  if (crowded(asking.waiting_rows, quotas_.max_client_waiting_rows)) {
    return time_for(asking.waiting_rows);
  }
  if (crowded(waiting_rows_, quotas_.max_waiting_rows)) return time_for(waiting_rows_);
  if (quotas_.max_client_bytes_per_second > 0) {
    if (const auto wait = bytes_overdrawn(asking, now)) return wait;
    asking.bytes_left -= static_cast<double>(bytes);
  }
  asking.waiting_rows += rows;
  waiting_rows_ += rows;
  return std::nullopt;
}

void Admission::release_step(uint64_t client, int32_t rows) {
  clients_[client].waiting_rows -= rows;
  waiting_rows_ -= rows;
}

void Admission::note_speed(int64_t rows, std::chrono::nanoseconds time) {
  const double seconds = std::chrono::duration<double>(time).count();
  if (rows < 1 || seconds <= 0) return;
  rows_per_second_ =
      kSpeedMemory * rows_per_second_ + (1 - kSpeedMemory) * static_cast<double>(rows) / seconds;
}

std::optional<milliseconds> Admission::bytes_overdrawn(Client& client, Clock::TimePoint now) const {
  // A second's allowance may be used at once; one step may overdraw it.
  const auto rate = static_cast<double>(quotas_.max_client_bytes_per_second);
  const double since = client.refilled ? seconds_between(*client.refilled, now) : 1.0;
  client.bytes_left = std::min(rate, client.bytes_left + rate * since);
  client.refilled = now;
  if (client.bytes_left > 0) return std::nullopt;
  return rounded_wait(-client.bytes_left / rate);
}

milliseconds Admission::time_for(int64_t rows) const {
  return rounded_wait(static_cast<double>(rows) / rows_per_second_);
}

void Admission::forget(uint64_t client) {
  clients_.erase(client);
}

}  // namespace isthmus::scheduler
