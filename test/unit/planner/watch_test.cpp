#include <isthmus/planner/watch.h>

#include <stdexcept>

#include "support/catch.h"

namespace isthmus {
namespace {

using namespace planner;
using std::chrono::seconds;

Clock::TimePoint at(int second) {
  return Clock::TimePoint() + seconds(second);
}

TEST_CASE("a plan is off when it has been for the stated time, and says so once",
          "[planner][watch]") {
  PlanWatch watch(0.1, {.margin = 0.2, .patience = seconds(10)});
  CHECK_FALSE(watch.observe({0.115, 0.08}, at(0)));  // within the margin
  CHECK_FALSE(watch.observe({0.15, 0.11}, at(5)));   // off since 5
  CHECK_FALSE(watch.observe({0.17, 0.13}, at(14)));  // not yet for 10 s
  const auto deviation = watch.observe({0.16, 0.12}, at(15));
  REQUIRE(deviation);
  CHECK(deviation->predicted_seconds == 0.1);
  CHECK(deviation->measured_seconds == Approx(0.16));
  CHECK(deviation->wire_seconds == Approx(0.12));
  CHECK_FALSE(watch.observe({0.16, 0.12}, at(40)));  // said already
  CHECK_FALSE(watch.observe({0.1, 0.06}, at(41)));   // holds again
  CHECK_FALSE(watch.observe({0.16, 0.12}, at(42)));
  CHECK(watch.observe({0.16, 0.12}, at(52)));
}

TEST_CASE("a reply as planned, or off the other way, starts the time anew", "[planner][watch]") {
  PlanWatch watch(0.1, {.margin = 0.2, .patience = seconds(10)});
  CHECK_FALSE(watch.observe({0.2, 0.1}, at(0)));
  CHECK_FALSE(watch.observe({0.1, 0.1}, at(9)));
  CHECK_FALSE(watch.observe({0.2, 0.1}, at(11)));
  CHECK_FALSE(watch.observe({0.05, 0.01}, at(21)));  // faster than planned
  CHECK_FALSE(watch.observe({0.05, 0.01}, at(30)));
  CHECK(watch.observe({0.05, 0.01}, at(31)));
}

TEST_CASE("the link as it is now explains the time on the wire", "[planner][watch]") {
  const LinkProfile planned{.rtt_seconds = 0.02,
                            .rtt_p95_seconds = 0.025,
                            .up_bits_per_second = 1e6,
                            .down_bits_per_second = 2e6};
  const PlanFile plan{.token_seconds = 0.03, .wire_seconds = 0.024};
  const auto measured = [&](double wire_s) {
    const LinkProfile link = link_now(planned, plan, {0.03, 0.1, wire_s});
    CHECK(link.validate());
    CHECK(link.up_bits_per_second == planned.up_bits_per_second);
    CHECK(link.down_bits_per_second == planned.down_bits_per_second);
    return link.rtt_seconds;
  };
  CHECK(measured(0.084) == Approx(0.08));
  CHECK(measured(0.024) == Approx(0.02));
  CHECK(measured(0.014) == Approx(0.01));
  CHECK(measured(0.001) == 0);  // sending alone was said to take longer
}

TEST_CASE("a watch without sense is refused", "[planner][watch]") {
  CHECK_THROWS_AS(PlanWatch(0), std::invalid_argument);
  CHECK_THROWS_AS(PlanWatch(0.1, {.margin = 0}), std::invalid_argument);
  CHECK_THROWS_AS(PlanWatch(0.1, {.patience = seconds(-1)}), std::invalid_argument);
}

}  // namespace
}  // namespace isthmus
