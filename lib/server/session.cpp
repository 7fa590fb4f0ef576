#include "session.h"

#include <isthmus/engine/batch.h>
#include <isthmus/engine/sampler.h>

#include <algorithm>
#include <cstring>
#include <string>

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

Status Session::begin(const Clock& clock) {
  const Clock::TimePoint start = clock.now();
  progress_ = {};
  progress_.length_before = cache_->length();
  const std::vector<std::byte> payload = std::move(queue_.head().payload);
  progress_.bytes_up = payload.size();
  const auto count = static_cast<size_t>(computed_rows(step()));
  progress_.rows = Matrix(count, codec_up_->width());
  if (needs_all_rows()) progress_.output = Matrix(count, codec_up_->width());
  const size_t in_front = count - step().token_count;
  if (in_front > 0) std::ranges::copy(artefact_->soft_prompt().values(), progress_.rows.data());
  ISTHMUS_TRY(codec_of(step()).decode_into(
      payload, progress_.rows.view().middle_rows(in_front, step().token_count)));
  // One session's bad rows must not spoil a batch in which others take part.
  const engine::Slice whole = slice({.count = computed_rows(step()), .last = true});
  ISTHMUS_TRY(engine::check_batch(engine_, {&whole, 1}));
  progress_.codec = clock.now() - start;
  return {};
}

engine::Slice Session::slice(const scheduler::Piece& piece) const {
  const MatrixView<const float> rows = progress_.rows.view();
  engine::Slice slice{.cache = cache_.get(),
                      .hidden = rows.middle_rows(static_cast<size_t>(piece.first),
                                                 static_cast<size_t>(piece.count))};
  slice.rows = piece.last && step().wants_reply ? engine::Rows::kLast : engine::Rows::kNone;
  if (needs_all_rows()) slice.rows = engine::Rows::kAll;
  if (open_.reply_mode == wire::ReplyMode::kToken) slice.output = engine::Output::kLogits;
  return slice;
}

void Session::absorb(const scheduler::Piece& piece, Matrix output, nanoseconds time) {
  progress_.compute += time;
  if (!needs_all_rows()) {
    progress_.output = std::move(output);
    return;
  }
  std::copy_n(output.data(), output.rows() * output.cols(),
              progress_.output.row(static_cast<size_t>(piece.first)).data());
}

Result<Session::Finished> Session::finish(const Clock& clock) {
  const Clock::TimePoint start = clock.now();
  const Ticket& ticket = queue_.head().ticket;
  wire::StepResult result{.session = open_.session,
                          .sequence = step().sequence,
                          .length = static_cast<uint32_t>(length())};
  Finished finished;
  if (open_.reply_mode == wire::ReplyMode::kToken && step().wants_reply) {
    ISTHMUS_ASSIGN(result.token, choose_token());
    progress_.compute += clock.now() - start;
  } else if (!progress_.output.empty()) {
    ISTHMUS_ASSIGN(finished.reply.payload, codec_down_->encode(progress_.output.view()));
    progress_.codec += clock.now() - start;
  }
  StepReport& report = finished.report;
  report = {.rows = step().token_count,
            .token = result.token >= 0,
            .compute = progress_.compute,
            .codec = progress_.codec,
            .bytes_up = progress_.bytes_up,
            .bytes_down = finished.reply.payload.size()};
  report.queue =
      std::max(nanoseconds(0), clock.now() - ticket.arrived - report.compute - report.codec);
  result.compute_us = in_microseconds(report.compute);
  result.codec_us = in_microseconds(report.codec);
  result.queue_us = in_microseconds(report.queue);
  finished.reply.body = result;
  progress_ = {};
  return finished;
}

Result<int32_t> Session::choose_token() {
  std::vector<int32_t> generated;
  for (const auto& [position, id] : sampled_) {
    if (position >= static_cast<int64_t>(step().reply_start)) generated.push_back(id);
  }
  ISTHMUS_ASSIGN(const int32_t token,
                 engine::sample(progress_.output.row(0), sampling_options(step().sampling),
                                generated, length()));
  sampled_.emplace_back(length(), token);
  return token;
}

void Session::roll_back() {
  // Never longer than before, so this cannot fail.
  if (progress_.length_before)
    (void)cache_->truncate(std::min(*progress_.length_before, cache_->length()));
  progress_ = {};
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
