#include "vocabulary.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>

#include "utf8.h"

namespace isthmus::text {
namespace {

tl::unexpected<Error> corrupt(const std::string& what) {
  return fail(ErrorCode::kCorrupt, "text: " + what);
}

// GPT-2 writes every byte as a printable character: those that are printable in Latin-1 as
// themselves, the others as U+0100 and up, in order.
struct ByteAlphabet {
  static constexpr size_t kEnd = 0x100 + 68;  // one past the highest stand-in
  std::array<uint16_t, 256> stand_in{};
  std::array<int16_t, kEnd> byte_of{};  // -1: not a stand-in

  constexpr ByteAlphabet() {
    for (auto& byte : byte_of) byte = -1;
    uint16_t next = 0x100;
    for (uint16_t byte = 0; byte < 256; ++byte) {
      const bool printable = (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) ||
                             (byte >= 0xAE && byte <= 0xFF);
      stand_in[byte] = printable ? byte : next++;
      byte_of[stand_in[byte]] = static_cast<int16_t>(byte);
    }
  }
};
constexpr ByteAlphabet kAlphabet;

// The bytes that a byte-level piece spells, or nothing if it is not written in the alphabet.
std::optional<std::string> spelled_bytes(std::string_view piece) {
  std::string bytes;
  while (!piece.empty()) {
    const Utf8Unit unit = next_utf8(piece);
    if (unit.state != Utf8State::kValid) return std::nullopt;
    const auto code_point = static_cast<size_t>(code_point_of(piece));
    if (code_point >= ByteAlphabet::kEnd || kAlphabet.byte_of[code_point] < 0) return std::nullopt;
    bytes += static_cast<char>(kAlphabet.byte_of[code_point]);
    piece.remove_prefix(unit.length);
  }
  return bytes;
}

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return -1;
}

// The byte that "<0x41>" names.
std::optional<uint8_t> named_byte(std::string_view piece) {
  if (piece.size() != 6 || !piece.starts_with("<0x") || piece[5] != '>') return std::nullopt;
  const int high = hex_digit(piece[3]);
  const int low = hex_digit(piece[4]);
  if (high < 0 || low < 0) return std::nullopt;
  return static_cast<uint8_t>(high * 16 + low);
}

std::string bytes_of_piece(std::string_view piece, TokenKind kind, TokenizerKind tokenizer) {
  if (kind == TokenKind::kControl) return {};
  if (kind == TokenKind::kUnknown) return std::string(kReplacement);
  if (kind == TokenKind::kByte) return {static_cast<char>(*named_byte(piece))};
  if (tokenizer == TokenizerKind::kSentencePiece) return replace_all(piece, kSpacePiece, " ");
  // User-defined pieces are plain text, and so is whatever the alphabet cannot have written.
  if (kind == TokenKind::kUserDefined) return std::string(piece);
  return spelled_bytes(piece).value_or(std::string(piece));
}

Status check_lists(const TokenizerSpec& spec) {
  const size_t count = spec.pieces.size();
  if (count == 0) {
    return fail(ErrorCode::kNotFound,
                "text: the model comes without a vocabulary (tokenizer.json, or tokenizer.ggml.* "
                "in a GGUF)");
  }
  if (count > static_cast<size_t>(std::numeric_limits<int32_t>::max())) {
    return corrupt("the vocabulary has " + std::to_string(count) + " pieces");
  }
  if (spec.kinds.size() != count) {
    return corrupt("the vocabulary has " + std::to_string(count) + " pieces but " +
                   std::to_string(spec.kinds.size()) + " token types");
  }
  for (const TokenKind kind : spec.kinds) {
    if (kind < TokenKind::kNormal || kind > TokenKind::kByte) {
      return corrupt("token type " + std::to_string(static_cast<int>(kind)) + " is not in 1..6");
    }
  }
  for (size_t id = 0; id < count; ++id) {
    // Found inside a text, any other spelling would cut characters in two.
    const bool is_verbatim = spec.kinds[id] == TokenKind::kControl ||
                             spec.kinds[id] == TokenKind::kUnknown ||
                             spec.kinds[id] == TokenKind::kUserDefined;
    if (is_verbatim && replace_invalid_utf8(spec.pieces[id]) != spec.pieces[id]) {
      return corrupt("the special token " + std::to_string(id) + " is not valid UTF-8");
    }
  }
  if (spec.kind == TokenizerKind::kSentencePiece && spec.merges.empty()) {
    if (spec.scores.size() != count) {
      return corrupt("the vocabulary has " + std::to_string(count) + " pieces but " +
                     std::to_string(spec.scores.size()) + " scores");
    }
    if (std::any_of(spec.scores.begin(), spec.scores.end(),
                    [](float s) { return std::isnan(s); })) {
      return corrupt("a score is not a number");
    }
  }
  return {};
}

Status check_ids(const TokenizerSpec& spec) {
  const auto count = static_cast<int64_t>(spec.pieces.size());
  const auto check = [&](const char* name, int32_t id, int32_t lowest) -> Status {
    if (id >= lowest && id < count) return {};
    return corrupt(std::string(name) + " id " + std::to_string(id) +
                   " is outside the vocabulary of " + std::to_string(count));
  };
  ISTHMUS_TRY(check("bos", spec.bos, -1));
  ISTHMUS_TRY(check("eos", spec.eos, -1));
  ISTHMUS_TRY(check("unknown", spec.unknown, -1));
  for (const int32_t id : spec.end_of_generation) ISTHMUS_TRY(check("end of generation", id, 0));
  return {};
}

}  // namespace

