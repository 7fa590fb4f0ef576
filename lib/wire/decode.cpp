#include <isthmus/wire/messages.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "text_field.h"
#include "wire.pb.h"

namespace isthmus::wire {
namespace {

Status at_least(const char* field, uint64_t value, uint64_t minimum) {
  if (value >= minimum) return {};
  return fail(ErrorCode::kCorrupt, std::string("wire: ") + field + " is " + std::to_string(value) +
                                       ", the least is " + std::to_string(minimum));
}

Status at_most(const char* field, uint64_t value, uint64_t maximum) {
  if (value <= maximum) return {};
  return fail(ErrorCode::kCorrupt, std::string("wire: ") + field + " is " + std::to_string(value) +
                                       ", the most is " + std::to_string(maximum));
}

Status finite(const char* field, float value) {
  if (std::isfinite(value)) return {};
  return fail(ErrorCode::kNotFinite, std::string("wire: ") + field + " is not finite");
}

Result<std::string> text(const char* field, const std::string& bytes) {
  if (bytes.size() > kMaxTextBytes) {
    return fail(ErrorCode::kCorrupt, std::string("wire: ") + field + " has " +
                                         std::to_string(bytes.size()) + " bytes, the most is " +
                                         std::to_string(kMaxTextBytes));
  }
  if (!is_plain_text(bytes)) {
    return fail(ErrorCode::kCorrupt, std::string("wire: ") + field + " is not plain utf-8");
  }
  return bytes;
}

Result<ReplyMode> reply_mode(v1::ReplyMode mode) {
  if (mode == v1::REPLY_MODE_TOKEN) return ReplyMode::kToken;
  if (mode == v1::REPLY_MODE_HIDDEN) return ReplyMode::kHidden;
  return fail(ErrorCode::kCorrupt,
              "wire: open.reply_mode is " + std::to_string(mode) + ", known are 1 and 2");
}

/// A newer peer's failure must stay a failure, so a number unknown here becomes kInternal.
ErrorCode error_code(uint32_t number) {
  if (number > std::numeric_limits<uint16_t>::max()) return ErrorCode::kInternal;
  const auto code = static_cast<ErrorCode>(number);
  return to_string(code) == "Unknown" ? ErrorCode::kInternal : code;
}

Result<ModelSummary> read(const v1::ModelSummary& from) {
  ModelSummary model;
  ISTHMUS_ASSIGN(model.architecture, text("open.model.architecture", from.architecture()));
  ISTHMUS_TRY(at_least("open.model.architecture's length", model.architecture.size(), 1));
  ISTHMUS_TRY(at_least("open.model.layer_count", from.layer_count(), 1));
  ISTHMUS_TRY(at_least("open.model.hidden_size", from.hidden_size(), 1));
  ISTHMUS_TRY(at_least("open.model.vocab_size", from.vocab_size(), 1));
  ISTHMUS_TRY(at_most("open.model.vocab_size", from.vocab_size(),
                      static_cast<uint64_t>(std::numeric_limits<int32_t>::max())));
  model.layer_count = from.layer_count();
  model.hidden_size = from.hidden_size();
  model.vocab_size = from.vocab_size();
  if (from.fingerprint().size() != model.fingerprint.size()) {
    return fail(ErrorCode::kCorrupt, "wire: open.model.fingerprint has " +
                                         std::to_string(from.fingerprint().size()) +
                                         " bytes, not " + std::to_string(model.fingerprint.size()));
  }
  std::memcpy(model.fingerprint.data(), from.fingerprint().data(), model.fingerprint.size());
  return model;
}

Result<Sampling> read(const v1::Sampling& from) {
  ISTHMUS_TRY(finite("step.sampling.temperature", from.temperature()));
  ISTHMUS_TRY(finite("step.sampling.top_p", from.top_p()));
  ISTHMUS_TRY(finite("step.sampling.min_p", from.min_p()));
  ISTHMUS_TRY(finite("step.sampling.repetition_penalty", from.repetition_penalty()));
  return Sampling{.temperature = from.temperature(),
                  .top_k = from.top_k(),
                  .top_p = from.top_p(),
                  .min_p = from.min_p(),
                  .repetition_penalty = from.repetition_penalty(),
                  .seed = from.seed()};
}

Result<Open> read(const v1::Open& from) {
  Open open;
  open.version = from.version();
  if (open.version != kProtocolVersion) return open;
  ISTHMUS_ASSIGN(open.model, read(from.model()));
  ISTHMUS_TRY(at_most("open.cut", from.cut(), from.tail()));
  ISTHMUS_TRY(at_most("open.tail", from.tail(), open.model.layer_count));
  ISTHMUS_TRY(at_least("open.max_tokens", from.max_tokens(), 1));
  ISTHMUS_TRY(at_least("open.session", from.session(), 1));
  open.cut = from.cut();
  open.tail = from.tail();
  open.max_tokens = from.max_tokens();
  open.session = from.session();
  open.resumes = from.resumes();
  ISTHMUS_ASSIGN(open.codec_up, text("open.codec_up", from.codec_up()));
  ISTHMUS_ASSIGN(open.codec_down, text("open.codec_down", from.codec_down()));
  ISTHMUS_ASSIGN(open.codec_clean, text("open.codec_clean", from.codec_clean()));
  ISTHMUS_ASSIGN(open.reply_mode, reply_mode(from.reply_mode()));
  return open;
}

Result<Step> read(const v1::Step& from) {
  ISTHMUS_TRY(at_least("step.sequence", from.sequence(), 1));
  ISTHMUS_TRY(at_least("step.token_count", from.token_count(), 1));
  ISTHMUS_TRY(at_most("step.position", from.position(),
                      std::numeric_limits<uint32_t>::max() - from.token_count()));
  Step step{.session = from.session(),
            .sequence = from.sequence(),
            .position = from.position(),
            .token_count = from.token_count(),
            .wants_reply = from.wants_reply(),
            .reply_start = from.reply_start(),
            .sampling = {},
            .clean = from.clean(),
            .timeout_ms = from.timeout_ms()};
  if (from.has_sampling()) {
    ISTHMUS_ASSIGN(step.sampling, read(from.sampling()));
  }
  return step;
}

Result<Truncate> read(const v1::Truncate& from) {
  ISTHMUS_TRY(at_least("truncate.sequence", from.sequence(), 1));
  return Truncate{from.session(), from.sequence(), from.length()};
}

Result<Opened> read(const v1::Opened& from) {
  ISTHMUS_TRY(at_least("opened.max_tokens", from.max_tokens(), 1));
  ISTHMUS_TRY(at_least("opened.max_step_tokens", from.max_step_tokens(), 1));
  Opened opened{.session = from.session(),
                .max_tokens = from.max_tokens(),
                .max_step_tokens = from.max_step_tokens(),
                .device = {},
                .precision = {},
                .max_in_flight = std::max(1U, from.max_in_flight())};
  ISTHMUS_ASSIGN(opened.device, text("opened.device", from.device()));
  ISTHMUS_ASSIGN(opened.precision, text("opened.precision", from.precision()));
  return opened;
}

Result<StepResult> read(const v1::StepResult& from) {
  ISTHMUS_TRY(at_least("step_result.sequence", from.sequence(), 1));
  if (from.token() < -1) {
    return fail(ErrorCode::kCorrupt,
                "wire: step_result.token is " + std::to_string(from.token()) + ", the least is -1");
  }
  return StepResult{.session = from.session(),
                    .sequence = from.sequence(),
                    .length = from.length(),
                    .token = from.token(),
                    .compute_us = from.compute_us(),
                    .codec_us = from.codec_us(),
                    .queue_us = from.queue_us()};
}

Result<Truncated> read(const v1::Truncated& from) {
  ISTHMUS_TRY(at_least("truncated.sequence", from.sequence(), 1));
  return Truncated{from.session(), from.sequence(), from.length()};
}

Result<Failure> read(const v1::Failure& from) {
  ISTHMUS_TRY(at_least("failure.code", from.code(), 1));
  Failure failure;
  failure.code = error_code(from.code());
  ISTHMUS_ASSIGN(failure.message, text("failure.message", from.message()));
  return failure;
}

Result<Body> read(const v1::Ping& from) {
  const bool known = from.reply() == v1::PING_REPLY_ECHO || from.reply() == v1::PING_REPLY_PROFILE;
  return Ping{known ? static_cast<PingReply>(from.reply()) : PingReply::kNothing};
}

Result<Body> read_body(const v1::Envelope& from) {
  switch (from.body_case()) {
    case v1::Envelope::kOpen:
      return read(from.open());
    case v1::Envelope::kStep:
      return read(from.step());
    case v1::Envelope::kTruncate:
      return read(from.truncate());
    case v1::Envelope::kClose:
      return Close{from.close().session()};
    case v1::Envelope::kPing:
      return read(from.ping());
    case v1::Envelope::kOpened:
      return read(from.opened());
    case v1::Envelope::kStepResult:
      return read(from.step_result());
    case v1::Envelope::kTruncated:
      return read(from.truncated());
    case v1::Envelope::kClosed:
      return Closed{from.closed().session()};
    case v1::Envelope::kPong:
      return Pong{};
    case v1::Envelope::kBusy:
      return Busy{from.busy().retry_after_ms()};
    case v1::Envelope::kFailure:
      return read(from.failure());
    case v1::Envelope::BODY_NOT_SET:
      break;
  }
  return fail(ErrorCode::kCorrupt, "wire: envelope has no body known here");
}

}  // namespace

Result<Envelope> decode(std::span<const std::byte> bytes) {
  if (bytes.size() > kMaxEnvelopeBytes) {
    return fail(ErrorCode::kTooLarge, "wire: envelope has " + std::to_string(bytes.size()) +
                                          " bytes, the limit is " +
                                          std::to_string(kMaxEnvelopeBytes));
  }
  v1::Envelope message;
  if (!message.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) {
    return fail(ErrorCode::kCorrupt,
                "wire: " + std::to_string(bytes.size()) + " bytes are not an envelope");
  }
  Envelope envelope;
  envelope.request_id = message.request_id();
  ISTHMUS_ASSIGN(envelope.body, read_body(message));
  return envelope;
}

}  // namespace isthmus::wire
