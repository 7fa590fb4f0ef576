#include "hf_tokenizer.h"

#include <algorithm>
#include <array>
#include <string_view>
#include <utility>
#include <vector>

#include "json_object.h"
#include "quote.h"
#include "vocabulary.h"

namespace isthmus::model {
namespace {

using nlohmann::json;
using text::TokenizerKind;
using text::TokenizerSpec;
using text::TokenKind;

constexpr std::string_view kFile = "tokenizer.json";
constexpr std::string_view kSpaceMark = "\u2581";

// The known ways to cut text for byte-level BPE, described as `describe_split` does.
struct PreTokenizer {
  std::string_view name;
  std::string_view steps;
};
constexpr std::array<PreTokenizer, 4> kPreTokenizers = {{
    {"gpt2", "ByteLevel with its regex"},
    {"smollm", "Digits one by one, ByteLevel with its regex"},
    {"llama-bpe",
     R"(Split (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+)"
     R"([\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+, ByteLevel)"},
    {"qwen2",
     R"(Split (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+)"
     R"([\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+, ByteLevel)"},
}};

tl::unexpected<Error> unsupported(std::string_view what) {
  return fail(ErrorCode::kUnsupported, std::string("model: tokenizer.json: ").append(what));
}

// The steps of a normalizer, pre-tokenizer or post-processor: the items of a Sequence, or the one
// step itself, or none.
Result<std::vector<JsonObject>> steps_of(const JsonObject& tokenizer, std::string_view key,
                                         std::string_view sequence_key) {
  std::vector<JsonObject> steps;
  ISTHMUS_ASSIGN(const auto whole, tokenizer.object(key));
  if (!whole) return steps;
  ISTHMUS_ASSIGN(const auto type, whole->get<std::string>("type"));
  if (type != "Sequence") {
    steps.push_back(*whole);
    return steps;
  }
  ISTHMUS_ASSIGN(const auto items, whole->list(sequence_key));
  for (const json& item : items) {
    ISTHMUS_ASSIGN(const auto step, whole->item(item, sequence_key));
    steps.push_back(step);
  }
  return steps;
}

// The pattern of a Split or Replace, under "Regex" or "String".
Result<std::string> pattern_of(const JsonObject& step, std::string_view form) {
  ISTHMUS_ASSIGN(const auto pattern, step.object("pattern"));
  return pattern ? pattern->get_or<std::string>(form, "") : Result<std::string>("");
}

Result<std::string> describe_step(const JsonObject& step) {
  ISTHMUS_ASSIGN(const auto type, step.get<std::string>("type"));
  if (type == "ByteLevel") {
    ISTHMUS_ASSIGN(const auto prefix, step.get_or<bool>("add_prefix_space", false));
    ISTHMUS_ASSIGN(const auto regex, step.get_or<bool>("use_regex", true));
    std::string text = "ByteLevel";
    if (regex) text += " with its regex";
    if (prefix) text += " and a space in front";
    return text;
  }
  if (type == "Digits") {
    ISTHMUS_ASSIGN(const auto single, step.get_or<bool>("individual_digits", false));
    return std::string(single ? "Digits one by one" : "Digits");
  }
  if (type == "Split") {
    ISTHMUS_ASSIGN(const auto regex, pattern_of(step, "Regex"));
    ISTHMUS_ASSIGN(const auto behavior, step.get_or<std::string>("behavior", "Isolated"));
    ISTHMUS_ASSIGN(const auto invert, step.get_or<bool>("invert", false));
    // GPT-4-style files write the same cut as removing what lies between the matches.
    const bool isolates = behavior == "Isolated" || (behavior == "Removed" && invert);
    return isolates ? "Split " + regex : "Split " + behavior + " " + regex;
  }
  return type;
}

Status read_byte_bpe_split(const JsonObject& tokenizer, TokenizerSpec& spec) {
  ISTHMUS_ASSIGN(const auto steps, steps_of(tokenizer, "pre_tokenizer", "pretokenizers"));
  std::string description;
  for (const JsonObject& step : steps) {
    ISTHMUS_ASSIGN(const auto text, describe_step(step));
    if (!description.empty()) description += ", ";
    description += text;
  }
  for (const PreTokenizer& known : kPreTokenizers) {
    if (description == known.steps) spec.pre_tokenizer = known.name;
  }
  if (spec.pre_tokenizer.empty()) return unsupported("pre-tokenizer " + quote(description));
  return {};
}

Status read_byte_bpe_normalizer(const JsonObject& tokenizer, TokenizerSpec& spec) {
  ISTHMUS_ASSIGN(const auto steps, steps_of(tokenizer, "normalizer", "normalizers"));
  for (const JsonObject& step : steps) {
    ISTHMUS_ASSIGN(const auto type, step.get<std::string>("type"));
    if (type != "NFC") return unsupported("normalizer " + quote(type));
    spec.normalize_nfc = true;
  }
  return {};
}

// SentencePiece models write a space as U+2581, by a normalizer or by a Metaspace pre-tokenizer;
// either may also put one in front.
Status read_space_marks(const JsonObject& tokenizer, TokenizerSpec& spec) {
  ISTHMUS_ASSIGN(const auto normalizers, steps_of(tokenizer, "normalizer", "normalizers"));
  for (const JsonObject& step : normalizers) {
    ISTHMUS_ASSIGN(const auto type, step.get<std::string>("type"));
    ISTHMUS_ASSIGN(const auto pattern, pattern_of(step, "String"));
    ISTHMUS_ASSIGN(const auto content, step.get_or<std::string>("content", ""));
    ISTHMUS_ASSIGN(const auto prefix, step.get_or<std::string>("prepend", ""));
    const bool marks = type == "Replace" && pattern == " " && content == kSpaceMark;
    const bool prepends = type == "Prepend" && prefix == kSpaceMark;
    if (!marks && !prepends) return unsupported("normalizer " + quote(type));
    spec.add_space_prefix = spec.add_space_prefix || prepends;
  }
  ISTHMUS_ASSIGN(const auto splits, steps_of(tokenizer, "pre_tokenizer", "pretokenizers"));
  for (const JsonObject& step : splits) {
    ISTHMUS_ASSIGN(const auto type, step.get<std::string>("type"));
    if (type == "Metaspace") {
      ISTHMUS_ASSIGN(const auto old_prefix, step.get_or<bool>("add_prefix_space", true));
      ISTHMUS_ASSIGN(const auto scheme,
                     step.get_or<std::string>("prepend_scheme", old_prefix ? "always" : "never"));
      spec.add_space_prefix = spec.add_space_prefix || scheme != "never";
      continue;
    }
    // Gemma's Split at spaces never finds one: the normalizer has replaced them.
    ISTHMUS_ASSIGN(const auto pattern, pattern_of(step, "String"));
    if (type != "Split" || pattern != " ") return unsupported("pre-tokenizer " + quote(type));
  }
  return {};
}

struct Numbered {
  std::string piece;
  int32_t id;
  TokenKind kind;
};

bool is_byte_piece(std::string_view piece) {
  return piece.size() == 6 && piece.starts_with("<0x") && piece.ends_with('>');
}

// The model's pieces, then the added ones, which win where an id is in both. Gemma 3's tokenizer is
// shared with its multimodal sizes and adds pieces that the text models have no rows for: such ids
// are left out.
Result<std::vector<Numbered>> read_numbered(const JsonObject& tokenizer, const JsonObject& model,
                                            TokenizerKind kind, int32_t vocab_size) {
  std::vector<Numbered> pieces;
  ISTHMUS_ASSIGN(const auto vocab, model.object("vocab"));
  if (!vocab) return model.error(ErrorCode::kNotFound, "vocab", "is missing");
  ISTHMUS_ASSIGN(const auto unknown, model.get_or<std::string>("unk_token", ""));
  for (const auto& [piece, value] : vocab->node().items()) {
    ISTHMUS_ASSIGN(const auto id, vocab->get<int32_t>(piece));
    TokenKind piece_kind = TokenKind::kNormal;
    if (kind == TokenizerKind::kSentencePiece) {
      if (is_byte_piece(piece)) piece_kind = TokenKind::kByte;
      if (piece == unknown) piece_kind = TokenKind::kUnknown;
    }
    pieces.push_back({piece, id, piece_kind});
  }
  ISTHMUS_ASSIGN(const auto added, tokenizer.list("added_tokens"));
  for (const json& node : added) {
    ISTHMUS_ASSIGN(const auto token, tokenizer.item(node, "added_tokens"));
    ISTHMUS_ASSIGN(auto content, token.get<std::string>("content"));
    ISTHMUS_ASSIGN(const auto id, token.get<int32_t>("id"));
    ISTHMUS_ASSIGN(const auto special, token.get_or<bool>("special", false));
    if (id >= vocab_size) continue;
    pieces.push_back(
        {std::move(content), id, special ? TokenKind::kControl : TokenKind::kUserDefined});
  }
  return pieces;
}

// Ids without a piece become unused ones; a file with more holes than pieces is refused, so that a
// few bytes cannot ask for much memory.
Status read_pieces(const JsonObject& tokenizer, const JsonObject& model, int32_t vocab_size,
                   TokenizerSpec& spec) {
  ISTHMUS_ASSIGN(auto numbered, read_numbered(tokenizer, model, spec.kind, vocab_size));
  size_t size = 0;
  for (const Numbered& entry : numbered) {
    if (entry.id < 0) return model.error(ErrorCode::kCorrupt, "vocab", "has a negative id");
    size = std::max(size, static_cast<size_t>(entry.id) + 1);
  }
  if (size > 2 * numbered.size()) {
    return model.error(ErrorCode::kCorrupt, "vocab", "has more holes than pieces");
  }
  std::vector<bool> is_model_piece(size, false);
  spec.pieces.assign(size, "");
  spec.kinds.assign(size, TokenKind::kUnused);
  for (Numbered& entry : numbered) {
    const auto id = static_cast<size_t>(entry.id);
    const bool added = entry.kind == TokenKind::kControl || entry.kind == TokenKind::kUserDefined;
    if (!added && is_model_piece[id]) {
      return model.error(ErrorCode::kCorrupt, "vocab", "has id " + std::to_string(id) + " twice");
    }
    is_model_piece[id] = true;
    if (spec.kinds[id] == TokenKind::kUnknown) entry.kind = TokenKind::kUnknown;
    spec.pieces[id] = std::move(entry.piece);
    spec.kinds[id] = entry.kind;
  }
  for (size_t id = 0; id < size; ++id) {
    if (!is_model_piece[id]) spec.pieces[id] = "[unused id " + std::to_string(id) + "]";
  }
  return {};
}

// Each merge is "left right", or since 2024 ["left", "right"].
Status read_merges(const JsonObject& model, TokenizerSpec& spec) {
  ISTHMUS_ASSIGN(const auto merges, model.list("merges"));
  spec.merges.reserve(merges.size());
  for (const json& merge : merges) {
    if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
      spec.merges.emplace_back(merge[0].get<std::string>(), merge[1].get<std::string>());
      continue;
    }
    ISTHMUS_ASSIGN(auto pair, split_merge(merge.is_string() ? merge.get<std::string>() : ""));
    spec.merges.push_back(std::move(pair));
  }
  return {};
}

int32_t id_of(const TokenizerSpec& spec, std::string_view piece) {
  const auto found = std::find(spec.pieces.begin(), spec.pieces.end(), piece);
  return found == spec.pieces.end() ? -1 : static_cast<int32_t>(found - spec.pieces.begin());
}

// A special piece is written as text or as an object with its content.
Result<std::string> special_piece(const JsonObject& object, std::string_view key) {
  const json* member = object.find(key);
  if (member == nullptr || member->is_string()) return object.get_or<std::string>(key, "");
  ISTHMUS_ASSIGN(const auto nested, object.item(*member, key));
  return nested.get<std::string>("content");
}

// An id, or several of which the first is the usual one; none for an absent member.
Result<std::vector<int32_t>> id_list(const JsonObject& object, std::string_view key) {
  std::vector<int32_t> ids;
  const json* member = object.find(key);
  if (member == nullptr) return ids;
  if (!member->is_array()) {
    ISTHMUS_ASSIGN(const auto id, object.get<int32_t>(key));
    ids.push_back(id);
    return ids;
  }
  for (const json& item : *member) {
    const auto id = value_as<int32_t>(item);
    if (!id || *id < 0) {
      return object.error(ErrorCode::kCorrupt, key, "has an item that is not an id");
    }
    ids.push_back(*id);
  }
  return ids;
}

// The id that tokenizer_config.json names by its piece, or else config.json by its number.
Result<int32_t> special_id(const TokenizerSpec& spec, const HfTokenizerFiles& files,
                           const std::string& name) {
  const JsonObject settings(files.tokenizer_config, "tokenizer_config.json");
  ISTHMUS_ASSIGN(const auto piece, special_piece(settings, name + "_token"));
  if (const int32_t id = piece.empty() ? -1 : id_of(spec, piece); id >= 0) return id;
  ISTHMUS_ASSIGN(const auto ids,
                 id_list(JsonObject(files.config, "config.json"), name + "_token_id"));
  return ids.empty() ? -1 : ids.front();
}

// Whether the post-processor starts a single text with the bos piece.
Result<bool> template_adds_bos(const JsonObject& tokenizer, const TokenizerSpec& spec) {
  if (spec.bos < 0 || static_cast<size_t>(spec.bos) >= spec.pieces.size()) return false;
  ISTHMUS_ASSIGN(const auto steps, steps_of(tokenizer, "post_processor", "processors"));
  for (const JsonObject& step : steps) {
    ISTHMUS_ASSIGN(const auto type, step.get<std::string>("type"));
    ISTHMUS_ASSIGN(const auto single, step.list("single"));
    if (type != "TemplateProcessing" || single.empty()) continue;
    ISTHMUS_ASSIGN(const auto first, step.item(single.front(), "single"));
    ISTHMUS_ASSIGN(const auto special, first.object("SpecialToken"));
    if (!special) continue;
    ISTHMUS_ASSIGN(const auto piece, special->get_or<std::string>("id", ""));
    if (piece == spec.pieces[static_cast<size_t>(spec.bos)]) return true;
  }
  return false;
}

Status read_special_ids(const HfTokenizerFiles& files, TokenizerSpec& spec) {
  ISTHMUS_ASSIGN(spec.bos, special_id(spec, files, "bos"));
  ISTHMUS_ASSIGN(spec.eos, special_id(spec, files, "eos"));
  ISTHMUS_ASSIGN(spec.unknown, special_id(spec, files, "unk"));
  const JsonObject tokenizer(files.tokenizer, kFile);
  const JsonObject settings(files.tokenizer_config, "tokenizer_config.json");
  ISTHMUS_ASSIGN(const auto in_template, template_adds_bos(tokenizer, spec));
  ISTHMUS_ASSIGN(spec.add_bos, settings.get_or<bool>("add_bos_token", in_template));
  for (const auto& [document, file] :
       {std::pair(&files.config, "config.json"),
        std::pair(&files.generation_config, "generation_config.json")}) {
    ISTHMUS_ASSIGN(const auto ids, id_list(JsonObject(*document, file), "eos_token_id"));
    spec.end_of_generation.insert(spec.end_of_generation.end(), ids.begin(), ids.end());
  }
  settle_markers(spec);
  return {};
}

// The template is text, or a list of named ones.
Result<std::string> read_chat_template(const json& tokenizer_config) {
  const JsonObject settings(tokenizer_config, "tokenizer_config.json");
  const json* member = settings.find("chat_template");
  if (member == nullptr || !member->is_array()) {
    return settings.get_or<std::string>("chat_template", "");
  }
  for (const json& node : *member) {
    ISTHMUS_ASSIGN(const auto named, settings.item(node, "chat_template"));
    ISTHMUS_ASSIGN(const auto name, named.get<std::string>("name"));
    if (name == "default") return named.get<std::string>("template");
  }
  return std::string();
}

}  // namespace

