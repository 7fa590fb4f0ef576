// A vocabulary's two directions: piece to id, and id to the bytes it stands for.
#pragma once

#include <isthmus/core/error.h>
#include <isthmus/text/tokenizer.h>
#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace isthmus::text {

inline constexpr std::string_view kSpacePiece = "\xE2\x96\x81";  // U+2581 stands for a space

/// Borrows the pieces of the TokenizerSpec that it was made from, which must not move.
class Vocabulary {
 public:
  Vocabulary() = default;
  /// Checks that the spec's lists and ids agree with each other, merges aside.
  /// \returns kNotFound when there are no pieces, kCorrupt naming what does not.
  [[nodiscard]] static Result<Vocabulary> make(const TokenizerSpec& spec);

  /// The lowest id with this piece, or -1.
  [[nodiscard]] int32_t find(std::string_view piece) const;
  /// The same, but only for a piece that ordinary text may become: normal or user-defined.
  [[nodiscard]] int32_t find_text(std::string_view piece) const;
  /// The same for a piece given as the bytes that it spells in GPT-2's alphabet.
  [[nodiscard]] int32_t find_byte_level(std::string_view bytes) const;
  /// The id that stands for one byte (its GPT-2 stand-in, or "<0x41>"), or -1.
  [[nodiscard]] int32_t byte_id(uint8_t byte) const { return byte_ids_[byte]; }
  /// Empty for control tokens and ids outside the vocabulary; U+FFFD for the unknown token.
  [[nodiscard]] std::string_view bytes_of(int32_t id) const;

 private:
  [[nodiscard]] Status add_byte_pieces(const TokenizerSpec& spec);
  [[nodiscard]] Status add_bytes(const TokenizerSpec& spec);

  std::unordered_map<std::string_view, int32_t> ids_;
  std::vector<bool> is_text_;  // [V]
  std::array<int32_t, 256> byte_ids_{};
  std::string bytes_;              // of all ids, one behind the other
  std::vector<uint32_t> offsets_;  // [V + 1] into bytes_
};

}  // namespace isthmus::text
