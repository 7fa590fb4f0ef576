// Text to token ids and back, from the vocabulary that a model file carries.
//
// Byte-level BPE (GPT-2 and its descendants; Sennrich et al. 2016 over bytes) with the
// pre-tokenizer that the model names, and SentencePiece-style merging (Llama, Gemma; Kudo and
// Richardson 2018) with byte fallback.
#pragma once

#include <isthmus/core/error.h>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace isthmus::text {

enum class TokenizerKind : uint8_t {
  kByteBpe,        ///< pieces are GPT-2's printable stand-ins for bytes; merges in rank order
  kSentencePiece,  ///< pieces are UTF-8 with U+2581 for a space; scores, or merges in rank order
};

/// What a vocabulary entry is. The values are GGUF's token types.
enum class TokenKind : uint8_t {
  kNormal = 1,
  kUnknown = 2,
  kControl = 3,      ///< special; never produced from ordinary text, never shown
  kUserDefined = 4,  ///< matched verbatim in text before anything else
  kUnused = 5,
  kByte = 6,  ///< "<0x41>"
};

/// Everything read from a model file that a tokenizer is made from.
struct TokenizerSpec {
  TokenizerKind kind = TokenizerKind::kByteBpe;
  std::string pre_tokenizer;        ///< byte BPE only: "gpt2", "smollm", "llama-bpe" or "qwen2"
  std::vector<std::string> pieces;  ///< [V]
  std::vector<TokenKind> kinds;     ///< [V]
  std::vector<float> scores;        ///< [V], SentencePiece without merges
  std::vector<std::pair<std::string, std::string>> merges;  ///< rank order
  int32_t bos = -1;                                         ///< -1: none
  int32_t eos = -1;
  int32_t unknown = -1;
  std::vector<int32_t> end_of_generation;  ///< every id that ends a reply, `eos` included
  bool add_bos = false;                    ///< whether the model expects `bos` in front of a text
  bool add_space_prefix = false;           ///< SentencePiece: a space goes in front of the text
  bool normalize_nfc = false;              ///< Unicode NFC first (Qwen)
  bool ignore_merges = false;  ///< byte BPE: a pre-token that is a piece is taken whole (Llama 3)
  std::string chat_template;   ///< the model's Jinja template, only used to recognise its format
};

struct EncodeOptions {
  bool add_bos = false;  ///< put `bos` in front, if the vocabulary has one
  bool parse_special =
      false;  ///< recognise control tokens written out in the text; never set it for user text
};

/// An immutable tokenizer; all methods are safe to call from any thread.
class Tokenizer {
 public:
  /// \returns kNotFound when there are no pieces, which is how a model without a vocabulary reads,
  /// kCorrupt for a vocabulary that contradicts itself (sizes, ids, merges of unknown pieces,
  /// special tokens that are not UTF-8), kUnsupported for an unknown pre-tokenizer, named.
  [[nodiscard]] static Result<Tokenizer> make(TokenizerSpec spec);

  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;
  ~Tokenizer();

  /// Token ids of `text`. Each maximal invalid UTF-8 subpart is first replaced by one U+FFFD
  /// (Unicode 15, section 3.9). SentencePiece with `add_space_prefix` puts a space in front of the
  /// text, and in front of each text behind a recognised control token.
  [[nodiscard]] std::vector<int32_t> encode(std::string_view text,
                                            const EncodeOptions& options = {}) const;

  /// The bytes that one id stands for: empty for control tokens and for ids outside the vocabulary,
  /// U+FFFD for the unknown token.
  [[nodiscard]] std::string_view bytes_of(int32_t id) const;
  /// The text of many ids: what a StreamDecoder at the beginning of a text prints for them.
  [[nodiscard]] std::string decode(std::span<const int32_t> ids) const;
  /// The id whose piece is exactly `piece` (as written in the vocabulary), or -1.
  [[nodiscard]] int32_t find(std::string_view piece) const;
  [[nodiscard]] bool ends_generation(int32_t id) const;
  /// What the tokenizer was made from, without `merges`, which are given up once understood.
  [[nodiscard]] const TokenizerSpec& spec() const;
  [[nodiscard]] size_t vocab_size() const { return spec().pieces.size(); }

 private:
  struct Impl;
  class Encoding;
  explicit Tokenizer(std::unique_ptr<const Impl> impl);
  std::unique_ptr<const Impl> impl_;
};

/// Where the first id given to a StreamDecoder stands.
enum class TextStart : uint8_t {
  kBeginning,     ///< a text of its own, for example a reply
  kContinuation,  ///< behind text that was shown before, for example a raw prompt
};

/// Turns ids into text as they come, never giving out part of a UTF-8 character. Not thread-safe.
/// The tokenizer must outlive it.
///
/// With SentencePiece and `add_space_prefix`, one space at the beginning of a text is the one that
/// `encode` puts there and is not shown, so that `decode(encode(text)) == text`; a continuation
/// keeps it.
class StreamDecoder {
 public:
  explicit StreamDecoder(const Tokenizer& tokenizer, TextStart start = TextStart::kBeginning);
  /// The text that is complete after `id`; may be empty. Bytes that can no longer become valid are
  /// U+FFFD, one for each maximal invalid subpart.
  [[nodiscard]] std::string push(int32_t id);
  /// What is left; an unfinished character becomes one U+FFFD.
  [[nodiscard]] std::string finish();

 private:
  const Tokenizer* tokenizer_;
  bool drop_space_;
  std::string pending_;
};

/// `text` with each maximal invalid UTF-8 subpart replaced by one U+FFFD.
[[nodiscard]] std::string replace_invalid_utf8(std::string_view text);

}  // namespace isthmus::text
