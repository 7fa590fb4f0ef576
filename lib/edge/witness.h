// Carries out a session's steps again, elsewhere: what they should have been answered with.
#pragma once

#include <isthmus/core/error.h>
#include <isthmus/core/matrix.h>
#include <isthmus/engine/engine.h>
#include <isthmus/wire/messages.h>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "codecs.h"
#include "remote.h"

namespace isthmus::edge {

/// A step that was answered, to be carried out again.
struct Witnessed {
  wire::Step step;
  std::vector<std::byte> payload;
  std::vector<int32_t> generated;  ///< ids of the reply, before the one that the step asks for
  bool compared = false;           ///< whether its answer is wanted
};

/// The answer to a step as the device gets to see it.
struct Answer {
  int32_t token = -1;
  Matrix rows;  ///< decoded
};

/// What the answer should have been.
struct Testimony {
  Answer answer;
  Matrix exact;  ///< its rows before they were encoded
};

/// The caches of one conversation, somewhere else. Not thread-safe.
class Witness {
 public:
  virtual ~Witness() = default;
  /// Appends the steps, which follow what it holds. \returns a testimony for each step, empty for
  /// those that are not compared.
  [[nodiscard]] virtual Result<std::vector<Testimony>> repeat(std::span<const Witnessed> steps) = 0;
};

/// Rows in the answer to a step of a session with a tail.
[[nodiscard]] size_t answer_rows(size_t token_count, bool wants_reply, bool tail_has_layers);

/// The layers behind the cut on `engine`, which holds them and is borrowed, as is `codecs`.
[[nodiscard]] Result<std::unique_ptr<Witness>> make_local_witness(engine::Engine& engine,
                                                                  const Codecs& codecs,
                                                                  const wire::Open& open);

/// Another server, in a session like the one that is checked, which has `open` and steps of up to
/// `most_rows`; but its rows come as they are. `codecs` is borrowed. \returns kServerFull when it
/// grants less than that; the errors of Remote::open.
[[nodiscard]] Result<std::unique_ptr<Witness>> make_remote_witness(
    const transport::ChannelOptions& server, const SessionOptions& options, const Codecs& codecs,
    const wire::Open& open, uint32_t most_rows);

}  // namespace isthmus::edge
