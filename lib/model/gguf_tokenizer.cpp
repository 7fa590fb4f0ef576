#include "gguf_tokenizer.h"

#include <array>
#include <utility>

#include "vocabulary.h"

namespace isthmus::model::gguf {
namespace {

using text::TokenizerKind;
using text::TokenizerSpec;
using text::TokenKind;

constexpr std::string_view kModel = "tokenizer.ggml.model";
constexpr std::string_view kTokens = "tokenizer.ggml.tokens";
constexpr std::string_view kTypes = "tokenizer.ggml.token_type";
constexpr std::string_view kScores = "tokenizer.ggml.scores";
constexpr std::string_view kMerges = "tokenizer.ggml.merges";

// Files name the same pre-tokenizer in several ways.
constexpr std::array<std::pair<std::string_view, std::string_view>, 4> kPreTokenizerAliases = {
    {{"gpt-2", "gpt2"},
     {"llama3", "llama-bpe"},
     {"llama-v3", "llama-bpe"},
     {"deepseek-r1-qwen", "qwen2"}}};

Status check_length(std::string_view key, size_t length, size_t pieces) {
  if (length == pieces) return {};
  return fail(ErrorCode::kCorrupt, "gguf: key '" + std::string(key) + "' has " +
                                       std::to_string(length) + " items for a vocabulary of " +
                                       std::to_string(pieces));
}

Status read_kinds(const Metadata& metadata, TokenizerSpec& spec) {
  ISTHMUS_ASSIGN(const auto types, metadata.list<int32_t>(kTypes));
  spec.kinds.assign(spec.pieces.size(), TokenKind::kNormal);
  if (metadata.find(kTypes) == nullptr) return {};
  ISTHMUS_TRY(check_length(kTypes, types.size(), spec.pieces.size()));
  for (size_t i = 0; i < types.size(); ++i) {
    if (types[i] < static_cast<int32_t>(TokenKind::kNormal) ||
        types[i] > static_cast<int32_t>(TokenKind::kByte)) {
      return fail(ErrorCode::kCorrupt, "gguf: token " + std::to_string(i) + " has unknown type " +
                                           std::to_string(types[i]));
    }
    spec.kinds[i] = static_cast<TokenKind>(types[i]);
  }
  return {};
}

Status read_merges(const Metadata& metadata, TokenizerSpec& spec) {
  ISTHMUS_ASSIGN(const auto merges, metadata.list<std::string_view>(kMerges));
  spec.merges.reserve(merges.size());
  for (const std::string_view merge : merges) {
    ISTHMUS_ASSIGN(auto pair, split_merge(merge));
    spec.merges.push_back(std::move(pair));
  }
  return {};
}

Status read_byte_bpe(const Metadata& metadata, TokenizerSpec& spec) {
  spec.kind = TokenizerKind::kByteBpe;
  ISTHMUS_ASSIGN(spec.pre_tokenizer, metadata.get_or<std::string>("tokenizer.ggml.pre", "default"));
  for (const auto& [alias, name] : kPreTokenizerAliases) {
    if (spec.pre_tokenizer == alias) spec.pre_tokenizer = name;
  }
  // The file names the family; what else the family does is not in the metadata.
  spec.normalize_nfc = spec.pre_tokenizer == "qwen2";
  spec.ignore_merges = spec.pre_tokenizer == "llama-bpe";
  spec.add_bos = spec.pre_tokenizer == "llama-bpe";
  if (metadata.find(kMerges) == nullptr) {
    return fail(ErrorCode::kNotFound,
                "gguf: the file lacks the key '" + std::string(kMerges) + "'");
  }
  return read_merges(metadata, spec);
}

Status read_sentence_piece(const Metadata& metadata, TokenizerSpec& spec) {
  spec.kind = TokenizerKind::kSentencePiece;
  spec.add_bos = true;
  ISTHMUS_ASSIGN(spec.add_space_prefix,
                 metadata.get_or<bool>("tokenizer.ggml.add_space_prefix", true));
  ISTHMUS_ASSIGN(spec.scores, metadata.list<float>(kScores));
  if (!spec.scores.empty()) return check_length(kScores, spec.scores.size(), spec.pieces.size());
  return read_merges(metadata, spec);
}

Status read_special_ids(const Metadata& metadata, TokenizerSpec& spec) {
  ISTHMUS_ASSIGN(spec.bos, metadata.get_or<int32_t>("tokenizer.ggml.bos_token_id", -1));
  ISTHMUS_ASSIGN(spec.eos, metadata.get_or<int32_t>("tokenizer.ggml.eos_token_id", -1));
  ISTHMUS_ASSIGN(spec.unknown, metadata.get_or<int32_t>("tokenizer.ggml.unknown_token_id", -1));
  ISTHMUS_ASSIGN(spec.add_bos, metadata.get_or<bool>("tokenizer.ggml.add_bos_token", spec.add_bos));
  for (const char* key : {"tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"}) {
    ISTHMUS_ASSIGN(const auto id, metadata.get_or<int32_t>(key, -1));
    if (id != -1) spec.end_of_generation.push_back(id);
  }
  settle_markers(spec);
  return {};
}

}  // namespace

Result<TokenizerSpec> read_tokenizer(const Metadata& metadata) {
  TokenizerSpec spec;
  if (metadata.find(kModel) == nullptr) return spec;
  ISTHMUS_ASSIGN(const auto model, metadata.get<std::string_view>(kModel));
  ISTHMUS_ASSIGN(spec.pieces, metadata.list<std::string>(kTokens));
  if (spec.pieces.empty()) {
    return fail(ErrorCode::kNotFound,
                "gguf: the file lacks the key '" + std::string(kTokens) + "'");
  }
  ISTHMUS_TRY(read_kinds(metadata, spec));
  if (model == "gpt2") {
    ISTHMUS_TRY(read_byte_bpe(metadata, spec));
  } else if (model == "llama") {
    ISTHMUS_TRY(read_sentence_piece(metadata, spec));
  } else {
    return fail(ErrorCode::kUnsupported,
                "gguf: tokenizer '" + std::string(model) + "' is not one of gpt2, llama");
  }
  ISTHMUS_TRY(read_special_ids(metadata, spec));
  ISTHMUS_ASSIGN(spec.chat_template, metadata.get_or<std::string>("tokenizer.chat_template", ""));
  return spec;
}

}  // namespace isthmus::model::gguf
