// The requests of one session that carry sequence numbers: which are answered, which wait, which
// may come next.
#pragma once

#include <isthmus/core/clock.h>
#include <isthmus/transport/channel.h>
#include <isthmus/wire/messages.h>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>
#include <variant>
#include <vector>

namespace isthmus::server {

/// Where an answer goes.
struct Ticket {
  transport::Peer from;
  uint64_t request_id = 0;
  Clock::TimePoint arrived;
};

/// An answer without its request's id.
struct Reply {
  wire::Body body;
  std::vector<std::byte> payload;
};

/// A step or a truncation that waits for its turn.
struct Waiting {
  std::variant<wire::Step, wire::Truncate> body;
  std::vector<std::byte> payload;
  Ticket ticket;
  bool scheduled = false;  ///< the scheduler has its rows
  /// When its client gives up. Nothing before it is the head, or when it never does.
  std::optional<Clock::TimePoint> expires = std::nullopt;

  /// Its client starts to wait for it, or says that it still does.
  void wait_from(Clock::TimePoint now);
  [[nodiscard]] uint64_t sequence() const;
  /// Tokens the session holds once it has been carried out.
  [[nodiscard]] uint32_t length_after() const;
};

class StepQueue {
 public:
  enum class Place : uint8_t {
    kNext,        ///< it may be pushed
    kWaiting,     ///< it is here already, and is `redirect`ed to who asked last
    kAnswered,    ///< its answer is kept
    kFull,        ///< the next one, but no more may wait
    kHeldBack,    ///< its predecessor was told to come back later
    kOutOfOrder,  ///< none of these
  };

  /// At most `limit` requests wait, and as many answers are kept.
  explicit StepQueue(size_t limit) : limit_(limit) {}

  [[nodiscard]] Place place(uint64_t sequence) const;
  void push(Waiting request);
  /// The next one was told to come back later, and so are those that follow until it does.
  void hold_back() { held_back_ = true; }
  void redirect(uint64_t sequence, const Ticket& ticket);
  /// The kept answer. Only after Place::kAnswered.
  [[nodiscard]] const Reply& kept(uint64_t sequence) const;

  [[nodiscard]] bool empty() const { return waiting_.empty(); }
  [[nodiscard]] const Waiting& head() const { return waiting_.front(); }
  [[nodiscard]] Waiting& head() { return waiting_.front(); }
  /// Those that wait, in order.
  [[nodiscard]] const std::deque<Waiting>& waiting() const { return waiting_; }
  [[nodiscard]] std::deque<Waiting>& waiting() { return waiting_; }
  /// The last that waits. Only when not empty.
  [[nodiscard]] const Waiting& back() const { return waiting_.back(); }
  /// Takes the head off and keeps its answer.
  void complete_head(Reply reply);
  /// Takes everything off; none of it has happened.
  [[nodiscard]] std::deque<Waiting> drop_all();

  /// The sequence number of the last request that was carried out, 0 before the first.
  [[nodiscard]] uint64_t done() const { return done_; }

 private:
  size_t limit_;
  uint64_t done_ = 0;
  bool held_back_ = false;
  std::deque<Waiting> waiting_;  // done_ + 1, done_ + 2, ...
  std::deque<Reply> kept_;       // ..., done_ - 1, done_
};

}  // namespace isthmus::server
