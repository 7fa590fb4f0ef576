// isthmus-eval without --whole: what codecs cost at each cut.
#pragma once

#include <isthmus/audit/evaluate.h>
#include <isthmus/audit/quality.h>
#include <isthmus/core/error.h>

#include <cstdint>
#include <string>
#include <vector>

#include "options.h"
#include "subject.h"

namespace isthmus::tools {

/// Stands in a spec for the hash of the calibration made at the cut: "klt:*".
inline constexpr char kThisCut = '*';

/// `spec` with `hash` in place of every kThisCut.
[[nodiscard]] std::string with_calibration(std::string spec, uint64_t hash);

struct SpecResult {
  int32_t cut = 0;
  size_t pattern = 0;  ///< index into SpecResults::patterns
  std::string spec;    ///< what ran, derived parameters and calibration named
  audit::CodecEvaluation evaluation;
  audit::Quality quality;
};

/// Cut after cut, and in each pattern after pattern.
struct SpecResults {
  std::vector<std::string> patterns;  ///< specs as they were given, or the standard list
  std::vector<int32_t> cuts;
  std::vector<SpecResult> list;
};

/// One pattern over all cuts.
struct PatternMean {
  double bits_per_coordinate = 0;
  double bits_per_coordinate_prompt = 0;
  audit::MeanChange change;
  double kl_nats = 0;
};
[[nodiscard]] PatternMean mean_of(const SpecResults& results, size_t pattern);

[[nodiscard]] Result<SpecResults> evaluate_specs(const Subject& subject, const EvalFlags& flags);

}  // namespace isthmus::tools
