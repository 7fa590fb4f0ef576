// What was measured, as figures.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "device.h"

namespace isthmus::tools {

struct Percentiles {
  double p50 = 0;
  double p90 = 0;
  double p99 = 0;
  double most = 0;
};

/// Nearest rank; all 0 without values.
[[nodiscard]] Percentiles percentiles(std::vector<double> values);

struct Report {
  size_t devices = 0;
  double seconds = 0;  ///< that count
  size_t completed = 0;
  size_t told_busy = 0;                  ///< times a request was told to come back
  std::map<std::string, size_t> failed;  ///< by error code
  double tokens_per_s = 0;               ///< of replies
  double rows_per_s = 0;                 ///< prompts as well, those that got a first token
  Percentiles first_token_s;             ///< from when a request was due
  Percentiles between_tokens_s;
  double intruder_s = 0;                ///< the intruder's first token; 0 without one
  std::string intruder_failed;          ///< its error code, if it did
  Percentiles between_tokens_before_s;  ///< the same in the two seconds before it came
  Percentiles between_tokens_during_s;  ///< and those that it had a part in, to its first token
};

/// Requests of a run, with what is needed to tell their times apart.
struct Run {
  size_t devices = 0;
  std::chrono::nanoseconds warm_up{0};
  std::chrono::nanoseconds end{0};
  std::vector<std::pair<Request, Outcome>> requests;
  std::vector<std::pair<Request, Outcome>> intruder;  ///< at most one
};

[[nodiscard]] Report summarise(const Run& run);
[[nodiscard]] std::string to_text(const Report& report);
[[nodiscard]] std::string to_json(const Report& report);

}  // namespace isthmus::tools
