// The codecs of one session, as both ends have them.
#pragma once

#include <isthmus/codec/codec.h>
#include <isthmus/core/error.h>
#include <isthmus/core/random.h>
#include <isthmus/edge/device.h>
#include <isthmus/model/config.h>
#include <cstddef>
#include <cstdint>
#include <optional>

namespace isthmus::edge {

struct Codecs {
  codec::BoundaryCodec up;
  codec::BoundaryCodec down;
  /// For rows of generated tokens, where they release nothing. Nothing: they go up like the others.
  std::optional<codec::BoundaryCodec> clean;
};

/// For the rows behind a front of `cut` layers of a model. `random` is borrowed.
/// \returns kModelMismatch for an artefact of another model or cut; the errors of
/// BoundaryCodec::make.
[[nodiscard]] Result<Codecs> make_codecs(const model::ModelConfig& config, int32_t cut,
                                         const SessionOptions& options, RandomSource& random);

}  // namespace isthmus::edge
