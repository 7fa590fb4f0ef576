// Options of a device and of its sessions from a plan that isthmus-plan made.
#pragma once

#include <isthmus/core/error.h>
#include <isthmus/edge/device.h>
#include <isthmus/model/config.h>
#include <isthmus/planner/plan_file.h>

namespace isthmus::edge {

/// Sets what the plan decides: placement, threads, precision and bits; all else stays. `config` is
/// the model's that will be loaded. \returns kModelMismatch when the plan was made for another one,
/// kInvalidArgument for bits or a precision that the engine does not have.
[[nodiscard]] Status apply_plan(const planner::PlanFile& plan, const model::ModelConfig& config,
                                DeviceOptions& options);

/// Sets context and codecs; all else stays. \returns the errors of CodecSpec::parse.
[[nodiscard]] Status apply_plan(const planner::PlanFile& plan, SessionOptions& options);

}  // namespace isthmus::edge
