// Which rows of which sessions go into the next pass over the layers.
//
// Continuous batching with chunked prefill (SARATHI: Agrawal et al. 2023, arXiv 2308.16369): a pass
// carries at most a budget of rows, short steps (decoded tokens, verify windows) go first and
// whole, pieces of prompts fill the rest, so that a long prompt makes every pass a little longer
// instead of one pass very long.
//
// Between clients service is shared by rows with virtual token counters (Sheng et al. 2024, OSDI,
// "Fairness in Serving Large Language Models"): the client that was served least goes first, and
// one that comes back from idling starts where the least served of the others is, so nothing is
// saved up.
//
// Pure: ids and counts in, a plan out; no clock, no sockets, no tensors.
#pragma once

#include <isthmus/core/error.h>
#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <vector>

namespace isthmus::scheduler {

struct BatchOptions {
  /// Rows in one pass, in [16, 4096]. More makes prompts cheaper and a decoded token wait longer.
  /// With 24 on a CPU a prompt beside 8 decoding sessions makes their passes 2.5 times as long and
  /// takes 1.6 times as long itself (lib/scheduler/README.md). A GPU, whose passes cost nearly the
  /// same up to hundreds of rows, wants 256 or more.
  int32_t token_budget = 24;

  /// Steps of at most this many rows are short.
  [[nodiscard]] int32_t short_rows() const { return token_budget < 32 ? token_budget / 4 : 8; }
  /// What is kept for prompts while any wait, however many short steps there are.
  [[nodiscard]] int32_t prompt_rows() const { return token_budget / 4; }
  /// \returns kInvalidArgument naming the field and its value.
  [[nodiscard]] Status validate() const;
};

/// Rows [first, first + count) of a lane's step.
struct Piece {
  uint64_t lane = 0;
  int32_t first = 0;
  int32_t count = 0;
  bool last = false;  ///< the step is complete with it
  friend bool operator==(const Piece&, const Piece&) = default;
};

/// A lane carries one step at a time: a session has one. Lanes belong to clients. Not thread-safe.
class BatchScheduler {
 public:
  /// \throws std::invalid_argument when `options` are not valid.
  explicit BatchScheduler(BatchOptions options);

  /// A step of `rows` rows, at least 1. \throws std::logic_error when the lane has one already.
  void submit(uint64_t lane, uint64_t client, int32_t rows);

  /// Forgets what is left of a lane's step, if there is one.
  void cancel(uint64_t lane);

  /// What to run now, at most one piece a lane and `token_budget` rows in all; empty when nothing
  /// waits. When no short step waits and none is `expected`, nobody has to be spared a long pass:
  /// prompts get at least kLoneRows. A step is forgotten once its last piece is handed out.
  [[nodiscard]] std::vector<Piece> next_batch(bool expected = true);
  static constexpr int32_t kLoneRows = 128;

  /// Steps that are waiting or half done.
  [[nodiscard]] size_t waiting() const { return steps_.size(); }

 private:
  struct Step {
    uint64_t lane = 0;
    uint64_t client = 0;
    uint64_t order = 0;  // of submission
    int32_t rows = 0;
    int32_t done = 0;
  };
  struct Client {
    uint64_t served = 0;  // rows, counted from the least served client's when this one came
    size_t steps = 0;
  };

  /// Appends pieces of `steps`, in the order of fairness, until `room` rows are used. Whole steps
  /// only, or pieces. \returns the room that is left.
  int32_t take(std::span<Step* const> steps, bool whole, int32_t room, std::vector<Piece>& batch);
  void remove(uint64_t lane);
  [[nodiscard]] uint64_t least_served() const;

  BatchOptions options_;
  uint64_t next_order_ = 0;
  std::map<uint64_t, Step> steps_;      // by lane
  std::map<uint64_t, Client> clients_;  // those with steps, and those ahead of the least served
};

}  // namespace isthmus::scheduler
