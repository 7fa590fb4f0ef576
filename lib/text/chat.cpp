#include <isthmus/text/chat.h>

#include <algorithm>
#include <array>
#include <iterator>
#include <stdexcept>
#include <utility>

#include "utf8.h"
#include "verbatim.h"

namespace isthmus::text {
namespace {

struct FormatName {
  ChatFormat format;
  std::string_view name;
};
constexpr FormatName kNames[] = {
    {ChatFormat::kRaw, "raw"},         {ChatFormat::kChatMl, "chatml"},
    {ChatFormat::kLlama2, "llama2"},   {ChatFormat::kLlama3, "llama3"},
    {ChatFormat::kMistral, "mistral"}, {ChatFormat::kGemma, "gemma"},
    {ChatFormat::kChatMl, "qwen"},  // found by this name too
};

// `text`, valid UTF-8, without the white space around it.
std::string_view trimmed(std::string_view text) {
  size_t begin = text.size();
  size_t end = 0;
  for (size_t at = 0; at < text.size();) {
    const size_t length = next_utf8(text.substr(at)).length;
    if (!is_white(code_point_of(text.substr(at)))) {
      begin = std::min(begin, at);
      end = at + length;
    }
    at += length;
  }
  return begin < end ? text.substr(begin, end - begin) : std::string_view();
}

// What stands around a turn's text. Control tokens are written out; {bos} and {eos} are the
// vocabulary's own.
struct Turn {
  std::string_view open;
  std::string_view close;
};

// A family's chat template, as far as it concerns plain conversations.
struct Markup {
  bool always_bos = true;  // else only where the model expects it in front of any text
  Turn system;             // `system_joins_user`: around it, at the front of the user's turn
  Turn user;
  Turn assistant;  // a reply that is already known
  Turn reply;      // one that the model writes
  bool system_joins_user = false;
  bool trims = false;                         // white space around what is said is dropped
  std::array<std::string_view, 4> control{};  // the control tokens used above
};

constexpr Markup kRawMarkup{.always_bos = false};

constexpr Markup kChatMlMarkup{
    .always_bos = false,
    .system = {"<|im_start|>system\n", "<|im_end|>\n"},
    .user = {"<|im_start|>user\n", "<|im_end|>\n"},
    .assistant = {"<|im_start|>assistant\n", "<|im_end|>\n"},
    .reply = {"<|im_start|>assistant\n", "<|im_end|>\n"},
    .control = {"<|im_start|>", "<|im_end|>"},
};

constexpr Markup kLlama2Markup{
    .system = {"<<SYS>>\n", "\n<</SYS>>\n\n"},
    .user = {"[INST] ", " [/INST]"},
    .assistant = {" ", " {eos}{bos}"},
    .reply = {"", "{eos}{bos}"},
    .system_joins_user = true,
    .trims = true,
    .control = {"{bos}", "{eos}"},
};

constexpr Markup kLlama3Markup{
    .system = {"<|start_header_id|>system<|end_header_id|>\n\n", "<|eot_id|>"},
    .user = {"<|start_header_id|>user<|end_header_id|>\n\n", "<|eot_id|>"},
    .assistant = {"<|start_header_id|>assistant<|end_header_id|>\n\n", "<|eot_id|>"},
    .reply = {"<|start_header_id|>assistant<|end_header_id|>\n\n", "<|eot_id|>"},
    .trims = true,
    .control = {"{bos}", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"},
};

constexpr Markup kGemmaMarkup{
    .system = {"", "\n\n"},
    .user = {"<start_of_turn>user\n", "<end_of_turn>\n"},
    .assistant = {"<start_of_turn>model\n", "<end_of_turn>\n"},
    .reply = {"<start_of_turn>model\n", "<end_of_turn>\n"},
    .system_joins_user = true,
    .trims = true,
    .control = {"{bos}", "<start_of_turn>", "<end_of_turn>"},
};

constexpr Markup kMistralMarkup{
    .system = {"", "\n\n"},
    .user = {"[INST] ", " [/INST]"},
    .assistant = {" ", "{eos}"},
    .reply = {"", "{eos}"},
    .system_joins_user = true,
    .control = {"{bos}", "{eos}"},
};

// Since its third tokenizer, Mistral has control tokens for the instruction marks.
constexpr Markup kMistral3Markup{
    .system = {"", "\n\n"},
    .user = {"[INST]", "[/INST]"},
    .assistant = {"", "{eos}"},
    .reply = {"", "{eos}"},
    .system_joins_user = true,
    .control = {"{bos}", "{eos}", "[INST]", "[/INST]"},
};

// The id of a control token as the markup writes it, or -1.
int32_t control_id(const Tokenizer& tokenizer, std::string_view token) {
  if (token == "{bos}") return tokenizer.spec().bos;
  if (token == "{eos}") return tokenizer.spec().eos;
  const int32_t id = tokenizer.find(token);
  if (id < 0) return -1;
  return tokenizer.spec().kinds[static_cast<size_t>(id)] == TokenKind::kControl ? id : -1;
}

const Markup& markup_of(ChatFormat format, const Tokenizer& tokenizer) {
  switch (format) {
    case ChatFormat::kRaw:
      return kRawMarkup;
    case ChatFormat::kChatMl:
      return kChatMlMarkup;
    case ChatFormat::kLlama2:
      return kLlama2Markup;
    case ChatFormat::kLlama3:
      return kLlama3Markup;
    case ChatFormat::kMistral:
      return control_id(tokenizer, "[INST]") >= 0 ? kMistral3Markup : kMistralMarkup;
    case ChatFormat::kGemma:
      return kGemmaMarkup;
  }
  throw std::invalid_argument("text: chat format outside its enumeration");
}

// What the model's template says as the system when nobody does: the plain text in a literal that
// holds a whole system turn. Nothing if the template has no such literal.
std::string default_system_text(std::string_view chat_template, const Turn& system) {
  if (system.open.empty()) return {};
  const std::string unescaped = replace_all(chat_template, "\\n", "\n");
  for (size_t at = 0; (at = unescaped.find(system.open, at)) != std::string::npos;) {
    at += system.open.size();
    const size_t end = unescaped.find(system.close, at);
    if (end == std::string::npos) return {};
    std::string text = unescaped.substr(at, end - at);
    if (text.find_first_of("{}'\"") == std::string::npos) return text;
  }
  return {};
}

// Collects text until a control token or the end, so that each stretch between two control tokens
// is encoded as a whole, as if the conversation had been written out and then encoded.
class Writer {
 public:
  Writer(const Tokenizer& tokenizer, const Markup& markup)
      : tokenizer_(tokenizer), markup_(markup) {
    std::vector<VerbatimTokens::Token> tokens;
    for (const std::string_view token : markup.control) {
      tokens.push_back({token, control_id(tokenizer, token)});
    }
    control_ = VerbatimTokens(std::move(tokens));
  }

  void bos() { add_control(tokenizer_.spec().bos); }
  void markup(std::string_view written) {
    for (size_t from = 0; from < written.size();) {
      const auto match = control_.find(written, from);
      text_ += written.substr(from, match.begin - from);
      if (match.length > 0) add_control(match.id);
      from = match.begin + match.length;
    }
  }
  void turn(const Turn& turn, std::string_view said, std::string_view before = {}) {
    const std::string valid = replace_invalid_utf8(said);
    markup(turn.open);
    text_ += before;
    text_ += markup_.trims ? trimmed(valid) : valid;
    markup(turn.close);
  }
  std::vector<int32_t> finish() {
    flush();
    return std::move(ids_);
  }

 private:
  void add_control(int32_t id) {
    flush();
    if (id >= 0) ids_.push_back(id);
  }
  void flush() {
    const auto encoded = tokenizer_.encode(text_);
    ids_.insert(ids_.end(), encoded.begin(), encoded.end());
    text_.clear();
  }

  const Tokenizer& tokenizer_;
  const Markup& markup_;
  VerbatimTokens control_;
  std::string text_;
  std::vector<int32_t> ids_;
};

}  // namespace

std::string_view to_string(ChatFormat format) {
  for (const FormatName& row : kNames) {
    if (row.format == format) return row.name;
  }
  return "unknown";
}

Result<ChatFormat> parse_chat_format(std::string_view name) {
  std::string known;
  for (const FormatName& row : kNames) {
    if (row.name == name) return row.format;
    known += (known.empty() ? "" : ", ") + std::string(row.name);
  }
  return fail(ErrorCode::kInvalidArgument,
              "text: unknown chat format '" + std::string(name) + "' (known: " + known + ")");
}

Result<ChatFormat> detect_chat_format(std::string_view chat_template) {
  const auto has = [&](std::string_view marker) {
    return chat_template.find(marker) != std::string_view::npos;
  };
  if (chat_template.empty()) return ChatFormat::kRaw;
  if (has("<|im_start|>")) return ChatFormat::kChatMl;
  if (has("<|start_header_id|>")) return ChatFormat::kLlama3;
  if (has("<start_of_turn>")) return ChatFormat::kGemma;
  if (has("[INST]")) return has("<<SYS>>") ? ChatFormat::kLlama2 : ChatFormat::kMistral;
  return fail(ErrorCode::kUnsupported,
              "text: the model's chat template has the markers of no known chat format");
}

bool is_chat_marker(std::string_view piece) {
  if (piece.empty()) return false;  // as where a format has fewer
  constexpr const Markup* kMarkups[] = {&kChatMlMarkup, &kLlama3Markup, &kGemmaMarkup,
                                        &kMistral3Markup};
  return std::any_of(std::begin(kMarkups), std::end(kMarkups), [&](const Markup* markup) {
    return std::find(markup->control.begin(), markup->control.end(), piece) !=
           markup->control.end();
  });
}

Result<ChatEncoder> ChatEncoder::make(const Tokenizer& tokenizer, ChatFormat format) {
  for (const std::string_view token : markup_of(format, tokenizer).control) {
    if (!token.empty() && control_id(tokenizer, token) < 0) {
      return fail(ErrorCode::kUnsupported, "text: chat format " + std::string(to_string(format)) +
                                               " needs the control token " + std::string(token) +
                                               ", which the vocabulary lacks");
    }
  }
  return ChatEncoder(tokenizer, format);
}

std::vector<int32_t> ChatEncoder::begin_reply(std::span<const ChatMessage> messages,
                                              bool is_first) const {
  const Markup& markup = markup_of(format_, *tokenizer_);
  const TokenizerSpec& spec = tokenizer_->spec();
  Writer writer(*tokenizer_, markup);
  if (is_first && (markup.always_bos || spec.add_bos)) writer.bos();
  if (is_first && (messages.empty() || messages.front().role != Role::kSystem)) {
    const std::string text = default_system_text(spec.chat_template, markup.system);
    if (!text.empty()) writer.turn(markup.system, text);
  }
  std::string before_user;
  for (const ChatMessage& message : messages) {
    if (message.role == Role::kAssistant) {
      writer.turn(markup.assistant, message.content);
    } else if (message.role == Role::kUser) {
      writer.turn(markup.user, message.content, std::exchange(before_user, {}));
    } else if (markup.system_joins_user) {
      before_user.append(markup.system.open).append(message.content).append(markup.system.close);
    } else {
      writer.turn(markup.system, message.content);
    }
  }
  if (!before_user.empty()) writer.turn(markup.user, {}, before_user);
  writer.markup(markup.reply.open);
  return writer.finish();
}

std::vector<int32_t> ChatEncoder::end_reply(int32_t last_id) const {
  Writer writer(*tokenizer_, markup_of(format_, *tokenizer_));
  writer.markup(markup_of(format_, *tokenizer_).reply.close);
  std::vector<int32_t> ids = writer.finish();
  if (!ids.empty() && ids.front() == last_id) ids.erase(ids.begin());
  return ids;
}

}  // namespace isthmus::text
