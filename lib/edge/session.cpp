#include <isthmus/core/clock.h>

#include <algorithm>

#include "session_impl.h"
#include "stop_filter.h"

namespace isthmus::edge {
namespace {

/// One reply in the making: feeds the prompt, then one token after the other.
class Generation {
 public:
  /// `before`: what was spent until the turn began
  Generation(Pipeline& pipeline, const Spent& before, const text::Tokenizer& tokenizer,
             text::TextStart start, const GenerateOptions& options, const OnText& on_text,
             Reply& reply)
      : pipeline_(pipeline),
        tokenizer_(tokenizer),
        options_(options),
        on_text_(on_text),
        decoder_(tokenizer, start),
        filter_(options.stop),
        before_(before),
        reply_(reply) {}

  // Fills the reply; what it holds after an error is what was made until then.
  Status run(std::vector<int32_t> prompt) {
    Status made = make(std::move(prompt));
    count();
    return made;
  }

 private:
  Status make(std::vector<int32_t> prompt) {
    reply_.prompt_token_ids = std::move(prompt);
    reply_start_ = pipeline_.length() + static_cast<int32_t>(reply_.prompt_token_ids.size());
    ISTHMUS_ASSIGN(std::optional<int32_t> token, pipeline_.prompt(reply_.prompt_token_ids, choice(),
                                                                  [&] { return deliver(""); }));
    first_token_ = clock_.now();
    wire_at_first_s_ = pipeline_.spent().time_s.wire;
    if (!token) reply_.finish_reason = FinishReason::kCancelled;
    while (token && !accept(*token)) {
      ISTHMUS_ASSIGN(token, pipeline_.next(*token, choice()));
    }
    if (reply_.finish_reason != FinishReason::kStop &&
        reply_.finish_reason != FinishReason::kCancelled) {
      emit(filter_.push(decoder_.finish()));
      if (!filter_.stopped()) emit(filter_.finish());
    }
    return {};
  }

  Choice choice() const {
    return {
        .sampling = options_.sampling, .generated = reply_.token_ids, .reply_start = reply_start_};
  }

  // Takes a new token into the reply; says whether the reply is over.
  bool accept(int32_t token) {
    reply_.token_ids.push_back(token);
    last_token_ = clock_.now();
    if (tokenizer_.ends_generation(token)) return end(FinishReason::kEnd);
    const bool wanted = emit(filter_.push(decoder_.push(token)));
    if (filter_.stopped()) return end(FinishReason::kStop);
    if (!wanted) return end(FinishReason::kCancelled);
    if (reply_.token_ids.size() >= static_cast<size_t>(options_.max_tokens))
      return end(FinishReason::kLength);
    if (pipeline_.length() >= pipeline_.capacity()) return end(FinishReason::kContextFull);
    return false;
  }

  bool end(FinishReason reason) {
    reply_.finish_reason = reason;
    return true;
  }

  bool emit(const std::string& text) {
    reply_.text += text;
    return deliver(text);
  }

  bool deliver(std::string_view text) const { return !on_text_ || on_text_(text); }

  // What it cost.
  void count() {
    const Spent spent = pipeline_.spent();
    reply_.bytes_up = spent.bytes_up - before_.bytes_up;
    reply_.bytes_down = spent.bytes_down - before_.bytes_down;
    reply_.boundary_bytes_up = spent.boundary_bytes_up - before_.boundary_bytes_up;
    reply_.steps = spent.steps - before_.steps;
    reply_.released_rows = spent.released_rows - before_.released_rows;
    reply_.resumes = spent.resumes - before_.resumes;
    reply_.time_s = {.device = spent.time_s.device - before_.time_s.device,
                     .codec = spent.time_s.codec - before_.time_s.codec,
                     .wire = spent.time_s.wire - before_.time_s.wire,
                     .server = spent.time_s.server - before_.time_s.server};
    if (reply_.token_ids.empty()) return;
    reply_.time_to_first_token_s = seconds_between(start_, first_token_);
    const double decode_s = seconds_between(first_token_, last_token_);
    if (reply_.token_ids.size() == 1 || decode_s <= 0) return;
    const auto tokens = static_cast<double>(reply_.token_ids.size() - 1);
    reply_.tokens_per_s = tokens / decode_s;
    reply_.wire_s_per_token = (spent.time_s.wire - wire_at_first_s_) / tokens;
  }

