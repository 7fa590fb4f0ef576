#include "codecs.h"

#include <isthmus/privacy/ledger.h>

#include <utility>
#include <variant>

namespace isthmus::edge {
namespace {

/// Rows behind the server's layers are not those that a projection or a calibration was made for.
bool fits_the_way_back(const codec::CodecSpec& up) {
  return up.mechanism() == nullptr && !up.project &&
         !std::holds_alternative<codec::Klt>(up.transform) &&
         !std::holds_alternative<codec::Reorder>(up.transform);
}

}  // namespace

Result<Codecs> make_codecs(const model::ModelConfig& config, int32_t cut,
                           const SessionOptions& options, RandomSource& random) {
  const auto make = [&](const codec::CodecSpec& spec) -> Result<codec::BoundaryCodec> {
    const auto artefact = artefact::find(spec, options.artefacts);
    if (artefact != nullptr) ISTHMUS_TRY(artefact->check(config, cut));
    return codec::BoundaryCodec::make(
        spec, static_cast<size_t>(config.hidden_size),
        {.calibration = codec::find_calibration(spec, options.calibrations),
         .projection = artefact::projection_of(artefact),
         .random = &random});
  };
  const bool noised = options.codec.mechanism() != nullptr;
  const codec::CodecSpec down = options.codec_down.value_or(
      fits_the_way_back(options.codec) ? options.codec : default_codec());
  // A choice reads what the server sent and the ids of the reply: never the clean prompt.
  const bool frees_generated =
      !privacy::charges_generated_rows(static_cast<size_t>(cut), /*choice_reads_clean_text=*/false);
  ISTHMUS_ASSIGN(codec::BoundaryCodec up_codec, make(options.codec));
  ISTHMUS_ASSIGN(codec::BoundaryCodec down_codec, make(down));
  Codecs codecs{std::move(up_codec), std::move(down_codec), {}};
  if (noised && frees_generated) {
    ISTHMUS_ASSIGN(codecs.clean, make(options.codec_clean));
  }
  return codecs;
}

}  // namespace isthmus::edge
