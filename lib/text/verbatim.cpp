#include "verbatim.h"

#include <algorithm>

namespace isthmus::text {

VerbatimTokens::VerbatimTokens(std::vector<Token> tokens) : sorted_(std::move(tokens)) {
  std::erase_if(sorted_, [](const Token& token) { return token.text.empty(); });
  // Of equal spellings the lowest id is kept first, and found.
  std::sort(sorted_.begin(), sorted_.end(), [](const Token& a, const Token& b) {
    return a.text != b.text ? a.text < b.text : a.id < b.id;
  });
  for (const Token& token : sorted_) starts_[static_cast<uint8_t>(token.text.front())] = true;
}

VerbatimTokens::Match VerbatimTokens::find(std::string_view text, size_t from) const {
  for (size_t at = from; at < text.size(); ++at) {
    if (!starts_[static_cast<uint8_t>(text[at])]) continue;
    if (const Token* token = longest_at(text.substr(at)))
      return {at, token->text.size(), token->id};
  }
  return {text.size(), 0, -1};
}

// Narrows the sorted tokens to those that share ever longer prefixes with `text`.
const VerbatimTokens::Token* VerbatimTokens::longest_at(std::string_view text) const {
  const Token* best = nullptr;
  auto begin = sorted_.begin();
  auto end = sorted_.end();
  for (size_t depth = 0; depth < text.size() && begin != end; ++depth) {
    const auto byte_at = [&](const Token& token) {
      return token.text.size() > depth ? static_cast<int>(static_cast<uint8_t>(token.text[depth]))
                                       : -1;
    };
    const int wanted = static_cast<uint8_t>(text[depth]);
    begin = std::partition_point(begin, end, [&](const Token& t) { return byte_at(t) < wanted; });
    end = std::partition_point(begin, end, [&](const Token& t) { return byte_at(t) <= wanted; });
    if (begin != end && begin->text.size() == depth + 1) best = &*begin;
  }
  return best;
}

}  // namespace isthmus::text
