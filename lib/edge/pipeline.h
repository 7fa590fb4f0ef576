// How a session gets from tokens to the next token: on this device alone, or split with a server.
#pragma once

#include <isthmus/core/error.h>
#include <isthmus/edge/device.h>
#include <isthmus/model/fingerprint.h>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>

namespace isthmus::edge {

/// What choosing the next token needs.
struct Choice {
  const engine::SamplingOptions& sampling;
  std::span<const int32_t> generated;  ///< ids of this reply so far
  int32_t reply_start;                 ///< position of the reply's first token
};

/// What a pipeline has spent since it was made.
struct Spent {
  TimeSplit time_s;
  uint64_t bytes_up = 0;
  uint64_t bytes_down = 0;
  uint64_t boundary_bytes_up = 0;
  uint64_t steps = 0;
  uint64_t released_rows = 0;
  uint64_t resumes = 0;
};

/// The caches of one conversation and the way through its layers. After an error a pipeline must be
/// truncated before it is used again. Not thread-safe.
class Pipeline {
 public:
  virtual ~Pipeline() = default;
  /// Appends a prompt (at least one token) and returns the token that follows it. Nothing when
  /// `go_on`, which is asked between the chunks of a long prompt, says no.
  [[nodiscard]] virtual Result<std::optional<int32_t>> prompt(
      std::span<const int32_t> tokens, const Choice& choice,
      const std::function<bool()>& go_on) = 0;
  /// Appends the reply's latest token and returns the one that follows it.
  [[nodiscard]] virtual Result<int32_t> next(int32_t token, const Choice& choice) = 0;
  /// Forgets positions [length, ...), whatever state an error has left behind.
  [[nodiscard]] virtual Status truncate(int32_t length) = 0;
  [[nodiscard]] virtual int32_t length() const = 0;
  [[nodiscard]] virtual int32_t capacity() const = 0;
  [[nodiscard]] virtual Spent spent() const = 0;
  [[nodiscard]] virtual std::string server_description() const = 0;
  /// What the releases so far amount to; nothing when there is no mechanism.
  [[nodiscard]] virtual Result<std::optional<PrivacyReport>> privacy() const = 0;
  /// Checks a sample of the answers since the last time, if that is asked for.
  virtual void verify() = 0;
  [[nodiscard]] virtual VerifyReport verification() const = 0;
};

/// The whole model on `engine`, which is borrowed.
[[nodiscard]] Result<std::unique_ptr<Pipeline>> make_local_pipeline(engine::Engine& engine,
                                                                    int32_t max_tokens);

/// Where a model is divided, and what is known of it.
struct Split {
  int32_t cut = 0;
  std::optional<int32_t> tail;
  model::Fingerprint fingerprint;
  /// Holds what the server runs, and checks its answers; borrowed. Null: not needed.
  engine::Engine* reference = nullptr;
};

/// Layers [0, cut) on `engine`, which is borrowed, [cut, tail) on the server, and, with a tail, the
/// rest on `engine` again.
[[nodiscard]] Result<std::unique_ptr<Pipeline>> make_split_pipeline(engine::Engine& engine,
                                                                    const Split& split,
                                                                    const SessionOptions& options);

}  // namespace isthmus::edge
