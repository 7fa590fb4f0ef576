// What isthmus-train tells: lines while it trains, a JSON log, a chart.
#pragma once

#include <isthmus/train/fit.h>
#include <isthmus/train/trainer.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace isthmus::tools {

struct TrainReport {
  std::string command;
  std::string codec;  ///< of the whole artefact
  std::string data_hash;
  bool distil = false;  ///< losses are divergences from the clean model
  int64_t tokens_per_step = 0;
  struct Step {
    train::StepReport step;
    double seconds = 0;  ///< since the run, or its going on, began
  };
  std::vector<Step> steps;
  struct Validation {
    int64_t steps = 0;
    double loss = 0;  ///< nats
    bool best = false;
    double seconds = 0;
  };
  std::vector<Validation> validations;
  double peak_memory_mb = 0;
  std::optional<train::FitResult> result;  ///< when the run has ended
};

/// One measurement as a line.
[[nodiscard]] std::string to_line(const TrainReport& report);
/// Which step was best, and whether there was an early end, as a line; of a run that has ended.
[[nodiscard]] std::string to_ending(const TrainReport& report);
[[nodiscard]] std::string to_json(const TrainReport& report);
/// Puts the steps and measurements of a `to_json` into `report`. \returns kCorrupt.
[[nodiscard]] Status recall(const std::string& text, TrainReport& report);
[[nodiscard]] std::string to_chart(const TrainReport& report);

}  // namespace isthmus::tools
