// Runs the chosen cases: loads what each needs, checks that it computes what the whole model does,
// then times it.
#pragma once

#include <isthmus/core/error.h>
#include <isthmus/model/model_file.h>

#include <cstdint>
#include <vector>

#include "options.h"

namespace isthmus::tools {

/// What a segment takes in memory.
struct Footprint {
  uint64_t resident_bytes =
      0;                      ///< what the process grew by, from loading to the end of a first run
  uint64_t weight_bytes = 0;  ///< as the engines say; both of a split
  uint64_t kv_bytes_per_token = 0;
};

struct CaseResult {
  Case which;
  std::vector<double> tokens_per_s;  ///< one for each repetition
  Footprint footprint;
  /// Of the read bandwidth measured in the same run, at the median speed: weights once for each
  /// decoded token or once for a prompt, and the keys and values in front of each token.
  double bandwidth_fraction = 0;
};

struct SuiteResult {
  size_t threads = 0;
  double bandwidth_bps = 0;  ///< bytes per second
  std::vector<CaseResult> cases;
};

/// \returns kInvalidArgument for a cut outside the model, kInternal when a segment does not compute
/// what it should, and the errors of loading and running.
[[nodiscard]] Result<SuiteResult> run_suite(const BenchFlags& flags);

/// The middle of a list that is not empty; the mean of both if there are two.
[[nodiscard]] double median(std::vector<double> values);

}  // namespace isthmus::tools
