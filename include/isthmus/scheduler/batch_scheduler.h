// Which rows of which sessions go into the next pass over the layers.
//
// Continuous batching with chunked prefill (SARATHI: Agrawal et al. 2023, arXiv 2308.16369): a pass
// carries at most a budget of rows, short steps (decoded tokens, verify windows) go first and
// whole, pieces of prompts fill the rest, so that a long prompt makes every pass a little longer
// instead of one pass very long. The later a prompt's row, the more positions it attends to; rows
// are counted accordingly, so that passes take equally long from a prompt's first piece to its
// last.
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
  /// Rows in one pass, in [16, 4096]. More makes prompts cheaper and a decoded token wait longer:
  /// see the curve in lib/server/README.md. A GPU, whose passes cost nearly the same up to hundreds
  /// of rows, wants 256 or more.
  int32_t token_budget = 40;

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

/// A lane carries one step at a time, a prompt's may grow: a session has one. Lanes belong to
/// clients. Not thread-safe.
class BatchScheduler {
 public:
  /// Beside decoding sessions a prompt's row behind p positions counts as 1 + p /
  /// `positions_per_row` rows: attending to so many takes as long as all else that is done for it.
  /// 0: as one. \throws std::invalid_argument when `options` are not valid or it is negative.
  explicit BatchScheduler(BatchOptions options, int32_t positions_per_row = 0);

  /// A step of `rows` rows, at least 1, the first of them behind `position` others. \throws
  /// std::logic_error when the lane has one already.
  void submit(uint64_t lane, uint64_t client, int32_t rows, int32_t position = 0);

  /// Adds `rows` rows to the prompt that a lane carries, so that one pass may hold its last rows
  /// and the first of these, which are the prompt's from then on, however few. \returns false, and
  /// changes nothing, when the lane carries no prompt or that would have more than kLongestPrompt
  /// rows: other lanes of its client have waited enough.
  [[nodiscard]] bool extend(uint64_t lane, int32_t rows);
  static constexpr int32_t kLongestPrompt = 1024;

  /// Forgets what is left of a lane's step, if there is one.
  void cancel(uint64_t lane);

  /// What to run now, at most one piece a lane and `token_budget` rows in all; empty when nothing
  /// waits. When no short step waits and none is `expected`, nobody has to be spared a long pass:
  /// prompts get at least kLoneRows, each counted as one. A step is forgotten once its last piece
  /// is handed out.
  [[nodiscard]] std::vector<Piece> next_batch(bool expected = true);
  static constexpr int32_t kLoneRows = 128;

  /// Pieces of prompts only, worth `rows` rows, each counted as beside decoding sessions, but at
  /// least one: what to run while those are away. Empty when no prompt waits or `rows` is 0.
  [[nodiscard]] std::vector<Piece> next_prompts(int32_t rows);

  /// Steps that are waiting or half done.
  [[nodiscard]] size_t waiting() const { return steps_.size(); }
  /// Whether one of them is a prompt, which fills what others leave of a pass.
  [[nodiscard]] bool prompt_waits() const;
  /// What the next row of a waiting prompt counts, at most; 0 without one.
  [[nodiscard]] double next_prompt_row() const;

 private:
  struct Step {
    uint64_t lane = 0;
    uint64_t client = 0;
    uint64_t order = 0;  // of submission
    int32_t rows = 0;
    int32_t position = 0;  // of the first
    int32_t done = 0;
  };
  struct Client {
    uint64_t served = 0;  // rows, counted from the least served client's when this one came
    size_t steps = 0;
  };

  enum class Kind { kShort, kPrompt };
  [[nodiscard]] Kind kind_of(const Step& step) const {
    return step.rows <= options_.short_rows() ? Kind::kShort : Kind::kPrompt;
  }
  [[nodiscard]] std::vector<Step*> steps(Kind kind);

  /// Appends steps, or pieces of them when not `whole`, in the order of fairness, until rows worth
  /// `room` are used; a row counts `per_position` more for every position before it. \returns the
  /// room that is left.
  double take(std::span<Step* const> steps, bool whole, double per_position, double room,
              std::vector<Piece>& batch);
  void remove(uint64_t lane);
  void remove_finished(std::span<const Piece> batch);
  [[nodiscard]] uint64_t least_served() const;

  BatchOptions options_;
  double per_position_;  // what a position before it adds to what a prompt's row counts
  uint64_t next_order_ = 0;
  std::map<uint64_t, Step> steps_;      // by lane
  std::map<uint64_t, Client> clients_;  // those with steps, and those ahead of the least served
};

}  // namespace isthmus::scheduler
