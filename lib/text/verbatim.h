// Tokens that are recognised by their exact spelling before any other rule: control tokens and
// user-defined ones.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

namespace isthmus::text {

class VerbatimTokens {
 public:
  struct Token {
    std::string_view text;  ///< not owned; empty ones are ignored
    int32_t id = -1;
  };
  struct Match {
    size_t begin = 0;  ///< the text's length if there is none
    size_t length = 0;
    int32_t id = -1;
  };

  VerbatimTokens() = default;
  explicit VerbatimTokens(std::vector<Token> tokens);

  /// The leftmost token in `text` at or behind `from`; of several that start there, the longest.
  [[nodiscard]] Match find(std::string_view text, size_t from) const;

 private:
  [[nodiscard]] const Token* longest_at(std::string_view text) const;

  std::vector<Token> sorted_;
  std::array<bool, 256> starts_{};  // by first byte
};

}  // namespace isthmus::text
