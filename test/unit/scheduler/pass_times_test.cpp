#include <isthmus/scheduler/pass_times.h>

#include <stdexcept>

#include "support/catch.h"

namespace isthmus::scheduler {
namespace {

using std::chrono::microseconds;

TEST_CASE("nothing is expected of passes before one was seen", "[scheduler][times]") {
  const PassTimes times;
  CHECK(times.expected(8) == microseconds(0));
  CHECK(times.saved_together(4, 4) == microseconds(0));
}

TEST_CASE("what is known of some passes says what others take", "[scheduler][times]") {
  PassTimes times;
  times.note(4, microseconds(8000));
  CHECK(times.expected(2) == microseconds(4000));
  CHECK(times.expected(8) == microseconds(16'000));
  times.note(1, microseconds(5000));
  struct Row {
    double sessions;
    microseconds time;
  };
  const Row rows[] = {
      {0.5, microseconds(2500)}, {1, microseconds(5000)},   {2, microseconds(6000)},
      {4, microseconds(8000)},   {8, microseconds(12'000)}, {104, microseconds(108'000)},
  };
  for (const Row& row : rows) {
    CAPTURE(row.sessions);
    CHECK(times.expected(row.sessions) == row.time);
  }
}

TEST_CASE("passes are worth joining where they take as long however many are in them",
          "[scheduler][times]") {
  PassTimes gpu;
  for (const size_t sessions : {1, 2, 4, 8, 16}) gpu.note(sessions, microseconds(9000));
  CHECK(gpu.saved_together(4, 4) == microseconds(9000));
  CHECK(gpu.saved_together(1, 15) == microseconds(9000));
  PassTimes cpu;  // 700 us and 1,500 for each session
  for (const size_t sessions : {1, 2, 4, 8, 16}) {
    cpu.note(sessions, microseconds(700 + 1500 * sessions));
  }
  CHECK(cpu.saved_together(4, 4) == microseconds(700));
  CHECK(cpu.saved_together(1, 15) == microseconds(700));
  CHECK(cpu.saved_together(16, 16) == microseconds(700));
  PassTimes worse;  // more sessions make it slower than in proportion
  worse.note(8, microseconds(8000));
  worse.note(16, microseconds(20'000));
  CHECK(worse.saved_together(8, 8) == microseconds(0));
}

TEST_CASE("new times replace old ones little by little", "[scheduler][times]") {
  PassTimes times;
  times.note(8, microseconds(16'000));
  times.note(8, microseconds(32'000));
  CHECK(times.expected(8) == microseconds(17'000));
  for (int i = 0; i < 200; ++i) times.note(8, microseconds(32'000));
  CHECK(times.expected(8) > microseconds(31'990));
  times.note(5000, microseconds(1));  // more than there is room for
  CHECK(times.expected(8) > microseconds(31'990));
  CHECK_THROWS_AS(times.note(0, microseconds(1)), std::invalid_argument);
}

}  // namespace
}  // namespace isthmus::scheduler
