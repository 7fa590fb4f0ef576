// isthmus-audit's work: every attack on every spec at every cut.
#pragma once

#include <isthmus/audit/attack.h>
#include <isthmus/core/error.h>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "common/engine_flags.h"

namespace isthmus::tools {

struct AuditFlags {
  std::filesystem::path model;
  std::filesystem::path train_text;
  std::filesystem::path test_text;
  size_t train_tokens = 16'384;
  size_t test_tokens = 4'096;
  size_t window = 512;
  size_t match_tokens = 0;  // that exhaustive matching reads
  size_t beam = 4;
  std::vector<int32_t> cuts;
  std::vector<std::string> specs;  // empty: the artefacts' codecs, each at its cut, else f16
  std::vector<std::filesystem::path> artefacts;
  EngineFlags engine;
  int threads = 0;
  bool json = false;
  std::filesystem::path html;
};

/// What a mechanism promises; a prompt is one window.
struct Promise {
  double epsilon_per_row = 0;
  double epsilon_per_prompt = 0;
  double delta = 0;
};

struct AttackResult {
  int32_t cut = 0;
  std::string spec;
  std::string attack;
  audit::Recovery recovery;
  std::optional<Promise> promise;  // none without a mechanism
  std::vector<double> history;     // of training, see NeuralInverter; else empty
};

struct AuditResult {
  size_t train_tokens = 0;
  size_t test_tokens = 0;
  size_t prompt_rows = 0;  // that a prompt's epsilon is for: a window
  std::vector<AttackResult> list;
};

/// \returns the errors of opening, reading, computing and encoding; kInvalidArgument for texts that
/// overlap and for a cut behind the last layer, before anything is attacked.
[[nodiscard]] Result<AuditResult> run_audit(const AuditFlags& flags);

}  // namespace isthmus::tools
