// Plans as literal tables, and what must hold for every plan.
#include <isthmus/scheduler/batch_scheduler.h>

#include <map>
#include <ostream>
#include <random>
#include <vector>

#include "support/catch.h"

namespace isthmus::scheduler {

std::ostream& operator<<(std::ostream& out, const Piece& piece) {
  return out << "{lane " << piece.lane << ", [" << piece.first << ", " << piece.first + piece.count
             << (piece.last ? "), last}" : ")}");
}

namespace {

using Batch = std::vector<Piece>;

constexpr bool kLast = true;
constexpr bool kMore = false;

TEST_CASE("a prompt alone goes in pieces of the budget", "[scheduler]") {
  BatchScheduler scheduler({.token_budget = 16});
  scheduler.submit(/*lane=*/1, /*client=*/1, /*rows=*/40);
  CHECK(scheduler.next_batch() == Batch{{1, 0, 16, kMore}});
  CHECK(scheduler.next_batch() == Batch{{1, 16, 16, kMore}});
  CHECK(scheduler.next_batch() == Batch{{1, 32, 8, kLast}});
  CHECK(scheduler.next_batch().empty());
  CHECK(scheduler.waiting() == 0);
}

TEST_CASE("prompts that nobody decodes beside go in long pieces", "[scheduler]") {
  BatchScheduler scheduler({.token_budget = 16});
  scheduler.submit(1, 1, 300);
  scheduler.submit(2, 2, 30);
  CHECK(scheduler.next_batch(/*expected=*/false) == Batch{{1, 0, 128, kMore}});
  CHECK(scheduler.next_batch(false) == Batch{{2, 0, 30, kLast}, {1, 128, 98, kMore}});
  CHECK(scheduler.next_batch(true) == Batch{{1, 226, 16, kMore}});
  scheduler.submit(3, 3, 1);
  CHECK(scheduler.next_batch(false) == Batch{{3, 0, 1, kLast}, {1, 242, 15, kMore}});
  BatchScheduler large({.token_budget = 256});
  large.submit(1, 1, 300);
  CHECK(large.next_batch(false) == Batch{{1, 0, 256, kMore}});
}

TEST_CASE("decoded tokens go first and whole, a prompt fills the rest", "[scheduler]") {
  BatchScheduler scheduler({.token_budget = 16});
  scheduler.submit(9, 9, 100);
  scheduler.submit(1, 1, 1);
  scheduler.submit(2, 2, 4);  // a verify window
  CHECK(scheduler.next_batch() == Batch{{1, 0, 1, kLast}, {2, 0, 4, kLast}, {9, 0, 11, kMore}});
  scheduler.submit(1, 1, 1);
  CHECK(scheduler.next_batch() == Batch{{1, 0, 1, kLast}, {9, 11, 15, kMore}});
}

TEST_CASE("a quarter of the budget is a prompt's, however many sessions decode", "[scheduler]") {
  BatchScheduler scheduler({.token_budget = 16});
  for (uint64_t lane = 1; lane <= 20; ++lane) scheduler.submit(lane, lane, 1);
  CHECK(scheduler.next_batch().size() == 16);  // without prompts the decoders have it all
  for (uint64_t lane = 1; lane <= 16; ++lane) scheduler.submit(lane, lane, 1);
  scheduler.submit(99, 99, 50);
  const Batch batch = scheduler.next_batch();
  REQUIRE(batch.size() == 13);
  CHECK(batch.back() == Piece{99, 0, 4, kMore});
  // The four that had to stand back before are the first now.
  CHECK(Batch(batch.begin(), batch.begin() + 4) ==
        Batch{{17, 0, 1, kLast}, {18, 0, 1, kLast}, {19, 0, 1, kLast}, {20, 0, 1, kLast}});
}

TEST_CASE("the more positions a prompt's row attends to, the more it counts", "[scheduler]") {
  struct Row {
    int32_t position;
    int32_t rows;  // the first piece beside 4 decoded tokens, of a budget of 24
  };
  const Row rows[] = {
      {0, 19},      // 19 + (0 + ... + 18) / 1,000 = 19.2
      {500, 13},    // 13 * 1.5 and a little
      {1000, 9},    // 9 * 2 + 0.04; a tenth would make it 20.05
      {4000, 3},    // 3 * 5
      {50'000, 1},  // 51, but it must go on
  };
  for (const Row& row : rows) {
    CAPTURE(row.position);
    BatchScheduler scheduler({.token_budget = 24}, /*positions_per_row=*/1000);
    for (uint64_t lane = 1; lane <= 4; ++lane) scheduler.submit(lane, lane, 1, row.position);
    scheduler.submit(9, 9, 200, row.position);
    const Batch batch = scheduler.next_batch();
    REQUIRE(batch.size() == 5);  // decoded tokens count as one, wherever they are
    CHECK(batch.back() == Piece{9, 0, row.rows, kMore});
  }
  BatchScheduler alone({.token_budget = 24}, 1000);
  alone.submit(9, 9, 200, 1000);
  CHECK(alone.next_batch(/*expected=*/false) == Batch{{9, 0, 128, kMore}});
  CHECK(alone.next_batch(/*expected=*/true) == Batch{{9, 128, 11, kMore}});  // 11 * 2.133
}

TEST_CASE("prompts alone may be asked for", "[scheduler]") {
  BatchScheduler scheduler({.token_budget = 16}, /*positions_per_row=*/1000);
  CHECK(scheduler.next_prompts(5).empty());
  scheduler.submit(1, 1, 4);
  CHECK(scheduler.next_prompts(5).empty());
  scheduler.submit(2, 2, 20);
  CHECK(scheduler.next_prompts(0).empty());
  CHECK(scheduler.next_prompts(5) == Batch{{2, 0, 4, kMore}});  // 4 + (0 + ... + 3) / 1,000
  CHECK(scheduler.next_batch() == Batch{{1, 0, 4, kLast}, {2, 4, 11, kMore}});
  CHECK(scheduler.next_prompt_row() == Approx(1.015));
  CHECK(scheduler.next_prompts(40) == Batch{{2, 15, 5, kLast}});
  CHECK(scheduler.waiting() == 0);
  CHECK(scheduler.next_prompt_row() == 0);
  scheduler.submit(3, 3, 20, /*position=*/0);
  scheduler.submit(4, 4, 20, /*position=*/6000);
  CHECK(scheduler.next_prompt_row() == 7);
  CHECK(scheduler.next_prompts(6) == Batch{{3, 0, 5, kMore}});  // no room for a row that counts 7
  CHECK(scheduler.next_prompts(6) == Batch{{4, 0, 1, kMore}});  // its turn, and it gets on
}

TEST_CASE("a scheduler knows of its prompts", "[scheduler]") {
  BatchScheduler scheduler({.token_budget = 16});
  scheduler.submit(1, 1, 4);
  CHECK_FALSE(scheduler.prompt_waits());
  scheduler.submit(2, 2, 20);
  CHECK(scheduler.prompt_waits());
  CHECK(scheduler.next_batch() == Batch{{1, 0, 4, kLast}, {2, 0, 12, kMore}});
  CHECK(scheduler.prompt_waits());
  CHECK(scheduler.next_batch() == Batch{{2, 12, 8, kLast}});
  CHECK_FALSE(scheduler.prompt_waits());
}

TEST_CASE("prompts of two clients take turns, those of one go in order", "[scheduler]") {
  BatchScheduler scheduler({.token_budget = 16});
  scheduler.submit(/*lane=*/1, /*client=*/1, 32);
  scheduler.submit(/*lane=*/2, /*client=*/1, 32);
  scheduler.submit(/*lane=*/3, /*client=*/2, 24);
  CHECK(scheduler.next_batch() == Batch{{1, 0, 16, kMore}});
  CHECK(scheduler.next_batch() == Batch{{3, 0, 16, kMore}});
  CHECK(scheduler.next_batch() == Batch{{1, 16, 16, kLast}});
  CHECK(scheduler.next_batch() == Batch{{3, 16, 8, kLast}, {2, 0, 8, kMore}});
  CHECK(scheduler.next_batch() == Batch{{2, 8, 16, kMore}});
}

TEST_CASE("who idled has saved nothing up", "[scheduler]") {
  BatchScheduler scheduler({.token_budget = 16});
  scheduler.submit(1, 1, 1600);
  for (int round = 0; round < 50; ++round) CHECK(scheduler.next_batch().size() == 1);
  scheduler.submit(2, 2, 1600);  // 800 rows behind, yet they share from here on
  std::map<uint64_t, int32_t> served;
  for (int round = 0; round < 20; ++round) {
    for (const Piece& piece : scheduler.next_batch()) served[piece.lane] += piece.count;
  }
  CHECK(served[1] == 160);
  CHECK(served[2] == 160);
}

TEST_CASE("going idle for a moment wipes out no debt", "[scheduler]") {
  BatchScheduler scheduler({.token_budget = 16});
  scheduler.submit(1, 1, 16);
  scheduler.submit(2, 2, 640);
  CHECK(scheduler.next_batch() == Batch{{1, 0, 16, kLast}});
  CHECK(scheduler.next_batch() == Batch{{2, 0, 16, kMore}});
  scheduler.submit(1, 1, 32);  // 16 rows each; the other has waited longer
  CHECK(scheduler.next_batch() == Batch{{2, 16, 16, kMore}});
  CHECK(scheduler.next_batch() == Batch{{1, 0, 16, kMore}});
  CHECK(scheduler.next_batch() == Batch{{2, 32, 16, kMore}});
  CHECK(scheduler.next_batch() == Batch{{1, 16, 16, kLast}});
  scheduler.submit(1, 1, 16);
  CHECK(scheduler.next_batch() == Batch{{2, 48, 16, kMore}});
}

TEST_CASE("a prompt that grows fills its passes", "[scheduler]") {
  BatchScheduler scheduler({.token_budget = 16});
  CHECK_FALSE(scheduler.extend(1, 10));  // nothing to go on from
  scheduler.submit(1, 1, 20);
  CHECK(scheduler.next_batch() == Batch{{1, 0, 16, kMore}});
  CHECK(scheduler.extend(1, 20));
  CHECK(scheduler.next_batch() == Batch{{1, 16, 16, kMore}});
  CHECK(scheduler.next_batch() == Batch{{1, 32, 8, kLast}});
  CHECK_FALSE(scheduler.extend(1, 20));  // it is over
  scheduler.submit(1, 1, 4);
  CHECK_FALSE(scheduler.extend(1, 1));  // short steps are never cut
}

TEST_CASE("a prompt does not grow for ever", "[scheduler]") {
  BatchScheduler scheduler({.token_budget = 16});
  scheduler.submit(1, 1, 20);
  CHECK_FALSE(scheduler.extend(1, BatchScheduler::kLongestPrompt - 19));
  CHECK(scheduler.extend(1, BatchScheduler::kLongestPrompt - 20));
  CHECK_FALSE(scheduler.extend(1, 1));
}

TEST_CASE("cancelling frees the rows at once", "[scheduler]") {
  BatchScheduler scheduler({.token_budget = 16});
  scheduler.submit(1, 1, 100);
  scheduler.submit(2, 2, 100);
  CHECK(scheduler.next_batch() == Batch{{1, 0, 16, kMore}});
  scheduler.cancel(1);
  scheduler.cancel(7);  // nobody's
  CHECK(scheduler.next_batch() == Batch{{2, 0, 16, kMore}});
  scheduler.submit(1, 1, 1);  // the lane may go on
  CHECK(scheduler.next_batch() == Batch{{1, 0, 1, kLast}, {2, 16, 15, kMore}});
}

TEST_CASE("what a caller must not do", "[scheduler]") {
  CHECK_FAILS_WITH(BatchOptions{.token_budget = 15}.validate(), ErrorCode::kInvalidArgument);
  CHECK_THROWS_AS(BatchScheduler({.token_budget = 16}, /*positions_per_row=*/-1),
                  std::invalid_argument);
  CHECK_THROWS_AS(BatchScheduler({.token_budget = 5000}), std::invalid_argument);
  BatchScheduler scheduler({.token_budget = 16});
  scheduler.submit(1, 1, 1);
  CHECK_THROWS_AS(scheduler.submit(1, 1, 1), std::logic_error);
  CHECK_THROWS_AS(scheduler.submit(2, 1, 0), std::invalid_argument);
}

/// Random clients that submit whenever a lane of theirs is free.
class Crowd {
 public:
  explicit Crowd(uint32_t seed)
      : random_(seed),
        budget_(16 + pick(100)),
        scheduler_({.token_budget = budget_}, /*positions_per_row=*/pick(2) * 500) {}

  void run(int rounds) {
    for (int round = 0; round < rounds; ++round) {
      for (uint64_t lane = 0; lane < 12; ++lane) {
        if (!steps_.contains(lane) && pick(3) == 0) submit(lane);
        if (pick(20) == 0) extend(lane);
        if (steps_.contains(lane) && pick(50) == 0) {
          scheduler_.cancel(lane);
          steps_.erase(lane);
        }
      }
      check_batch(scheduler_.next_batch());
    }
  }

 private:
  static constexpr int32_t kMostRows = 300;
  struct Step {
    int32_t rows;
    int32_t done = 0;
    int waited = 0;
  };

  int32_t pick(int32_t below) { return static_cast<int32_t>(random_() % uint32_t(below)); }

  void submit(uint64_t lane) {
    const int32_t rows = pick(2) == 0 ? 1 + pick(8) : 1 + pick(kMostRows);
    scheduler_.submit(lane, /*client=*/lane / 3, rows, /*position=*/pick(400));
    steps_[lane] = {rows};
  }

  void extend(uint64_t lane) {
    const int32_t rows = 1 + pick(100);
    const auto step = steps_.find(lane);
    if (step != steps_.end() && step->second.rows + rows > kMostRows) return;
    if (scheduler_.extend(lane, rows)) {
      REQUIRE(step != steps_.end());
      step->second.rows += rows;
    }
  }

  void check_batch(const Batch& batch) {
    int32_t total = 0;
    std::map<uint64_t, int> pieces;
    for (auto& [lane, step] : steps_) ++step.waited;
    for (const Piece& piece : batch) {
      REQUIRE(++pieces[piece.lane] == 1);
      REQUIRE(steps_.contains(piece.lane));
      Step& step = steps_[piece.lane];
      REQUIRE(piece.first == step.done);
      REQUIRE(piece.count >= 1);
      step.done += piece.count;
      step.waited = 0;
      total += piece.count;
      REQUIRE(piece.last == (step.done == step.rows));
      if (piece.last) steps_.erase(piece.lane);
    }
    REQUIRE(total <= budget_);
    REQUIRE(batch.empty() == (total == 0));
    // No starvation: a lane's turn comes within what its client's other lanes and the other
    // clients' shares can take: 12 lanes of kMostRows rows, each counted as up to 2.4, at a quarter
    // of the budget.
    for (const auto& [lane, step] : steps_) {
      REQUIRE(step.waited <= 12 * kMostRows * 12 / 5 / (budget_ / 4));
    }
    REQUIRE(scheduler_.waiting() == steps_.size());
  }

  std::mt19937 random_;
  int32_t budget_;
  BatchScheduler scheduler_;
  std::map<uint64_t, Step> steps_;
};

TEST_CASE("every plan keeps its promises", "[scheduler][property]") {
  const auto seed = GENERATE(range(1U, 21U));
  CAPTURE(seed);
  Crowd(seed).run(3000);  // more than anyone may wait
}

}  // namespace
}  // namespace isthmus::scheduler
