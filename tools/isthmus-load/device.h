// One simulated device: the real protocol over a real connection, with recorded boundaries.
#pragma once

#include <isthmus/core/clock.h>
#include <isthmus/core/error.h>
#include <isthmus/transport/channel.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <optional>
#include <vector>

#include "recording.h"
#include "workload.h"

namespace isthmus::tools {

/// What became of one request.
struct Outcome {
  std::chrono::nanoseconds arrived{0};  ///< since the start; so are the others
  std::optional<ErrorCode> failed;
  std::vector<std::chrono::nanoseconds> tokens;  ///< when each came
  uint32_t busy = 0;                             ///< times it was told to come back
};

class SimulatedDevice {
 public:
  /// Borrows all but the channel. Sends prompts in steps of `chunk` rows. `seed` is for the jitter
  /// of its pauses.
  SimulatedDevice(transport::Channel channel, const Recording& recording, const Clock& clock,
                  Clock::TimePoint start, std::chrono::nanoseconds timeout, uint32_t chunk,
                  uint64_t seed)
      : channel_(std::move(channel)),
        recording_(recording),
        clock_(clock),
        start_(start),
        timeout_(timeout),
        chunk_(chunk),
        seed_(seed) {}

  /// A session of one prompt and one reply. Gives up when `stop` is set.
  [[nodiscard]] Outcome serve(const Request& request, const std::atomic<bool>& stop);

 private:
  struct InFlight {
    wire::Step step;
    uint64_t request_id = 0;
  };

  [[nodiscard]] std::chrono::nanoseconds now() const { return clock_.now() - start_; }
  Result<wire::Opened> open(Outcome& outcome);
  void close();
  /// Sends steps for tokens [position, position + count), `width` at a time and as many in flight
  /// as agreed, and waits for all the answers; only the last wants a token.
  Status advance(int32_t count, uint32_t width, Outcome& outcome);
  Status send(InFlight& request);
  /// The next answer to one of `waiting`, or kTimeout.
  Result<wire::Envelope> receive();
  void pause(const wire::Busy& busy, Outcome& outcome);

  transport::Channel channel_;
  const Recording& recording_;
  const Clock& clock_;
  Clock::TimePoint start_;
  std::chrono::nanoseconds timeout_;
  uint32_t chunk_;
  uint64_t seed_;

  uint64_t session_ = 0;
  wire::Opened opened_;
  uint64_t next_request_ = 1;
  uint64_t sequence_ = 0;
  uint32_t position_ = 0;
  uint64_t pauses_ = 0;
  Clock::TimePoint deadline_;
  const std::atomic<bool>* stop_ = nullptr;
};

}  // namespace isthmus::tools
