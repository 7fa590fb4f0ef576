// One conversation: its cache, its codecs, the steps that are being computed.
#pragma once

#include <isthmus/artefact/artefact.h>
#include <isthmus/codec/codec.h>
#include <isthmus/core/clock.h>
#include <isthmus/core/error.h>
#include <isthmus/core/matrix.h>
#include <isthmus/core/random.h>
#include <isthmus/engine/engine.h>
#include <isthmus/server/observer.h>
#include <isthmus/server/options.h>
#include <isthmus/wire/messages.h>
#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "step_queue.h"

namespace isthmus::server {

/// Whose a session is, and what it was admitted for.
struct SessionOwner {
  std::string key;      ///< the client's public key
  uint64_t client = 0;  ///< the client's number
  uint64_t lane = 0;    ///< the session's number for the scheduler
  uint64_t kv_bytes = 0;
};

using SharedArtefact = std::shared_ptr<const artefact::Artefact>;

class Session {
 public:
  /// Makes what `open` asks for, for at most `capacity` tokens beside the soft prompt of
  /// `artefact`, which is the one of its codec or null. Borrows the engine.
  /// \returns kInvalidArgument, kUnsupported, kNotFound (a calibration or an artefact),
  /// kModelMismatch, kOutOfMemory.
  [[nodiscard]] static Result<std::unique_ptr<Session>> make(engine::Engine& engine,
                                                             const ServerOptions& options,
                                                             const wire::Open& open,
                                                             SharedArtefact artefact,
                                                             int32_t capacity, SessionOwner owner);

  [[nodiscard]] const wire::Open& open() const { return open_; }
  [[nodiscard]] const SessionOwner& owner() const { return owner_; }
  [[nodiscard]] int32_t capacity() const { return cache_->capacity() - prompt_rows(); }
  [[nodiscard]] StepQueue& queue() { return queue_; }
  [[nodiscard]] const StepQueue& queue() const { return queue_; }

  /// Whether a request that comes next can be carried out once those ahead of it have been.
  /// \returns kTooLarge, kOutOfOrder, kContextFull, kCorrupt, kInvalidArgument.
  [[nodiscard]] Status check(const wire::Step& step, size_t payload_bytes) const;
  [[nodiscard]] Status check(const wire::Truncate& truncate) const;

  /// Rows that the engine computes for a step: the session's first ones follow its soft prompt.
  [[nodiscard]] int32_t computed_rows(const wire::Step& step) const {
    return static_cast<int32_t>(step.token_count) + (step.position == 0 ? prompt_rows() : 0);
  }

  /// Whether a step that follows `step` may be computed in the same pass: a pass gives back the
  /// rows of all of a session's positions or of the last one.
  [[nodiscard]] bool runs_on(const wire::Step& step) const {
    return needs_all_rows() || !step.wants_reply;
  }

  // The steps at the front of the queue, from `begin` to `finish` or `roll_back`.

  /// Decodes as many as hold the next `rows` rows, and lets go of their payloads.
  /// \returns how many rows are ready: fewer if a later step's could not be decoded. That one will
  /// fail when it is the head.
  [[nodiscard]] Result<int32_t> begin(int32_t rows, const Clock& clock);
  /// Whether the head has been begun.
  [[nodiscard]] bool begun() const { return !begun_.empty(); }
  /// Steps that have been begun.
  [[nodiscard]] size_t begun_steps() const { return begun_.size(); }
  /// The next `rows` rows, which are ready. Valid until the next `begin`, `finish` or `roll_back`.
  [[nodiscard]] engine::Slice slice(int32_t rows) const;
  /// Takes what the engine made of them in a pass that took `time`, all of which counts as compute
  /// of each step that had rows in it.
  void absorb(int32_t rows, Matrix output, std::chrono::nanoseconds time);
  /// Whether all of the head's rows are computed.
  [[nodiscard]] bool head_computed() const { return begun() && begun_.front().left() == 0; }
  /// The head's answer: samples or encodes. Nothing has happened if that fails.
  struct Finished {
    Reply reply;
    StepReport report;
  };
  [[nodiscard]] Result<Finished> finish(const Clock& clock);
  /// Forgets what was computed of them.
  void roll_back();

  /// Carries out the truncation at the head of the queue.
  [[nodiscard]] Result<Reply> truncate();

  Clock::TimePoint last_used;

 private:
  struct Progress {
    size_t rows = 0;
    size_t computed = 0;  // of its rows: they are in the cache
    Matrix output;
    size_t bytes_up = 0;
    std::chrono::nanoseconds codec{0};
    std::chrono::nanoseconds compute{0};

    [[nodiscard]] size_t left() const { return rows - computed; }
  };

  Session(engine::Engine& engine, const ServerOptions& options, const wire::Open& open,
          SharedArtefact artefact, SessionOwner owner);
  // The soft prompt stands in the cache whenever a token does, so the device's positions are the
  // cache's less its rows.
  [[nodiscard]] int32_t prompt_rows() const {
    return artefact_ == nullptr ? 0 : static_cast<int32_t>(artefact_->soft_prompt().rows());
  }
  [[nodiscard]] int32_t length() const { return std::max(0, cache_->length() - prompt_rows()); }
  /// Tokens that the cache holds once everything in the queue has been carried out.
  [[nodiscard]] uint32_t planned_length() const;
  [[nodiscard]] bool needs_all_rows() const;
  [[nodiscard]] const codec::BoundaryCodec& codec_of(const wire::Step& step) const {
    return step.clean ? *codec_clean_ : *codec_up_;
  }
  /// Rows that are decoded and not yet computed.
  [[nodiscard]] size_t ready_rows() const { return rows_.rows() - taken_; }
  void forget_rows() {
    rows_ = {};
    taken_ = 0;
  }
  /// Decodes the first step that has not been begun.
  [[nodiscard]] Status begin_next(const Clock& clock);
  [[nodiscard]] Result<int32_t> choose_token(const wire::Step& step, const Matrix& logits);

  engine::Engine& engine_;
  int32_t max_step_tokens_;
  wire::Open open_;
  SharedArtefact artefact_;  // null: the codec projects nothing
  SessionOwner owner_;
  SystemRandom random_;
  std::unique_ptr<codec::BoundaryCodec> codec_up_;
  std::unique_ptr<codec::BoundaryCodec> codec_down_;
  std::unique_ptr<codec::BoundaryCodec> codec_clean_;  // null: no step may be clean
  std::unique_ptr<engine::KvCache> cache_;
  StepQueue queue_;
  std::deque<Progress> begun_;  // the first steps of the queue
  Matrix rows_;                 // what is left of theirs behind `taken_` that are computed
  size_t taken_ = 0;
  std::vector<std::pair<int32_t, int32_t>> sampled_;  // position and id of tokens chosen here
};

}  // namespace isthmus::server
