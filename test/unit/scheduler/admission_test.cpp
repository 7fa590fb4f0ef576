#include <isthmus/scheduler/admission.h>

#include "support/catch.h"

namespace isthmus::scheduler {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

const Clock::TimePoint kStart{std::chrono::hours(1)};
constexpr uint64_t kAda = 1;
constexpr uint64_t kBob = 2;

Quotas small() {
  return {.max_sessions = 3,
          .max_kv_bytes = 1000,
          .max_waiting_rows = 300,
          .max_client_sessions = 2,
          .max_client_waiting_rows = 200};
}

TEST_CASE("sessions are admitted up to each limit and again once one ends", "[admission]") {
  Admission admission(small());
  REQUIRE(admission.admit_session(kAda, 400));
  CHECK_FAILS_WITH(admission.admit_session(kAda, 601), ErrorCode::kServerFull);  // bytes
  REQUIRE(admission.admit_session(kAda, 400));
  CHECK_FAILS_WITH(admission.admit_session(kAda, 1), ErrorCode::kServerFull);  // of one client
  REQUIRE(admission.admit_session(kBob, 200));
  CHECK_FAILS_WITH(admission.admit_session(kBob, 0), ErrorCode::kServerFull);  // of all
  CHECK(admission.kv_bytes() == 1000);
  admission.release_session(kAda, 400);
  CHECK(admission.sessions() == 2);
  CHECK(admission.kv_bytes() == 600);
  CHECK(admission.admit_session(kBob, 400));
}

TEST_CASE("a size that would overflow is refused", "[admission]") {
  Admission admission(small());
  REQUIRE(admission.admit_session(kAda, 400));
  CHECK_FAILS_WITH(admission.admit_session(kAda, UINT64_MAX), ErrorCode::kServerFull);
}

TEST_CASE("steps wait up to the limits of one client and of all", "[admission]") {
  Admission admission(small());
  CHECK_FALSE(admission.admit_step(kAda, 150, 0, kStart));
  CHECK(admission.admit_step(kAda, 51, 0, kStart) == milliseconds(150));  // 150 rows at 1000 a s
  CHECK_FALSE(admission.admit_step(kAda, 50, 0, kStart));
  CHECK_FALSE(admission.admit_step(kBob, 100, 0, kStart));
  CHECK(admission.admit_step(kBob, 1, 0, kStart) == milliseconds(300));
  admission.release_step(kAda, 50);
  CHECK(admission.waiting_rows() == 250);
  CHECK_FALSE(admission.admit_step(kBob, 50, 0, kStart));
}

TEST_CASE("a step larger than the queue gets its turn when its client has no other",
          "[admission]") {
  Admission admission({.max_waiting_rows = 10, .max_client_waiting_rows = 5});
  CHECK_FALSE(admission.admit_step(kAda, 100, 0, kStart));
  CHECK(admission.admit_step(kBob, 1, 0, kStart));
}

TEST_CASE("bytes are paid for over time, and one large step overdraws", "[admission]") {
  Admission admission({.max_client_bytes_per_second = 1000});
  CHECK_FALSE(admission.admit_step(kAda, 1, 1500, kStart));
  CHECK(admission.admit_step(kAda, 1, 10, kStart) == milliseconds(500));
  CHECK_FALSE(admission.admit_step(kBob, 1, 10, kStart));
  CHECK(admission.admit_step(kAda, 1, 10, kStart + milliseconds(400)) == milliseconds(100));
  CHECK_FALSE(admission.admit_step(kAda, 1, 900, kStart + milliseconds(501)));
  // An hour of silence saves up no more than a second's worth.
  const auto later = kStart + std::chrono::hours(1);
  CHECK_FALSE(admission.admit_step(kAda, 1, 1000, later));
  CHECK(admission.admit_step(kAda, 1, 1, later));
  // Leaving does not wipe out the debt; only forgetting does.
  admission.forget(kAda);
  CHECK_FALSE(admission.admit_step(kAda, 1, 1, later));
}

TEST_CASE("waiting times follow the measured speed", "[admission]") {
  Admission admission(small());
  for (int i = 0; i < 200; ++i) admission.note_speed(100, seconds(1));
  CHECK_FALSE(admission.admit_step(kAda, 150, 0, kStart));
  const auto wait = admission.admit_step(kAda, 100, 0, kStart);
  REQUIRE(wait);
  CHECK(*wait >= milliseconds(1490));
  CHECK(*wait <= milliseconds(1501));
}

TEST_CASE("quotas out of range are named", "[admission]") {
  CHECK_FAILS_WITH(Quotas{.max_sessions = 0}.validate(), ErrorCode::kInvalidArgument);
  CHECK_FAILS_WITH(Quotas{.max_waiting_rows = 0}.validate(), ErrorCode::kInvalidArgument);
  CHECK_FAILS_WITH(Quotas{.max_client_sessions = 0}.validate(), ErrorCode::kInvalidArgument);
  CHECK_FAILS_WITH(Quotas{.max_client_waiting_rows = -1}.validate(), ErrorCode::kInvalidArgument);
  CHECK_THROWS_AS(Admission({.max_sessions = 0}), std::invalid_argument);
}

}  // namespace
}  // namespace isthmus::scheduler
