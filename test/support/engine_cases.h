// What every engine must do, written once. A suite calls these with its engine; each case fails
// through Catch2.
#pragma once

#include <isthmus/core/error.h>
#include <isthmus/engine/engine.h>
#include <isthmus/model/model_file.h>

#include <filesystem>
#include <functional>
#include <memory>
#include <vector>

namespace isthmus::test {

/// The engine under test.
struct EngineUnderTest {
  /// Loads a part of a model.
  std::function<Result<std::unique_ptr<engine::Engine>>(std::shared_ptr<const model::ModelFile>,
                                                        const model::Part&)>
      load;
  /// Largest difference between two ways to compute a row, as a fraction of the range of its
  /// values; 0 asks for the same bits.
  double tolerance = 0;
};

/// Fails unless the matrices agree within `tolerance` of the range of `expected`; 0: bit for bit.
void check_close(const Matrix& actual, const Matrix& expected, double tolerance);

/// One sequence through one window of a model.
struct Sequence {
  engine::LayerWindow layers;
  std::vector<int32_t> tokens;  ///< or else
  Matrix hidden;
  engine::Output output = engine::Output::kHidden;

  [[nodiscard]] size_t size() const { return tokens.empty() ? hidden.rows() : tokens.size(); }
  /// Rows [first, first + count) as a slice that returns all of them.
  [[nodiscard]] engine::Slice slice(engine::KvCache& cache, size_t first, size_t count) const;
};

/// Sequences through windows of every kind: empty, whole, front, middle, tail.
std::vector<Sequence> mixed_sequences(const model::ModelConfig& config);

/// All rows of a sequence, computed alone and one token at a time.
Matrix run_alone(engine::Engine& engine, const Sequence& sequence);

/// A whole prompt, chunks of all sizes, and single tokens give the same rows.
void check_chunks_equal_whole(const EngineUnderTest& test);
/// Sequences in one batch, with different windows and chunks, give the rows they give alone.
void check_batch_equals_alone(const EngineUnderTest& test);
/// Front, back and tail give the logits of the whole model, for every cut and tail start, each part
/// in an engine that holds no more than it needs.
void check_cuts_equal_whole(const EngineUnderTest& test);
/// Rows given back are the ones asked for.
void check_row_selection(const EngineUnderTest& test);
/// A truncated cache goes on as if the forgotten tokens had never been.
void check_truncate(const EngineUnderTest& test);
/// Requests that make no sense get kInvalidArgument and change nothing.
void check_invalid_arguments(const EngineUnderTest& test);
/// A NaN or infinity gets kNotFinite and changes nothing, in no sequence of the batch.
void check_not_finite(const EngineUnderTest& test);
/// A full cache gets kContextFull and changes nothing, in no sequence of the batch.
void check_context_full(const EngineUnderTest& test);
/// Missing and misshapen tensors are named.
void check_bad_tensors(const EngineUnderTest& test);
/// A model with adapters gives the rows of one whose weights are so.
void check_adapters(const EngineUnderTest& test);
/// A model with adapters gives the rows of one whose weights are so, stored as it stores them.
void check_adapters(const EngineUnderTest& test);

/// The tiny models of `data` (test/data/engine) agree with Hugging Face transformers within
/// `tolerance` of the range of their logits.
void check_golden(const EngineUnderTest& test, const std::filesystem::path& data, double tolerance);

}  // namespace isthmus::test
