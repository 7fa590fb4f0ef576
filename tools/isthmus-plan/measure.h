// Measuring what a model costs on this machine, with the real engine and the real codecs.
#pragma once

#include <isthmus/core/error.h>
#include <isthmus/planner/profile.h>

#include "options.h"

namespace isthmus::tools {

/// Takes a minute or two for a model of a hundred megabytes. \returns the errors of loading and
/// running; kNotFound for a calibration or an artefact that a spec names and no file has,
/// kModelMismatch for an artefact of another model, kUnsupported for one with a soft prompt or
/// adapters, and kInvalidArgument for one side's part alone.
[[nodiscard]] Result<planner::MachineProfile> measure_machine(const ProfileFlags& flags);

}  // namespace isthmus::tools
