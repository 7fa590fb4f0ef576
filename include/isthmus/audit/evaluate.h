// Running a text through a model that is cut in two, and measuring what a codec on the boundary, or
// other arithmetic in the engine, does to its predictions.
#pragma once

#include <isthmus/audit/quality.h>
#include <isthmus/codec/codec.h>
#include <isthmus/core/clock.h>
#include <isthmus/core/error.h>
#include <isthmus/core/matrix.h>
#include <isthmus/core/thread_pool.h>
#include <isthmus/engine/engine.h>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace isthmus::audit {

/// A model in two halves, both borrowed, which may be the same engine: `front` runs layers [0, cut)
/// on tokens, `back` runs [cut, L) and the head on boundary rows.
struct SplitModel {
  engine::Engine* front = nullptr;
  engine::Engine* back = nullptr;
  int32_t cut = 0;
};

/// What an evaluation borrows: a pool, which may be the engines', to compare on; a clock to time
/// codecs with; and someone to tell how far it is, from 0 to 1.
struct EvaluationContext {
  ThreadPool* pool = nullptr;
  const Clock* clock = nullptr;
  engine::Progress progress;
};

/// The boundary of one window: [T, D], in front of layer `cut`. \returns the engine's errors.
[[nodiscard]] Result<Matrix> boundary_rows(const SplitModel& model,
                                           std::span<const int32_t> tokens);

/// The boundaries of all windows, one below the other: [sum of T, D].
[[nodiscard]] Result<Matrix> boundary_rows(const SplitModel& model, const TextWindows& text);

/// One codec at one cut.
struct CodecEvaluation {
  PredictionLog log;
  /// Bits of a message over its coordinates, every byte that `encode` makes counted: a message for
  /// each row, as when decoding, and one for a whole window, as for a prompt.
  double bits_per_coordinate = 0;
  double bits_per_coordinate_prompt = 0;
  /// One row a message, median over windows.
  double encode_us_per_token = 0;
  double decode_us_per_token = 0;
};

/// What a server that was trained for a codec reads its rows with; both borrowed.
struct Receiver {
  MatrixView<const float> soft_prompt;  ///< [m, D], read in front of every window; may be empty
  engine::Engine* back = nullptr;       ///< with adapted layers; null: the model's own
};

/// Runs every codec on the same boundaries, each computed once, and compares the back's predictions
/// with those it makes from the boundary itself (every log's reference). Results are in the order
/// of `codecs`, which are borrowed. `receivers` holds none, or one for each codec. A codec that
/// draws random numbers encodes each row twice: alone for quality, and once more with its window
/// for the size. \returns the errors of the engines and codecs; kInvalidArgument for a codec of
/// another width.
[[nodiscard]] Result<std::vector<CodecEvaluation>> evaluate_codecs(
    const SplitModel& model, const TextWindows& text,
    std::span<const codec::BoundaryCodec* const> codecs, const EvaluationContext& context,
    std::span<const Receiver> receivers = {});

/// Compares models with a reference over the same text, boundaries crossing as they are. Results
/// are in the order of `models`.
/// \returns the errors of the engines; kInvalidArgument when vocabularies differ in size.
[[nodiscard]] Result<std::vector<PredictionLog>> evaluate_models(const SplitModel& reference,
                                                                 std::span<const SplitModel> models,
                                                                 const TextWindows& text,
                                                                 const EvaluationContext& context);

}  // namespace isthmus::audit
