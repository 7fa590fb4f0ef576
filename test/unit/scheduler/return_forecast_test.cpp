#include <isthmus/scheduler/return_forecast.h>

#include <vector>

#include "support/catch.h"

namespace isthmus::scheduler {
namespace {

using std::chrono::microseconds;

const Clock::TimePoint kStart{std::chrono::hours(1)};
constexpr microseconds kPass{8000};
constexpr microseconds kNo{0};

/// Of a caller to whom it does not matter how many are missing.
ReturnForecast::Loss always(microseconds loss) {
  return [loss](size_t) { return loss; };
}

/// A forecast in which lane 1 has come back `away` after each of some answers.
ReturnForecast accustomed(microseconds away) {
  ReturnForecast forecast;
  for (int i = 0; i < 20; ++i) {
    const auto answered = kStart + i * std::chrono::seconds(1);
    forecast.answered(1, answered);
    forecast.caught_up(answered + away);
    forecast.arrived(1, answered + away);
  }
  return forecast;
}

TEST_CASE("who is usually back soon is waited for, as long as it is worth",
          "[scheduler][forecast]") {
  ReturnForecast forecast = accustomed(microseconds(500));
  const auto now = kStart + std::chrono::minutes(1);
  const auto loss = always(microseconds(2000));
  CHECK(forecast.worth_waiting(now, loss).longest == kNo);  // it is here
  forecast.answered(1, now);
  CHECK(forecast.worth_waiting(now, loss).longest == microseconds(2000));
  CHECK(forecast.worth_waiting(now + microseconds(600), loss).longest == microseconds(1400));
  CHECK(forecast.worth_waiting(now + microseconds(2000), loss).longest == kNo);
  CHECK(forecast.worth_waiting(now + std::chrono::hours(1), loss).longest == kNo);
}

TEST_CASE("when all are usually back is said beside how long to wait", "[scheduler][forecast]") {
  ReturnForecast forecast = accustomed(microseconds(500));
  const auto now = kStart + std::chrono::minutes(1);
  const auto loss = always(microseconds(2000));
  CHECK(forecast.worth_waiting(now, loss) == ReturnForecast::Wait{});
  forecast.answered(1, now);
  CHECK(forecast.worth_waiting(now, loss).usual == microseconds(500));
  CHECK(forecast.worth_waiting(now + microseconds(400), loss).usual == microseconds(100));
  CHECK(forecast.worth_waiting(now + microseconds(600), loss).usual == kNo);  // overdue
}

TEST_CASE("who decodes is expected for a while, who is gone is not", "[scheduler][forecast]") {
  const auto now = kStart + std::chrono::minutes(1);
  ReturnForecast forecast = accustomed(microseconds(500));
  CHECK_FALSE(forecast.expects_any(now));  // it is here
  forecast.answered(1, now);
  CHECK(forecast.expects_any(now + microseconds(99'000)));
  CHECK_FALSE(forecast.expects_any(now + microseconds(101'000)));
  ReturnForecast distant = accustomed(microseconds(80'000));
  distant.answered(1, now);
  CHECK(distant.expects_any(now + microseconds(319'000)));
  CHECK_FALSE(distant.expects_any(now + microseconds(330'000)));
  ReturnForecast stranger;
  stranger.answered(2, now);
  CHECK(stranger.expects_any(now + microseconds(999'000)));
  CHECK_FALSE(stranger.expects_any(now + microseconds(1'001'000)));
  distant.forget(1);
  CHECK_FALSE(distant.expects_any(now));
}

TEST_CASE("who takes longer than missing a pass costs is not waited for", "[scheduler][forecast]") {
  const auto now = kStart + std::chrono::minutes(1);
  ReturnForecast slow = accustomed(microseconds(1500));
  slow.answered(1, now);
  CHECK(slow.worth_waiting(now, always(microseconds(1400))).longest == kNo);
  CHECK(slow.worth_waiting(now, always(microseconds(1600))).longest == microseconds(1600));
  CHECK(slow.worth_waiting(now, always(kNo)).longest == kNo);
  ReturnForecast stranger;
  stranger.answered(2, now);  // nothing is known of it
  CHECK(stranger.worth_waiting(now, always(kPass)).longest == kNo);
}

TEST_CASE("only those that can be waited for count", "[scheduler][forecast]") {
  // Lane n usually comes back after n * 1,000 us. All are away since `now` but for those that are
  // away for an hour.
  struct Row {
    std::vector<uint64_t> away;
    std::vector<uint64_t> gone;
    microseconds each;  // what every lane that misses the pass adds to the loss
    microseconds wait;
  };
  const Row rows[] = {
      {{1, 2, 3}, {}, microseconds(1000), microseconds(3000)},
      {{1, 2, 9}, {}, microseconds(1000), microseconds(2000)},  // 9 ms for 3 of 3
      {{1, 3, 9}, {}, microseconds(1000), microseconds(1000)},  // nor 3 ms for 2
      {{2, 3, 9}, {}, microseconds(1000), kNo},
      {{1, 3}, {2}, microseconds(1000), microseconds(1000)},  // who is gone makes nobody worth more
      {{1, 3}, {2}, microseconds(1500), microseconds(3000)},
      {{}, {1, 2, 3}, microseconds(9000), kNo},
  };
  for (const Row& row : rows) {
    CAPTURE(row.away, row.gone, row.each.count());
    const auto now = kStart + std::chrono::hours(10);
    ReturnForecast forecast;
    for (uint64_t lane = 1; lane <= 9; ++lane) {
      const auto back = kStart + lane * microseconds(1000);
      forecast.answered(lane, kStart);
      forecast.caught_up(back);
      forecast.arrived(lane, back);
    }
    for (const uint64_t lane : row.away) forecast.answered(lane, now);
    for (const uint64_t lane : row.gone) forecast.answered(lane, now - std::chrono::hours(1));
    CHECK(forecast.worth_waiting(now, [&](size_t missing) { return row.each * missing; }).longest ==
          row.wait);
  }
}

TEST_CASE("the time that nobody looked is not taken for the lane's own", "[scheduler][forecast]") {
  struct Row {
    microseconds usual;
    microseconds caught_up;  // since the answer; so is the next
    microseconds found;
    microseconds learnt;  // the usual time afterwards, for which a new time counts a quarter
  };
  const Row rows[] = {
      {microseconds(500), microseconds(50), microseconds(9000), microseconds(500)},   // may well be
      {microseconds(500), microseconds(0), microseconds(300), microseconds(450)},     // sooner
      {microseconds(500), microseconds(900), microseconds(9000), microseconds(600)},  // later
      {microseconds(500), microseconds(900), microseconds(900), microseconds(600)},   // known well
      {microseconds(500), microseconds(-700), microseconds(100), microseconds(400)},
  };
  for (const Row& row : rows) {
    CAPTURE(row.caught_up.count(), row.found.count());
    ReturnForecast forecast = accustomed(row.usual);
    auto now = kStart + std::chrono::minutes(1);
    forecast.answered(1, now);
    forecast.caught_up(now + row.caught_up);
    forecast.arrived(1, now + row.found);
    now += std::chrono::minutes(1);
    forecast.answered(1, now);
    CHECK(forecast.worth_waiting(now, always(row.learnt + microseconds(1))).longest > kNo);
    CHECK(forecast.worth_waiting(now, always(row.learnt - microseconds(1))).longest == kNo);
  }
}

TEST_CASE("a decoder beside a prompt gets into every pass however it began",
          "[scheduler][forecast]") {
  // A pass starts as soon as nobody is waited for, and the lane needs 800 us.
  constexpr microseconds kAway{800};
  ReturnForecast forecast;
  auto now = kStart;
  int missed_lately = 0;
  Clock::TimePoint returns = now;
  for (int pass = 0; pass < 60; ++pass) {
    const auto wait = forecast.worth_waiting(now, always(kPass / 4)).longest;
    const bool comes = returns <= now + wait;
    if (comes) {
      now = std::max(now, returns);
      if (returns == now) forecast.caught_up(now);
      forecast.arrived(1, now);
    } else {
      now += wait;
      missed_lately += pass >= 30 ? 1 : 0;
    }
    forecast.caught_up(now);
    now += kPass;
    if (!comes) continue;
    forecast.answered(1, now);
    returns = now + kAway;
  }
  CHECK(missed_lately == 0);
}

TEST_CASE("habits are learnt anew, and forgotten with the lane", "[scheduler][forecast]") {
  ReturnForecast forecast = accustomed(microseconds(100'000));
  auto now = kStart + std::chrono::minutes(1);
  for (int i = 0; i < 40; ++i) {
    now += std::chrono::seconds(1);
    forecast.answered(1, now);
    forecast.caught_up(now + microseconds(100));
    forecast.arrived(1, now + microseconds(100));
  }
  forecast.answered(1, now);
  CHECK(forecast.worth_waiting(now, always(kPass)).longest > kNo);
  forecast.forget(1);
  CHECK(forecast.worth_waiting(now, always(kPass)).longest == kNo);
}

}  // namespace
}  // namespace isthmus::scheduler
