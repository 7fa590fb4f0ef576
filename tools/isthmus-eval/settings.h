// isthmus-eval --whole: what packing weights, keys and values costs, beside the exact engine.
#pragma once

#include <isthmus/audit/quality.h>
#include <isthmus/core/error.h>

#include <cstdint>
#include <string>
#include <vector>

#include "options.h"
#include "subject.h"

namespace isthmus::tools {

/// How an engine that is cut in two computes.
struct Setting {
  int32_t cut = 0;
  std::string precision;
  int32_t front_bits = 8;
  int32_t back_bits = 8;
  int32_t kv_bits = 16;
};

/// Memory of one half. The front's embedding is read from the file and not counted.
struct SegmentMemory {
  uint64_t weight_bytes = 0;
  uint64_t kv_bytes_per_token = 0;
};

struct SettingResult {
  Setting setting;
  SegmentMemory front;
  SegmentMemory back;
  audit::Quality quality;
};

[[nodiscard]] Result<std::vector<SettingResult>> evaluate_settings(const Subject& subject,
                                                                   const EvalFlags& flags);

}  // namespace isthmus::tools
