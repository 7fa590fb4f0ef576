// Chat formats: how turns are written for models trained on them. What is said is never parsed for
// control tokens. (The instruction marks of Llama 2 and of the first Mistral models are ordinary
// text, though, which anybody can write.)
#pragma once

#include <isthmus/core/error.h>
#include <isthmus/text/tokenizer.h>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace isthmus::text {

enum class ChatFormat : uint8_t {
  kRaw,  ///< what is said and nothing else
  kChatMl,
  kLlama2,
  kLlama3,
  kMistral,  ///< with "[INST]" as a control token where the vocabulary has it, else as text
  kGemma,
};

/// "raw", "chatml", "llama2", "llama3", "mistral", "gemma".
[[nodiscard]] std::string_view to_string(ChatFormat format);
/// These, and "qwen", which is written as ChatML. \returns kInvalidArgument naming the known ones.
[[nodiscard]] Result<ChatFormat> parse_chat_format(std::string_view name);
/// The format of a model's Jinja template, recognised by its markers; kRaw for an empty template.
/// \returns kUnsupported for a template with none of the known markers.
[[nodiscard]] Result<ChatFormat> detect_chat_format(std::string_view chat_template);

/// Whether a piece of a vocabulary marks turns in one of the formats.
[[nodiscard]] bool is_chat_marker(std::string_view piece);

enum class Role : uint8_t { kSystem, kUser, kAssistant };

struct ChatMessage {
  Role role = Role::kUser;
  std::string content;
};

/// Writes a conversation as token ids, turn by turn, so that earlier turns are never encoded again.
/// Immutable; the tokenizer must outlive it.
class ChatEncoder {
 public:
  /// \returns kUnsupported when the vocabulary lacks a control token the format needs, named.
  [[nodiscard]] static Result<ChatEncoder> make(const Tokenizer& tokenizer, ChatFormat format);

  /// The ids from the end of what was said so far up to where the assistant starts to write.
  /// `messages` may hold earlier replies too. `is_first` adds what opens a conversation: bos where
  /// the family or the vocabulary asks for it, and, if `messages` does not start with a system
  /// message, the system text that the model's template has as a literal for this case. Families
  /// without a system turn get it in front of the next user's text. kRaw concatenates the contents.
  [[nodiscard]] std::vector<int32_t> begin_reply(std::span<const ChatMessage> messages,
                                                 bool is_first) const;

  /// The ids to append behind an assistant's reply whose last sampled id was `last_id` (-1: nothing
  /// was sampled): the end marker unless it is `last_id`, and whatever the format writes behind it.
  [[nodiscard]] std::vector<int32_t> end_reply(int32_t last_id) const;

  [[nodiscard]] ChatFormat format() const { return format_; }

 private:
  ChatEncoder(const Tokenizer& tokenizer, ChatFormat format)
      : tokenizer_(&tokenizer), format_(format) {}
  const Tokenizer* tokenizer_;
  ChatFormat format_;
};

}  // namespace isthmus::text
