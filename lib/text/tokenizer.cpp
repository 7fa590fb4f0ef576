#include <isthmus/text/tokenizer.h>

#include <algorithm>
#include <optional>

#include "merges.h"
#include "pre_tokenizer.h"
#include "utf8.h"
#include "verbatim.h"
#include "vocabulary.h"

namespace isthmus::text {

struct Tokenizer::Impl {
  TokenizerSpec spec;
  Vocabulary vocabulary;
  MergeRules merges;
  VerbatimTokens control;
  VerbatimTokens user_defined;
  std::optional<PreTokenizer> pre_tokenizer;  // byte BPE only
};

namespace {

VerbatimTokens tokens_of_kind(const TokenizerSpec& spec, std::initializer_list<TokenKind> kinds) {
  std::vector<VerbatimTokens::Token> tokens;
  for (size_t id = 0; id < spec.pieces.size(); ++id) {
    if (std::find(kinds.begin(), kinds.end(), spec.kinds[id]) == kinds.end()) continue;
    tokens.push_back({spec.pieces[id], static_cast<int32_t>(id)});
  }
  return VerbatimTokens(std::move(tokens));
}

// Calls `between` with each stretch of `text` without a token, and `at` with each token's id.
template <typename Between, typename At>
void split_at(const VerbatimTokens& tokens, std::string_view text, Between between, At at) {
  for (size_t from = 0; from < text.size();) {
    const auto match = tokens.find(text, from);
    if (match.begin > from) between(text.substr(from, match.begin - from));
    if (match.id >= 0) at(match.id);
    from = match.begin + match.length;
  }
}

// A character that has no piece travels through merging as the complement of its code point, which
// is negative.
int32_t without_piece(std::string_view character) {
  return ~code_point_of(character);
}

}  // namespace

// The work of one call of encode.
class Tokenizer::Encoding {
 public:
  Encoding(const Impl& impl, std::vector<int32_t>& ids)
      : impl_(impl), merger_(impl.merges), ids_(ids) {}

  /// Encodes text without control tokens.
  void add_text(std::string_view text) {
    std::string prefixed;
    if (impl_.spec.kind == TokenizerKind::kSentencePiece && impl_.spec.add_space_prefix) {
      text = prefixed.append(" ").append(text);
    }
    split_at(
        impl_.user_defined, text, [&](std::string_view stretch) { add_stretch(stretch); },
        [&](int32_t id) { ids_.push_back(id); });
  }

 private:
  void add_stretch(std::string_view text) {
    std::string normalized;
    if (impl_.spec.normalize_nfc) text = normalized = nfc(text);
    if (impl_.spec.kind == TokenizerKind::kSentencePiece) return add_characters(text);
    for (const std::string_view piece : impl_.pre_tokenizer->split(text)) add_bytes(piece);
  }

  void add_bytes(std::string_view piece) {
    if (impl_.spec.ignore_merges) {
      const int32_t whole = impl_.vocabulary.find_byte_level(piece);
      if (whole >= 0) return ids_.push_back(whole);
    }
    symbols_.clear();
    for (const char byte : piece) {
      const int32_t id = impl_.vocabulary.byte_id(static_cast<uint8_t>(byte));
      if (id >= 0) symbols_.push_back(id);  // as the reference does: a byte without a piece is lost
    }
    merger_.merge(symbols_);
    ids_.insert(ids_.end(), symbols_.begin(), symbols_.end());
  }

  void add_characters(std::string_view text) {
    symbols_.clear();
    while (!text.empty()) {
      const std::string_view character = text.substr(0, next_utf8(text).length);
      const int32_t id = impl_.vocabulary.find_text(character == " " ? kSpacePiece : character);
      symbols_.push_back(id >= 0 ? id : without_piece(character));
      text.remove_prefix(character.size());
    }
    merger_.merge(symbols_);
    bool after_unknown = false;
    for (const int32_t symbol : symbols_) {
      if (symbol >= 0) {
        ids_.push_back(symbol);
        after_unknown = false;
      } else {
        after_unknown = add_character_without_piece(~symbol, after_unknown);
      }
    }
  }

