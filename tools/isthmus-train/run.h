// One training, from files to files.
#pragma once

#include <isthmus/core/error.h>

#include "options.h"
#include "report.h"

namespace isthmus::tools {

/// Trains, and writes what the flags name on the way. \returns the errors of reading, training and
/// writing.
[[nodiscard]] Result<TrainReport> train_as(const TrainFlags& flags);

}  // namespace isthmus::tools
