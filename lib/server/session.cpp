#include "session.h"

#include <isthmus/engine/batch.h>
#include <isthmus/engine/sampler.h>

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>

#include "guarded.h"

namespace isthmus::server {
namespace {

using std::chrono::microseconds;
using std::chrono::nanoseconds;

engine::SamplingOptions sampling_options(const wire::Sampling& s) {
  return {.temperature = s.temperature,
          .top_k = s.top_k,
          .top_p = s.top_p,
          .min_p = s.min_p,
          .repetition_penalty = s.repetition_penalty,
          .seed = s.seed};
}

/// The codec that a client names. A mechanism must come with its parameters derived: finding them
/// takes up to a second.
Result<std::unique_ptr<codec::BoundaryCodec>> make_codec(std::string_view text, size_t width,
                                                         const ServerOptions& options,
                                                         const SharedArtefact& artefact,
                                                         RandomSource& random) {
  ISTHMUS_ASSIGN(const codec::CodecSpec spec, codec::CodecSpec::parse(text));
  if (spec.mechanism() != nullptr && spec.mechanism()->epsilon != 0) {
    return fail(ErrorCode::kUnsupported,
                "server: a mechanism is agreed on by its derived parameters, not by epsilon");
  }
  ISTHMUS_ASSIGN(codec::BoundaryCodec codec,
                 codec::BoundaryCodec::make(
                     spec, width,
                     {.calibration = codec::find_calibration(spec, options.calibrations),
                      .projection = artefact::projection_of(artefact),
                      .random = &random}));
  return std::make_unique<codec::BoundaryCodec>(std::move(codec));
}

/// A server whose layers were adapted computes something else for everyone who does not know.
Status check_adapted(const ServerOptions& options, const SharedArtefact& artefact) {
  ISTHMUS_ASSIGN(const SharedArtefact adapted, artefact::find_adapted(options.artefacts));
  if (adapted == nullptr || adapted == artefact) return {};
  return fail(ErrorCode::kModelMismatch, "server: its layers are adapted to the codec " +
                                             adapted->codec().to_string() +
                                             ", the session does not name that artefact");
}

uint64_t in_microseconds(nanoseconds time) {
  return static_cast<uint64_t>(
      std::max<int64_t>(0, std::chrono::duration_cast<microseconds>(time).count()));
}

}  // namespace

Session::Session(engine::Engine& engine, const ServerOptions& options, const wire::Open& open,
                 SharedArtefact artefact, SessionOwner owner)
    : engine_(engine),
      max_step_tokens_(options.max_step_tokens),
      open_(open),
      artefact_(std::move(artefact)),
      owner_(std::move(owner)),
      queue_(static_cast<size_t>(options.max_in_flight)) {}

Result<std::unique_ptr<Session>> Session::make(engine::Engine& engine, const ServerOptions& options,
                                               const wire::Open& open, SharedArtefact artefact,
                                               int32_t capacity, SessionOwner owner) {
  ISTHMUS_TRY(check_adapted(options, artefact));
  if (artefact != nullptr) {
    const model::ModelConfig& config = engine.config();
    ISTHMUS_TRY(artefact->check(config, static_cast<int32_t>(open.cut)));
    ISTHMUS_TRY(artefact->check_tail(static_cast<int32_t>(open.tail), config.layer_count));
  }
  std::unique_ptr<Session> session(
      new Session(engine, options, open, std::move(artefact), std::move(owner)));
  const auto width = static_cast<size_t>(engine.config().hidden_size);
  ISTHMUS_ASSIGN(session->codec_up_,
                 make_codec(open.codec_up, width, options, session->artefact_, session->random_));
  ISTHMUS_ASSIGN(session->codec_down_,
                 make_codec(open.codec_down, width, options, session->artefact_, session->random_));
  if (!open.codec_clean.empty()) {
    ISTHMUS_ASSIGN(session->codec_clean_, make_codec(open.codec_clean, width, options,
                                                     session->artefact_, session->random_));
  }
  const engine::LayerWindow window{static_cast<int32_t>(open.cut), static_cast<int32_t>(open.tail)};
  ISTHMUS_ASSIGN(session->cache_, engine.make_cache(window, capacity + session->prompt_rows()));
  return session;
}

uint32_t Session::planned_length() const {
  return queue_.empty() ? static_cast<uint32_t>(length()) : queue_.back().length_after();
}

bool Session::needs_all_rows() const {
  // The tail's layers need every position.
  return open_.reply_mode == wire::ReplyMode::kHidden &&
         cache_->layers().end < engine_.config().layer_count;
}

Status Session::check(const wire::Step& step, size_t payload_bytes) const {
  if (step.token_count > static_cast<uint32_t>(max_step_tokens_)) {
    return fail(ErrorCode::kTooLarge, "server: a step's token count is " +
                                          std::to_string(step.token_count) + ", must be in [1, " +
                                          std::to_string(max_step_tokens_) + "]");
  }
  const uint32_t length = planned_length();
  if (step.position != length) {
    return fail(ErrorCode::kOutOfOrder, "server: position " + std::to_string(step.position) +
                                            ", the session holds " + std::to_string(length) +
                                            " tokens");
  }
  if (step.token_count > static_cast<uint32_t>(capacity()) - length) {
    return fail(ErrorCode::kContextFull,
                "server: the session's " + std::to_string(capacity()) + " tokens are used up");
  }
  if (step.clean && codec_clean_ == nullptr)
    return fail(ErrorCode::kInvalidArgument, "server: the session has no codec for clean steps");
  // The payload's length is checked against the negotiated codec before rows are allocated.
  ISTHMUS_ASSIGN(const size_t most, codec_of(step).max_encoded_bytes(step.token_count));
  if (payload_bytes > most) {
    return fail(ErrorCode::kCorrupt, "server: payload has " + std::to_string(payload_bytes) +
                                         " bytes, the session's codec makes at most " +
                                         std::to_string(most));
  }
  if (open_.reply_mode == wire::ReplyMode::kToken && step.wants_reply) {
    return sampling_options(step.sampling).validate();
  }
  return {};
}

Status Session::check(const wire::Truncate& truncate) const {
  if (truncate.length <= planned_length()) return {};
  return fail(ErrorCode::kInvalidArgument,
              "server: the length to keep is " + std::to_string(truncate.length) +
                  ", must be in [0, " + std::to_string(planned_length()) + "]");
}

Result<int32_t> Session::begin(int32_t rows, const Clock& clock) {
  while (ready_rows() < static_cast<size_t>(rows)) {
    if (Status next = guarded([&] { return begin_next(clock); }); !next) {
      if (ready_rows() == 0) return propagate(std::move(next));
      return static_cast<int32_t>(ready_rows());
    }
  }
  return rows;
}

Status Session::begin_next(const Clock& clock) {
  const Clock::TimePoint start = clock.now();
  Waiting& request = queue_.waiting()[begun_.size()];
  const wire::Step& step = std::get<wire::Step>(request.body);
  const auto count = static_cast<size_t>(computed_rows(step));
  const size_t left = ready_rows();
  Matrix rows(left + count, codec_up_->width());
  if (left > 0) std::ranges::copy(rows_.view().middle_rows(taken_, left).values(), rows.data());
  const size_t in_front = count - step.token_count;
  if (in_front > 0) std::ranges::copy(artefact_->soft_prompt().values(), rows.row(left).data());
  const MatrixView<float> added = rows.view().middle_rows(left, count);
  ISTHMUS_TRY(
      codec_of(step).decode_into(request.payload, added.middle_rows(in_front, step.token_count)));
  // One session's bad rows must not spoil a batch in which others take part.
  const engine::Slice whole{.cache = cache_.get(), .hidden = added, .rows = engine::Rows::kNone};
  ISTHMUS_TRY(engine::check_batch(engine_, {&whole, 1}));
  Progress begun{.rows = count, .bytes_up = request.payload.size()};
  if (needs_all_rows()) begun.output = Matrix(count, codec_up_->width());
  begun.codec = clock.now() - start;
  begun_.push_back(std::move(begun));
  std::exchange(request.payload, {});
  rows_ = std::move(rows);
  taken_ = 0;
  return {};
}

engine::Slice Session::slice(int32_t rows) const {
  const auto count = static_cast<size_t>(rows);
  engine::Slice slice{.cache = cache_.get(),
                      .hidden = rows_.view().middle_rows(taken_, count),
                      .rows = engine::Rows::kNone};
  size_t step = 0;  // in which the rows end
  size_t end = begun_.front().left();
  while (end < count) end += begun_[++step].left();
  const bool completes = end == count;
  if (completes && std::get<wire::Step>(queue_.waiting()[step].body).wants_reply)
    slice.rows = engine::Rows::kLast;
  if (needs_all_rows()) slice.rows = engine::Rows::kAll;
  if (open_.reply_mode == wire::ReplyMode::kToken) slice.output = engine::Output::kLogits;
  return slice;
}

void Session::absorb(int32_t rows, Matrix output, nanoseconds time) {
  const auto count = static_cast<size_t>(rows);
  taken_ += count;
  auto step = begun_.begin();
  for (size_t absorbed = 0;; ++step) {
    const size_t part = std::min(count - absorbed, step->left());
    if (needs_all_rows()) {
      std::ranges::copy(output.view().middle_rows(absorbed, part).values(),
                        step->output.row(step->computed).data());
    }
    step->computed += part;
    step->compute += time;
    absorbed += part;
    if (absorbed == count) break;
  }
  // None, or that of the last row.
  if (!needs_all_rows()) step->output = std::move(output);
}

Result<Session::Finished> Session::finish(const Clock& clock) {
  const Clock::TimePoint start = clock.now();
  const Waiting& request = queue_.head();
  const wire::Step& step = std::get<wire::Step>(request.body);
  Progress& progress = begun_.front();
  wire::StepResult result{
      .session = open_.session, .sequence = step.sequence, .length = request.length_after()};
  Finished finished;
  if (open_.reply_mode == wire::ReplyMode::kToken && step.wants_reply) {
    ISTHMUS_ASSIGN(result.token, choose_token(step, progress.output));
    progress.compute += clock.now() - start;
  } else if (!progress.output.empty()) {
    ISTHMUS_ASSIGN(finished.reply.payload, codec_down_->encode(progress.output.view()));
    progress.codec += clock.now() - start;
  }
  StepReport& report = finished.report;
  report = {.rows = step.token_count,
            .token = result.token >= 0,
            .compute = progress.compute,
            .codec = progress.codec,
            .bytes_up = progress.bytes_up,
            .bytes_down = finished.reply.payload.size()};
  report.queue = std::max(nanoseconds(0),
                          clock.now() - request.ticket.arrived - report.compute - report.codec);
  result.compute_us = in_microseconds(report.compute);
  result.codec_us = in_microseconds(report.codec);
  result.queue_us = in_microseconds(report.queue);
  finished.reply.body = result;
  begun_.pop_front();
  if (begun_.empty()) forget_rows();
  return finished;
}

Result<int32_t> Session::choose_token(const wire::Step& step, const Matrix& logits) {
  const auto length = static_cast<int32_t>(step.position + step.token_count);
  std::vector<int32_t> generated;
  for (const auto& [position, id] : sampled_) {
    if (position >= static_cast<int64_t>(step.reply_start)) generated.push_back(id);
  }
  ISTHMUS_ASSIGN(const int32_t token,
                 engine::sample(logits.row(0), sampling_options(step.sampling), generated, length));
  sampled_.emplace_back(length, token);
  return token;
}

void Session::roll_back() {
  size_t computed = 0;
  for (const Progress& step : begun_) computed += step.computed;
  // Never longer than before, so this cannot fail.
  (void)cache_->truncate(cache_->length() - static_cast<int32_t>(computed));
  begun_.clear();
  forget_rows();
}

Result<Reply> Session::truncate() {
  const wire::Truncate& request = std::get<wire::Truncate>(queue_.head().body);
  // The soft prompt goes with the first token, and comes back with the next first one.
  const int32_t kept = request.length == 0 ? 0 : prompt_rows();
  ISTHMUS_TRY(cache_->truncate(kept + static_cast<int32_t>(request.length)));
  std::erase_if(sampled_, [&](const auto& entry) {
    return entry.first > static_cast<int64_t>(request.length);
  });
  return Reply{
      wire::Truncated{
          .session = open_.session, .sequence = request.sequence, .length = request.length},
      {}};
}

}  // namespace isthmus::server