  Pipeline& pipeline_;
  const text::Tokenizer& tokenizer_;
  const GenerateOptions& options_;
  const OnText& on_text_;
  text::StreamDecoder decoder_;
  StopFilter filter_;
  Spent before_;
  SteadyClock clock_;
  Clock::TimePoint start_ = clock_.now();
  Clock::TimePoint first_token_;
  Clock::TimePoint last_token_;
  double wire_at_first_s_ = 0;
  int32_t reply_start_ = 0;
  Reply& reply_;
};

}  // namespace

Status GenerateOptions::validate() const {
  if (max_tokens < 1) {
    return fail(ErrorCode::kInvalidArgument,
                "edge: max_tokens is " + std::to_string(max_tokens) + ", must be at least 1");
  }
  if (std::any_of(stop.begin(), stop.end(), [](const std::string& s) { return s.empty(); })) {
    return fail(ErrorCode::kInvalidArgument, "edge: a stop text is empty");
  }
  return sampling.validate();
}

std::string_view to_string(FinishReason reason) {
  switch (reason) {
    case FinishReason::kEnd:
      return "end";
    case FinishReason::kLength:
      return "length";
    case FinishReason::kContextFull:
      return "context_full";
    case FinishReason::kStop:
      return "stop";
    case FinishReason::kCancelled:
      return "cancelled";
  }
  return "unknown";
}

Result<Reply> Session::Impl::generate(std::span<const text::ChatMessage> messages,
                                      const GenerateOptions& options, const OnText& on_text) {
  unfinished = {};
  ISTHMUS_TRY(options.validate());
  const Spent before = pipeline->spent();
  if (turn_is_open) {
    ISTHMUS_TRY(pipeline->truncate(turn_start));
    turn_is_open = false;
  }
  std::vector<int32_t> prompt = unfed;
  const std::vector<int32_t> turn = chat.begin_reply(messages, is_first_turn);
  prompt.insert(prompt.end(), turn.begin(), turn.end());
  if (prompt.empty()) return fail(ErrorCode::kInvalidArgument, "edge: the prompt has no tokens");
  const int32_t room = pipeline->capacity() - pipeline->length();
  if (prompt.size() > static_cast<size_t>(room)) {
    return fail(ErrorCode::kContextFull, "edge: the prompt has " + std::to_string(prompt.size()) +
                                             " tokens, the session has room for " +
                                             std::to_string(room));
  }

  turn_start = pipeline->length();
  turn_is_open = true;
  // Without a chat format a reply goes on in the middle of the text.
  const text::TextStart start = chat.format() == text::ChatFormat::kRaw
                                    ? text::TextStart::kContinuation
                                    : text::TextStart::kBeginning;
  ISTHMUS_TRY(Generation(*pipeline, before, tokenizer, start, options, on_text, unfinished)
                  .run(std::move(prompt)));
  Reply reply = std::exchange(unfinished, {});
  if (reply.token_ids.empty())
    return reply;  // cancelled in the prompt: the turn stays open and is taken back
  pipeline->verify();
  const int32_t last = reply.token_ids.back();
  unfed = {last};
  const std::vector<int32_t> closing = chat.end_reply(last);
  unfed.insert(unfed.end(), closing.begin(), closing.end());
  is_first_turn = false;
  turn_is_open = false;
  return reply;
}

Session::Session(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Session::Session(Session&&) noexcept = default;
Session& Session::operator=(Session&&) noexcept = default;
Session::~Session() = default;

Result<Reply> Session::generate(std::span<const text::ChatMessage> messages,
                                const GenerateOptions& options, const OnText& on_text) {
  return impl_->generate(messages, options, on_text);
}

Result<Reply> Session::say(std::string_view user_text, const GenerateOptions& options,
                           const OnText& on_text) {
  const text::ChatMessage message{text::Role::kUser, std::string(user_text)};
  return impl_->generate({&message, 1}, options, on_text);
}

const Reply& Session::unfinished() const {
  return impl_->unfinished;
}
Result<std::optional<PrivacyReport>> Session::privacy() const {
  return impl_->pipeline->privacy();
}
VerifyReport Session::verification() const {
  return impl_->pipeline->verification();
}
int32_t Session::length() const {
  return impl_->pipeline->length();
}
int32_t Session::capacity() const {
  return impl_->pipeline->capacity();
}
std::string Session::server_description() const {
  return impl_->pipeline->server_description();
}

}  // namespace isthmus::edge
