// What device and server say to each other, as plain values, and their form on the wire
// (proto/isthmus/v1/wire.proto).
//
// A message is one protobuf envelope plus at most one raw payload frame with encoded boundary rows;
// transport moves both. Decoding trusts nothing: every number is checked against its documented
// range before it is used.
#pragma once

#include <isthmus/core/error.h>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <variant>
#include <vector>

namespace isthmus::wire {

/// Checked when a session opens; both sides must speak the same.
inline constexpr uint32_t kProtocolVersion = 1;
/// No envelope is longer; longer ones are refused unparsed.
inline constexpr size_t kMaxEnvelopeBytes = 8192;
/// No text field is longer.
inline constexpr size_t kMaxTextBytes = 1024;

/// Which model a device runs; a server with another one refuses.
struct ModelSummary {
  std::string architecture;  ///< not empty
  uint32_t layer_count = 0;  ///< at least 1, and so are the next two
  uint32_t hidden_size = 0;
  uint32_t vocab_size = 0;  ///< less than 2^31
  /// Of its weights and its arithmetic (isthmus/model/fingerprint.h).
  std::array<std::byte, 32> fingerprint{};
  friend bool operator==(const ModelSummary&, const ModelSummary&) = default;
};

/// What the server gives back for a step that asks for a reply.
enum class ReplyMode : uint8_t {
  kToken = 1,  ///< it applies the head, samples, and returns a token id
  kHidden =
      2,  ///< it returns the last row at the tail's first layer, encoded; the device runs the tail
};

/// As engine::SamplingOptions.
struct Sampling {
  float temperature = 0;
  int32_t top_k = 0;
  float top_p = 1;
  float min_p = 0;
  float repetition_penalty = 1;
  uint64_t seed = 0;
  friend bool operator==(const Sampling&, const Sampling&) = default;
};

// Requests.

/// Asks for a session. Idempotent by session until the session's first step.
struct Open {
  uint32_t version = kProtocolVersion;
  ModelSummary model;
  uint32_t cut = 0;  ///< the server runs layers [cut, tail); at most tail
  uint32_t tail =
      0;  ///< at most layer_count, which it is when the server runs all that follow the cut
  std::string codec_up;     ///< codec::CodecSpec as text: what the device sends
  std::string codec_down;   ///< what the server sends back; used with ReplyMode::kHidden
  std::string codec_clean;  ///< of steps that say `clean`; empty: there are none
  ReplyMode reply_mode = ReplyMode::kToken;
  uint32_t max_tokens = 0;  ///< KV capacity asked for; at least 1
  /// Names the session among those of this client. The device draws it at random, so that it can
  /// repeat an unanswered open, or close what it opened. Not 0.
  uint64_t session = 0;
  bool resumes = false;  ///< it goes on with a session that was lost, here or elsewhere
  friend bool operator==(const Open&, const Open&) = default;
};

/// The next `token_count` boundary rows, in the payload. Idempotent by (session, sequence).
struct Step {
  uint64_t session = 0;
  uint64_t sequence = 0;  ///< 1, 2, ... within the session; a repeated one gets the stored answer
  uint32_t position = 0;  ///< of the first row; position + token_count fits
  uint32_t token_count = 0;  ///< at least 1
  bool wants_reply = false;  ///< an answer is needed for the last row
  uint32_t reply_start =
      0;              ///< position of the reply's first generated token; with ReplyMode::kToken
  Sampling sampling;  ///< with ReplyMode::kToken
  /// The payload is in `codec_clean`: rows of tokens that the server knows need no mechanism.
  bool clean = false;
  /// How long the device waits once the steps before it are answered; a step that is not begun by
  /// then fails with kTimeout. 0: no limit.
  uint32_t timeout_ms = 0;
  friend bool operator==(const Step&, const Step&) = default;
};

/// Forgets positions [length, ...). Takes a sequence number like a step, and is idempotent like
/// one.
struct Truncate {
  uint64_t session = 0;
  uint64_t sequence = 0;
  uint32_t length = 0;
  friend bool operator==(const Truncate&, const Truncate&) = default;
};

struct Close {
  uint64_t session = 0;
  friend bool operator==(const Close&, const Close&) = default;
};

/// What a pong brings back in its payload.
enum class PingReply : uint8_t {
  kNothing = 0,
  kEcho = 1,     ///< the ping's own payload, to measure the way down
  kProfile = 2,  ///< the server's measured profile, as JSON; empty when it has none
};

struct Ping {
  PingReply reply = PingReply::kNothing;
  friend bool operator==(const Ping&, const Ping&) = default;
};

// Replies.

struct Opened {
  uint64_t session = 0;
  uint32_t max_tokens = 0;       ///< KV capacity granted; may be less than asked for
  uint32_t max_step_tokens = 0;  ///< rows one step may carry; at least 1, and so is the above
  std::string device;            ///< where the server computes, for people
  std::string precision;
  /// Steps and truncations that may wait for their answers at once; at least 1. A server that does
  /// not say takes one at a time.
  uint32_t max_in_flight = 1;
  friend bool operator==(const Opened&, const Opened&) = default;
};

/// Answer to a step. With ReplyMode::kHidden the payload holds the encoded rows that the tail
/// needs: all of the step's rows when the tail has layers (their KV cache needs every position),
/// else the last row, if a reply was wanted.
struct StepResult {
  uint64_t session = 0;
  uint64_t sequence = 0;
  uint32_t length = 0;      ///< tokens the session holds now
  int32_t token = -1;       ///< sampled id, or -1
  uint64_t compute_us = 0;  ///< microseconds in the engine and the sampler
  uint64_t codec_us = 0;    ///< microseconds decoding and encoding
  uint64_t queue_us = 0;    ///< microseconds waiting for a turn
  friend bool operator==(const StepResult&, const StepResult&) = default;
};

struct Truncated {
  uint64_t session = 0;
  uint64_t sequence = 0;
  uint32_t length = 0;
  friend bool operator==(const Truncated&, const Truncated&) = default;
};

struct Closed {
  uint64_t session = 0;
  friend bool operator==(const Closed&, const Closed&) = default;
};

struct Pong {
  friend bool operator==(const Pong&, const Pong&) = default;
};

/// Nothing was done; ask again later.
struct Busy {
  uint32_t retry_after_ms = 0;
  friend bool operator==(const Busy&, const Busy&) = default;
};

/// The request failed; `message` says why and holds no user data.
struct Failure {
  ErrorCode code = ErrorCode::kInternal;
  std::string message;
  friend bool operator==(const Failure&, const Failure&) = default;
};

using Body = std::variant<Open, Step, Truncate, Close, Ping, Opened, StepResult, Truncated, Closed,
                          Pong, Busy, Failure>;

/// One message without its payload. A reply repeats its request's `request_id`.
struct Envelope {
  uint64_t request_id = 0;
  Body body;
  friend bool operator==(const Envelope&, const Envelope&) = default;
};

/// The same value always gives the same bytes. A Failure's message, which may quote anything, is
/// made to fit: cut to kMaxTextBytes between two characters, a question mark for each byte that is
/// not plain UTF-8 (control characters are not). \throws std::invalid_argument when another text is
/// longer or not plain.
[[nodiscard]] std::vector<std::byte> encode(const Envelope& envelope);

/// Parses bytes that may come from anyone. Of an Open with another version than ours only the
/// version is read, so that the answer can be kVersionMismatch. A Failure's code that is unknown
/// here becomes kInternal. Whether finite sampling options are in range is the server's to check.
/// \returns kTooLarge, kCorrupt (not an envelope, no body, an enumerator or number outside its
/// range, a text that is too long or not plain UTF-8), kNotFinite (a sampling option).
[[nodiscard]] Result<Envelope> decode(std::span<const std::byte> bytes);

}  // namespace isthmus::wire