  // As bytes where the vocabulary has them all, else as the unknown token, once for a whole run.
  // Returns whether it was unknown.
  bool add_character_without_piece(int32_t code_point, bool after_unknown) {
    std::string bytes;
    append_utf8(bytes, code_point);
    const auto id_of = [&](char byte) {
      return impl_.vocabulary.byte_id(static_cast<uint8_t>(byte));
    };
    if (std::all_of(bytes.begin(), bytes.end(), [&](char b) { return id_of(b) >= 0; })) {
      for (const char byte : bytes) ids_.push_back(id_of(byte));
      return false;
    }
    if (impl_.spec.unknown >= 0 && !after_unknown) ids_.push_back(impl_.spec.unknown);
    return true;
  }

  const Impl& impl_;
  Merger merger_;
  std::vector<int32_t>& ids_;
  std::vector<int32_t> symbols_;
};

Tokenizer::Tokenizer(std::unique_ptr<const Impl> impl) : impl_(std::move(impl)) {}
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;
Tokenizer::~Tokenizer() = default;

Result<Tokenizer> Tokenizer::make(TokenizerSpec spec) {
  auto impl = std::make_unique<Impl>();
  impl->spec = std::move(spec);
  ISTHMUS_ASSIGN(impl->vocabulary, Vocabulary::make(impl->spec));
  ISTHMUS_ASSIGN(impl->merges, MergeRules::make(impl->spec, impl->vocabulary));
  impl->spec.merges = {};  // they live on in the rules
  if (impl->spec.kind == TokenizerKind::kByteBpe) {
    ISTHMUS_ASSIGN(impl->pre_tokenizer, PreTokenizer::make(impl->spec.pre_tokenizer));
  }
  impl->control = tokens_of_kind(impl->spec, {TokenKind::kControl, TokenKind::kUnknown});
  impl->user_defined = tokens_of_kind(impl->spec, {TokenKind::kUserDefined});
  return Tokenizer(std::move(impl));
}

std::vector<int32_t> Tokenizer::encode(std::string_view text, const EncodeOptions& options) const {
  std::vector<int32_t> ids;
  if (options.add_bos && impl_->spec.bos >= 0) ids.push_back(impl_->spec.bos);
  const std::string valid = replace_invalid_utf8(text);
  Encoding encoding(*impl_, ids);
  if (!options.parse_special) {
    if (!valid.empty()) encoding.add_text(valid);
    return ids;
  }
  split_at(
      impl_->control, valid, [&](std::string_view run) { encoding.add_text(run); },
      [&](int32_t id) { ids.push_back(id); });
  return ids;
}

std::string_view Tokenizer::bytes_of(int32_t id) const {
  return impl_->vocabulary.bytes_of(id);
}

std::string Tokenizer::decode(std::span<const int32_t> ids) const {
  StreamDecoder decoder(*this);
  std::string text;
  for (const int32_t id : ids) text += decoder.push(id);
  return text += decoder.finish();
}

int32_t Tokenizer::find(std::string_view piece) const {
  return impl_->vocabulary.find(piece);
}

bool Tokenizer::ends_generation(int32_t id) const {
  const auto& ends = impl_->spec.end_of_generation;
  return std::find(ends.begin(), ends.end(), id) != ends.end();
}

const TokenizerSpec& Tokenizer::spec() const {
  return impl_->spec;
}

StreamDecoder::StreamDecoder(const Tokenizer& tokenizer, TextStart start)
    : tokenizer_(&tokenizer),
      drop_space_(start == TextStart::kBeginning &&
                  tokenizer.spec().kind == TokenizerKind::kSentencePiece &&
                  tokenizer.spec().add_space_prefix) {}

std::string StreamDecoder::push(int32_t id) {
  std::string_view bytes = tokenizer_->bytes_of(id);
  if (drop_space_ && !bytes.empty()) {
    drop_space_ = false;
    if (bytes.front() == ' ') bytes.remove_prefix(1);
  }
  pending_ += bytes;
  size_t complete = 0;
  while (complete < pending_.size()) {
    const Utf8Unit unit = next_utf8(std::string_view(pending_).substr(complete));
    if (unit.state == Utf8State::kUnfinished) break;
    complete += unit.length;
  }
  std::string text = replace_invalid_utf8(std::string_view(pending_).substr(0, complete));
  pending_.erase(0, complete);
  return text;
}

std::string StreamDecoder::finish() {
  return replace_invalid_utf8(std::exchange(pending_, {}));
}

}  // namespace isthmus::text
