#include <isthmus/audit/evaluate.h>

#include <algorithm>
#include <memory>
#include <string>
#include <utility>

#include "comparison.h"

namespace isthmus::audit {
namespace {

// Tokens whose logits are held at once, for each of two models: with 49,152 words 13 MB each.
constexpr size_t kChunk = 64;

int32_t layer_count(const SplitModel& model) {
  return model.back->config().layer_count;
}

/// The back half of a model on the boundary rows of one window, a chunk of logits at a time.
class BackRun {
 public:
  /// \param soft_prompt read first; it predicts nothing
  static Result<BackRun> start(const SplitModel& model, Matrix rows,
                               MatrixView<const float> soft_prompt = {}) {
    ISTHMUS_ASSIGN(auto cache,
                   model.back->make_cache({model.cut, layer_count(model)},
                                          static_cast<int32_t>(soft_prompt.rows() + rows.rows())));
    if (!soft_prompt.empty()) {
      const engine::Slice slice{
          .cache = cache.get(), .hidden = soft_prompt, .rows = engine::Rows::kNone};
      ISTHMUS_TRY(model.back->forward({&slice, 1}));
    }
    return BackRun(model.back, std::move(cache), std::move(rows));
  }

  /// Logits [count, V] of the next rows.
  Result<Matrix> next(size_t count) {
    const engine::Slice slice{
        .cache = cache_.get(),
        .hidden = std::as_const(rows_).view().middle_rows(read_, count),
        .output = engine::Output::kLogits,
    };
    read_ += count;
    ISTHMUS_ASSIGN(std::vector<Matrix> logits, engine_->forward({&slice, 1}));
    return std::move(logits.front());
  }

 private:
  BackRun(engine::Engine* engine, std::unique_ptr<engine::KvCache> cache, Matrix rows)
      : engine_(engine), cache_(std::move(cache)), rows_(std::move(rows)) {}

  engine::Engine* engine_;
  std::unique_ptr<engine::KvCache> cache_;
  Matrix rows_;
  size_t read_ = 0;
};

/// Compares runs with a reference run over one window, a chunk after the other, so that no window's
/// logits are ever held whole.
Status compare_window(BackRun reference, std::vector<BackRun> runs, std::span<const int32_t> tokens,
                      ThreadPool& pool, std::vector<PredictionLog*> logs) {
  const size_t predicted = tokens.size() - 1;
  for (size_t first = 0; first < predicted; first += kChunk) {
    const size_t count = std::min(kChunk, predicted - first);
    const auto targets = tokens.subspan(first + 1, count);
    ISTHMUS_ASSIGN(Matrix logits, reference.next(count));
    const ReferenceScores scores(std::move(logits), pool);
    for (size_t i = 0; i < runs.size(); ++i) {
      ISTHMUS_ASSIGN(const Matrix other, runs[i].next(count));
      scores.compare(other.view(), targets, logs[i]->predictions);
    }
  }
  return {};
}

/// Sizes and times of one codec, window by window.
class Meter {
 public:
  Meter(const codec::BoundaryCodec& codec, const Clock& clock) : codec_(codec), clock_(clock) {}

  /// The rows after encoding and decoding each alone.
  Result<Matrix> cross(MatrixView<const float> rows) {
    std::vector<std::vector<std::byte>> messages;
    messages.reserve(rows.rows());
    const Clock::TimePoint start = clock_.now();
    for (size_t r = 0; r < rows.rows(); ++r) {
      ISTHMUS_ASSIGN(auto message, codec_.encode(rows.middle_rows(r, 1)));
      messages.push_back(std::move(message));
    }
    const Clock::TimePoint encoded = clock_.now();
    Matrix decoded(rows.rows(), rows.cols());
    for (size_t r = 0; r < rows.rows(); ++r) {
      ISTHMUS_TRY(codec_.decode_into(messages[r], decoded.view().middle_rows(r, 1)));
    }
    const Clock::TimePoint done = clock_.now();
    const auto count = static_cast<double>(rows.rows());
    encode_us_.push_back(1e6 * seconds_between(start, encoded) / count);
    decode_us_.push_back(1e6 * seconds_between(encoded, done) / count);
    for (const auto& message : messages) bytes_ += message.size();
    ISTHMUS_ASSIGN(const auto whole, codec_.encode(rows));
    bytes_prompt_ += whole.size();
    coordinates_ += rows.rows() * rows.cols();
    return decoded;
  }

  void report(CodecEvaluation& evaluation) {
    const auto per_coordinate = [this](uint64_t bytes) {
      return 8 * static_cast<double>(bytes) / static_cast<double>(coordinates_);
    };
    evaluation.bits_per_coordinate = per_coordinate(bytes_);
    evaluation.bits_per_coordinate_prompt = per_coordinate(bytes_prompt_);
    evaluation.encode_us_per_token = median(encode_us_);
    evaluation.decode_us_per_token = median(decode_us_);
  }

 private:
  static double median(std::vector<double>& values) {
    const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
    std::nth_element(values.begin(), middle, values.end());
    return *middle;
  }

