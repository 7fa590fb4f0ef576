// What was measured about quality and privacy, as isthmus-eval and isthmus-audit write it.
#pragma once

#include <isthmus/core/error.h>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace isthmus::planner {

/// What a codec at a cut costs in quality (isthmus-eval).
struct CodecQuality {
  int32_t cut = 0;
  std::string spec;
  double change = 0;  ///< of perplexity, relative: 0.01 is one per cent more
  friend bool operator==(const CodecQuality&, const CodecQuality&) = default;
};

/// What weights and caches cost in quality (isthmus-eval --whole).
struct WeightQuality {
  int32_t cut = 0;
  std::string precision;
  int32_t front_bits = 0;
  int32_t back_bits = 0;
  int32_t kv_bits = 0;
  double change = 0;
  friend bool operator==(const WeightQuality&, const WeightQuality&) = default;
};

/// What an attacker read, and what was promised (isthmus-audit).
struct AttackFinding {
  int32_t cut = 0;
  std::string spec;
  std::string attack;
  double top1_high = 0;  ///< upper end of the 95 % interval of the share of tokens read
  std::optional<double> epsilon_per_row;     ///< none: nothing finite is promised
  std::optional<double> epsilon_per_prompt;  ///< of a prompt of `prompt_rows`
  int32_t prompt_rows = 0;                   ///< 0: not said
  friend bool operator==(const AttackFinding&, const AttackFinding&) = default;
};

/// A cut and a spec that are not listed were not measured, and nothing is assumed about them.
struct Evidence {
  std::vector<CodecQuality> codecs;
  std::vector<WeightQuality> weights;
  std::vector<AttackFinding> attacks;
  friend bool operator==(const Evidence&, const Evidence&) = default;
};

/// Adds the rows of a file of isthmus-eval (either form) or of isthmus-audit; which one it is shows
/// in the rows. `name` is what errors call it.
/// \returns kTooLarge above 16 MiB, kCorrupt naming row and field.
[[nodiscard]] Status add_evidence(std::string_view json, std::string_view name, Evidence& evidence);

}  // namespace isthmus::planner
