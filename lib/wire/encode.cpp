#include <isthmus/wire/messages.h>

#include <stdexcept>

#include "text_field.h"
#include "wire.pb.h"

namespace isthmus::wire {
namespace {

const std::string& checked(const std::string& text) {
  if (text.size() > kMaxTextBytes) {
    throw std::invalid_argument("wire: a text field has " + std::to_string(text.size()) +
                                " bytes, the limit is " + std::to_string(kMaxTextBytes));
  }
  if (!is_plain_text(text)) throw std::invalid_argument("wire: a text field is not plain utf-8");
  return text;
}

v1::ReplyMode to_proto(ReplyMode mode) {
  return mode == ReplyMode::kToken ? v1::REPLY_MODE_TOKEN : v1::REPLY_MODE_HIDDEN;
}

void fill(const ModelSummary& from, v1::ModelSummary& to) {
  to.set_architecture(checked(from.architecture));
  to.set_layer_count(from.layer_count);
  to.set_hidden_size(from.hidden_size);
  to.set_vocab_size(from.vocab_size);
  to.set_fingerprint(from.fingerprint.data(), from.fingerprint.size());
}

void fill(const Sampling& from, v1::Sampling& to) {
  to.set_temperature(from.temperature);
  to.set_top_k(from.top_k);
  to.set_top_p(from.top_p);
  to.set_min_p(from.min_p);
  to.set_repetition_penalty(from.repetition_penalty);
  to.set_seed(from.seed);
}

/// One overload for each alternative of Body.
struct BodyWriter {
  v1::Envelope& envelope;

  void operator()(const Open& from) const {
    v1::Open& to = *envelope.mutable_open();
    to.set_version(from.version);
    fill(from.model, *to.mutable_model());
    to.set_cut(from.cut);
    to.set_tail(from.tail);
    to.set_codec_up(checked(from.codec_up));
    to.set_codec_down(checked(from.codec_down));
    to.set_codec_clean(checked(from.codec_clean));
    to.set_reply_mode(to_proto(from.reply_mode));
    to.set_max_tokens(from.max_tokens);
    to.set_session(from.session);
    to.set_resumes(from.resumes);
  }
  void operator()(const Step& from) const {
    v1::Step& to = *envelope.mutable_step();
    to.set_session(from.session);
    to.set_sequence(from.sequence);
    to.set_position(from.position);
    to.set_token_count(from.token_count);
    to.set_wants_reply(from.wants_reply);
    to.set_reply_start(from.reply_start);
    if (from.sampling != Sampling{}) fill(from.sampling, *to.mutable_sampling());
    to.set_clean(from.clean);
    to.set_timeout_ms(from.timeout_ms);
  }
  void operator()(const Truncate& from) const {
    v1::Truncate& to = *envelope.mutable_truncate();
    to.set_session(from.session);
    to.set_sequence(from.sequence);
    to.set_length(from.length);
  }
  void operator()(const Close& from) const { envelope.mutable_close()->set_session(from.session); }
  void operator()(const Ping& from) const {
    envelope.mutable_ping()->set_reply(static_cast<v1::PingReply>(from.reply));
  }
  void operator()(const Opened& from) const {
    v1::Opened& to = *envelope.mutable_opened();
    to.set_session(from.session);
    to.set_max_tokens(from.max_tokens);
    to.set_max_step_tokens(from.max_step_tokens);
    to.set_device(checked(from.device));
    to.set_precision(checked(from.precision));
    to.set_max_in_flight(from.max_in_flight);
  }
  void operator()(const StepResult& from) const {
    v1::StepResult& to = *envelope.mutable_step_result();
    to.set_session(from.session);
    to.set_sequence(from.sequence);
    to.set_length(from.length);
    to.set_token(from.token);
    to.set_compute_us(from.compute_us);
    to.set_codec_us(from.codec_us);
    to.set_queue_us(from.queue_us);
  }
  void operator()(const Truncated& from) const {
    v1::Truncated& to = *envelope.mutable_truncated();
    to.set_session(from.session);
    to.set_sequence(from.sequence);
    to.set_length(from.length);
  }
  void operator()(const Closed& from) const {
    envelope.mutable_closed()->set_session(from.session);
  }
  void operator()(const Pong&) const { envelope.mutable_pong(); }
  void operator()(const Busy& from) const {
    envelope.mutable_busy()->set_retry_after_ms(from.retry_after_ms);
  }
  void operator()(const Failure& from) const {
    v1::Failure& to = *envelope.mutable_failure();
    to.set_code(static_cast<uint32_t>(from.code));
    to.set_message(fit_text(from.message));
  }
};

}  // namespace

std::vector<std::byte> encode(const Envelope& envelope) {
  v1::Envelope message;
  message.set_request_id(envelope.request_id);
  std::visit(BodyWriter{message}, envelope.body);
  std::vector<std::byte> bytes(message.ByteSizeLong());
  message.SerializeWithCachedSizesToArray(reinterpret_cast<uint8_t*>(bytes.data()));
  return bytes;
}

}  // namespace isthmus::wire