  const codec::BoundaryCodec& codec_;
  const Clock& clock_;
  uint64_t bytes_ = 0;
  uint64_t bytes_prompt_ = 0;
  uint64_t coordinates_ = 0;
  std::vector<double> encode_us_;
  std::vector<double> decode_us_;
};

void tell(const EvaluationContext& context, size_t done, size_t count) {
  if (context.progress) context.progress(static_cast<double>(done) / static_cast<double>(count));
}

Status check_width(const SplitModel& model, const codec::BoundaryCodec& codec) {
  const auto width = static_cast<size_t>(model.front->config().hidden_size);
  if (codec.width() == width) return {};
  return fail(ErrorCode::kInvalidArgument,
              "audit: the codec is for rows of " + std::to_string(codec.width()) +
                  " coordinates, the model's have " + std::to_string(width));
}

Status check_vocabulary(const SplitModel& reference, const SplitModel& model) {
  const int32_t expected = reference.back->config().vocab_size;
  const int32_t actual = model.back->config().vocab_size;
  if (actual == expected) return {};
  return fail(ErrorCode::kInvalidArgument, "audit: a model knows " + std::to_string(actual) +
                                               " tokens, its reference " +
                                               std::to_string(expected));
}

}  // namespace

Result<Matrix> boundary_rows(const SplitModel& model, std::span<const int32_t> tokens) {
  ISTHMUS_ASSIGN(auto cache,
                 model.front->make_cache({0, model.cut}, static_cast<int32_t>(tokens.size())));
  const engine::Slice slice{.cache = cache.get(), .tokens = tokens};
  ISTHMUS_ASSIGN(std::vector<Matrix> rows, model.front->forward({&slice, 1}));
  return std::move(rows.front());
}

Result<Matrix> boundary_rows(const SplitModel& model, const TextWindows& text) {
  Matrix rows(text.tokens.size(), static_cast<size_t>(model.front->config().hidden_size));
  for (size_t w = 0; w < text.count(); ++w) {
    ISTHMUS_ASSIGN(const Matrix window, boundary_rows(model, text.tokens_of(w)));
    std::ranges::copy(window.view().values(), rows.row(w * text.window).data());
  }
  return rows;
}

Result<std::vector<CodecEvaluation>> evaluate_codecs(
    const SplitModel& model, const TextWindows& text,
    std::span<const codec::BoundaryCodec* const> codecs, const EvaluationContext& context,
    std::span<const Receiver> receivers) {
  if (!receivers.empty() && receivers.size() != codecs.size()) {
    return fail(ErrorCode::kInvalidArgument, "audit: " + std::to_string(receivers.size()) +
                                                 " receivers for " + std::to_string(codecs.size()) +
                                                 " codecs");
  }
  std::vector<CodecEvaluation> evaluations(codecs.size());
  std::vector<PredictionLog*> logs;
  std::vector<Meter> meters;
  for (size_t i = 0; i < codecs.size(); ++i) {
    ISTHMUS_TRY(check_width(model, *codecs[i]));
    evaluations[i].log.per_window = text.window - 1;
    logs.push_back(&evaluations[i].log);
    meters.emplace_back(*codecs[i], *context.clock);
  }
  for (size_t w = 0; w < text.count(); ++w) {
    tell(context, w, text.count());
    ISTHMUS_ASSIGN(Matrix rows, boundary_rows(model, text.tokens_of(w)));
    std::vector<BackRun> runs;
    for (size_t i = 0; i < meters.size(); ++i) {
      ISTHMUS_ASSIGN(Matrix crossed, meters[i].cross(std::as_const(rows).view()));
      const Receiver receiver = receivers.empty() ? Receiver() : receivers[i];
      SplitModel received = model;
      if (receiver.back != nullptr) received.back = receiver.back;
      ISTHMUS_ASSIGN(BackRun run,
                     BackRun::start(received, std::move(crossed), receiver.soft_prompt));
      runs.push_back(std::move(run));
    }
    ISTHMUS_ASSIGN(BackRun raw, BackRun::start(model, std::move(rows)));
    ISTHMUS_TRY(
        compare_window(std::move(raw), std::move(runs), text.tokens_of(w), *context.pool, logs));
  }
  for (size_t i = 0; i < codecs.size(); ++i) meters[i].report(evaluations[i]);
  return evaluations;
}

Result<std::vector<PredictionLog>> evaluate_models(const SplitModel& reference,
                                                   std::span<const SplitModel> models,
                                                   const TextWindows& text,
                                                   const EvaluationContext& context) {
  std::vector<PredictionLog> evaluations(models.size());
  std::vector<PredictionLog*> logs;
  for (size_t i = 0; i < models.size(); ++i) {
    ISTHMUS_TRY(check_vocabulary(reference, models[i]));
    evaluations[i].per_window = text.window - 1;
    logs.push_back(&evaluations[i]);
  }
  const auto start = [](const SplitModel& model, std::span<const int32_t> tokens) {
    return boundary_rows(model, tokens).and_then([&](Matrix&& rows) {
      return BackRun::start(model, std::move(rows));
    });
  };
  for (size_t w = 0; w < text.count(); ++w) {
    tell(context, w, text.count());
    std::vector<BackRun> runs;
    for (const SplitModel& model : models) {
      ISTHMUS_ASSIGN(BackRun run, start(model, text.tokens_of(w)));
      runs.push_back(std::move(run));
    }
    ISTHMUS_ASSIGN(BackRun raw, start(reference, text.tokens_of(w)));
    ISTHMUS_TRY(
        compare_window(std::move(raw), std::move(runs), text.tokens_of(w), *context.pool, logs));
  }
  return evaluations;
}

}  // namespace isthmus::audit
