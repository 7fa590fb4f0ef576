// Boundaries computed once, so that simulated devices cost next to nothing.
#pragma once

#include <isthmus/codec/codec.h>
#include <isthmus/core/error.h>
#include <isthmus/core/matrix.h>
#include <isthmus/model/config.h>
#include <isthmus/wire/messages.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "options.h"

namespace isthmus::tools {

/// What a device with one cut would send for a fixed text of random tokens. Immutable.
struct Recording {
  wire::Open open;  ///< without a session's number
  Matrix rows;      ///< [T, D], layer `open.cut`
  std::shared_ptr<const codec::BoundaryCodec> codec;
};

/// One for each of the cuts that `flags` names, over its most tokens.
[[nodiscard]] Result<std::vector<Recording>> record(const LoadFlags& flags);

}  // namespace isthmus::tools
