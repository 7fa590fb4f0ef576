#include <isthmus/scheduler/return_forecast.h>

#include "support/catch.h"

namespace isthmus::scheduler {
namespace {

using std::chrono::microseconds;

const Clock::TimePoint kStart{std::chrono::hours(1)};
constexpr microseconds kPass{8000};
constexpr microseconds kNo{0};

/// A forecast in which lane 1 has come back `away` after each of some answers.
ReturnForecast accustomed(microseconds away) {
  ReturnForecast forecast;
  for (int i = 0; i < 20; ++i) {
    const auto answered = kStart + i * std::chrono::seconds(1);
    forecast.answered(1, answered);
    forecast.arrived(1, answered + away);
  }
  return forecast;
}

TEST_CASE("who is usually back soon is waited for, up to twice as long as usual",
          "[scheduler][forecast]") {
  ReturnForecast forecast = accustomed(microseconds(500));
  const auto now = kStart + std::chrono::minutes(1);
  CHECK(forecast.worth_waiting(now, kPass) == kNo);  // it is here
  forecast.answered(1, now);
  CHECK(forecast.worth_waiting(now, kPass) == microseconds(1000));
  CHECK(forecast.worth_waiting(now + microseconds(600), kPass) == microseconds(400));
  CHECK(forecast.worth_waiting(now + microseconds(1000), kPass) == kNo);
  CHECK(forecast.worth_waiting(now + std::chrono::hours(1), kPass) == kNo);
}

TEST_CASE("who is far away is not waited for", "[scheduler][forecast]") {
  const auto now = kStart + std::chrono::minutes(1);
  ReturnForecast slow = accustomed(microseconds(1500));  // twice that is more than a quarter pass
  slow.answered(1, now);
  CHECK(slow.worth_waiting(now, kPass) == kNo);
  CHECK(slow.worth_waiting(now, 2 * kPass) == microseconds(3000));
  ReturnForecast stranger;
  stranger.answered(2, now);  // nothing is known of it
  CHECK(stranger.worth_waiting(now, kPass) == kNo);
}

TEST_CASE("habits are learnt anew, and forgotten with the lane", "[scheduler][forecast]") {
  ReturnForecast forecast = accustomed(microseconds(100'000));
  auto now = kStart + std::chrono::minutes(1);
  for (int i = 0; i < 40; ++i) {
    now += std::chrono::seconds(1);
    forecast.answered(1, now);
    forecast.arrived(1, now + microseconds(100));
  }
  forecast.answered(1, now);
  CHECK(forecast.worth_waiting(now, kPass) > kNo);
  forecast.forget(1);
  CHECK(forecast.worth_waiting(now, kPass) == kNo);
}

}  // namespace
}  // namespace isthmus::scheduler
