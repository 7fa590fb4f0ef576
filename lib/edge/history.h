// What a session has asked its server, in order: enough to bring another server to the same state.
#pragma once

#include <isthmus/wire/messages.h>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>
#include <vector>

namespace isthmus::edge {

/// A message body with its payload: a request, or the answer to one.
struct Parcel {
  wire::Body body;
  std::vector<std::byte> payload;
};

/// A step or a truncation, and what became of it.
struct Request {
  Parcel parcel;
  uint64_t id = 0;               ///< of the envelope it last went out in; 0: it has to go out
  std::optional<Parcel> answer;  ///< came, and was not taken yet
  int32_t token = -1;            ///< what the server chose, once the answer was taken
};

/// Tokens the server holds once a step or a truncation has been carried out.
[[nodiscard]] int32_t length_after(const wire::Body& request);

/// The requests of a session. Those in front are settled: their answers were taken. The payloads of
/// settled steps are the encoded boundary itself, so replaying them releases nothing anew. Steps
/// that a truncation has undone are forgotten, and everything settled is once it takes more than
/// `limit_bytes`.
class History {
 public:
  explicit History(size_t limit_bytes) : limit_bytes_(limit_bytes) {}

  /// Adds a request that is to be sent.
  void push(Request request);
  /// The oldest request that is not settled was answered.
  void settle(int32_t token);
  /// Drops the requests that are not settled.
  void drop_open();

  /// Settled requests come first; \returns how many of the requests here they are.
  [[nodiscard]] size_t settled() const { return settled_; }
  [[nodiscard]] size_t open() const { return requests_.size() - settled_; }
  [[nodiscard]] Request& at(size_t index) { return requests_[index]; }
  [[nodiscard]] size_t size() const { return requests_.size(); }

  /// Whether all that the session has settled is here.
  [[nodiscard]] bool is_complete() const { return complete_; }
  /// Takes every request for one that was not sent, to be sent again from the first on.
  void rewind();

 private:
  void forget_undone();

  size_t limit_bytes_;
  std::deque<Request> requests_;
  size_t settled_ = 0;
  size_t bytes_ = 0;  // of settled requests
  bool complete_ = true;
};

}  // namespace isthmus::edge