Result<TokenizerSpec> read_hf_tokenizer(const HfTokenizerFiles& files) {
  const JsonObject tokenizer(files.tokenizer, kFile);
  ISTHMUS_ASSIGN(const auto model, tokenizer.object("model"));
  if (!model) return tokenizer.error(ErrorCode::kNotFound, "model", "is missing");
  ISTHMUS_ASSIGN(const auto type, model->get_or<std::string>("type", "BPE"));
  if (type != "BPE") return unsupported("model " + quote(type) + ", not BPE");

  TokenizerSpec spec;
  ISTHMUS_ASSIGN(const auto byte_fallback, model->get_or<bool>("byte_fallback", false));
  ISTHMUS_ASSIGN(spec.ignore_merges, model->get_or<bool>("ignore_merges", false));
  if (byte_fallback) {
    spec.kind = TokenizerKind::kSentencePiece;
    ISTHMUS_TRY(read_space_marks(tokenizer, spec));
  } else {
    ISTHMUS_TRY(read_byte_bpe_split(tokenizer, spec));
    ISTHMUS_TRY(read_byte_bpe_normalizer(tokenizer, spec));
  }
  ISTHMUS_ASSIGN(const auto vocab_size,
                 JsonObject(files.config, "config.json").get<int32_t>("vocab_size"));
  ISTHMUS_TRY(read_pieces(tokenizer, *model, vocab_size, spec));
  ISTHMUS_TRY(read_merges(*model, spec));
  ISTHMUS_TRY(read_special_ids(files, spec));
  ISTHMUS_ASSIGN(spec.chat_template, read_chat_template(files.tokenizer_config));
  return spec;
}

}  // namespace isthmus::model
