// When requests come, and how long they are.
#pragma once

#include <isthmus/core/clock.h>
#include <isthmus/core/error.h>

#include <chrono>
#include <cstdint>
#include <mutex>
#include <optional>
#include <vector>

#include "options.h"

namespace isthmus::tools {

struct Request {
  std::chrono::nanoseconds at{0};  ///< since the start
  int32_t prompt_tokens = 0;
  int32_t output_tokens = 0;
};

/// Requests with the arrival times of BurstGPT's CSV, lengths cut to the limits of `flags`, until
/// its duration. Failed requests (0 response tokens) are left out.
/// \returns kNotFound, kCorrupt naming the line.
[[nodiscard]] Result<std::vector<Request>> read_trace(const LoadFlags& flags);

/// Requests as a Poisson process, all of the same lengths, until the duration.
[[nodiscard]] std::vector<Request> poisson(const LoadFlags& flags);

/// Hands requests to devices. Thread-safe.
class Workload {
 public:
  /// A closed loop: every device asks again as soon as it is answered.
  explicit Workload(Request each) : each_(each) {}
  /// An open loop: these, whether or not a device is free in time.
  explicit Workload(std::vector<Request> requests) : open_(true), requests_(std::move(requests)) {}

  /// The next request at `now`, which may come later; nothing when there are no more.
  [[nodiscard]] std::optional<Request> next(std::chrono::nanoseconds now);

 private:
  bool open_ = false;
  Request each_;
  std::vector<Request> requests_;
  std::mutex mutex_;
  size_t taken_ = 0;
};

}  // namespace isthmus::tools
