// A whole run of a Trainer: steps, measurements in between, an early end, and going on later.
#pragma once

#include <isthmus/core/error.h>
#include <isthmus/train/trainer.h>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>

namespace isthmus::train {

struct FitOptions {
  int64_t validate_every = 25;  ///< steps; also after the last one and before the first
  int64_t patience = 0;  ///< measurements without a better one after which a run ends; 0: never
  /// Written after every measurement; gone on from when it is there. Empty: none.
  std::filesystem::path checkpoint;
};

/// Told what happens, from the fitting thread. May be empty.
struct FitEvents {
  /// First of all when a run goes on from its checkpoint, with what `note` gave then. An error ends
  /// the run.
  std::function<Status(const std::string& note)> on_resume;
  std::function<void(const StepReport& report)> on_step;
  /// \param best whether no earlier measurement was as low: the parts are worth keeping. An error
  /// ends the run.
  std::function<Status(int64_t steps, double loss, bool best)> on_validation;
  /// What to keep with a checkpoint; asked after each `on_validation`.
  std::function<std::string()> note;
};

struct FitResult {
  double best_loss = 0;
  int64_t best_steps = 0;
  bool ended_early = false;
};

/// Runs the trainer's planned steps. \returns the errors of Trainer and of `on_validation`;
/// kCorrupt for a checkpoint that another program wrote, kIo for a path that cannot be looked at.
[[nodiscard]] Result<FitResult> fit(Trainer& trainer, const FitOptions& options,
                                    const FitEvents& events);

}  // namespace isthmus::train