Result<Vocabulary> Vocabulary::make(const TokenizerSpec& spec) {
  ISTHMUS_TRY(check_lists(spec));
  ISTHMUS_TRY(check_ids(spec));
  Vocabulary vocabulary;
  vocabulary.ids_.reserve(spec.pieces.size());
  for (size_t id = 0; id < spec.pieces.size(); ++id) {
    vocabulary.ids_.emplace(spec.pieces[id], static_cast<int32_t>(id));
    vocabulary.is_text_.push_back(spec.kinds[id] == TokenKind::kNormal ||
                                  spec.kinds[id] == TokenKind::kUserDefined);
  }
  ISTHMUS_TRY(vocabulary.add_byte_pieces(spec));
  ISTHMUS_TRY(vocabulary.add_bytes(spec));
  return vocabulary;
}

Status Vocabulary::add_byte_pieces(const TokenizerSpec& spec) {
  byte_ids_.fill(-1);
  if (spec.kind == TokenizerKind::kByteBpe) {
    for (size_t byte = 0; byte < byte_ids_.size(); ++byte) {
      byte_ids_[byte] = find_byte_level(std::string(1, static_cast<char>(byte)));
    }
  }
  for (size_t id = 0; id < spec.pieces.size(); ++id) {
    if (spec.kinds[id] != TokenKind::kByte) continue;
    const auto byte = named_byte(spec.pieces[id]);
    if (!byte) {
      return corrupt("token " + std::to_string(id) + " is a byte but not written like <0x41>");
    }
    if (byte_ids_[*byte] < 0) byte_ids_[*byte] = static_cast<int32_t>(id);
  }
  return {};
}

Status Vocabulary::add_bytes(const TokenizerSpec& spec) {
  offsets_.reserve(spec.pieces.size() + 1);
  offsets_.push_back(0);
  for (size_t id = 0; id < spec.pieces.size(); ++id) {
    bytes_ += bytes_of_piece(spec.pieces[id], spec.kinds[id], spec.kind);
    if (bytes_.size() > std::numeric_limits<uint32_t>::max()) {
      return corrupt("the pieces of the vocabulary are longer than 4 GiB together");
    }
    offsets_.push_back(static_cast<uint32_t>(bytes_.size()));
  }
  return {};
}

int32_t Vocabulary::find(std::string_view piece) const {
  const auto found = ids_.find(piece);
  return found == ids_.end() ? -1 : found->second;
}

int32_t Vocabulary::find_text(std::string_view piece) const {
  const int32_t id = find(piece);
  return id >= 0 && is_text_[static_cast<size_t>(id)] ? id : -1;
}

int32_t Vocabulary::find_byte_level(std::string_view bytes) const {
  std::string piece;
  for (const char byte : bytes) append_utf8(piece, kAlphabet.stand_in[static_cast<uint8_t>(byte)]);
  return find_text(piece);
}

std::string_view Vocabulary::bytes_of(int32_t id) const {
  const auto index = static_cast<size_t>(id);
  if (id < 0 || index + 1 >= offsets_.size()) return {};
  return std::string_view(bytes_).substr(offsets_[index], offsets_[index + 1] - offsets_[index]);
}

}  // namespace isthmus::text
