#include "vocabulary.h"

#include <isthmus/text/chat.h>

#include <algorithm>
#include <array>
#include <string>
#include <string_view>

#include "quote.h"

namespace isthmus::model {
namespace {

constexpr std::array<std::string_view, 6> kEndMarkers = {
    "<|im_end|>", "<|endoftext|>", "<|end_of_text|>", "<|eot_id|>", "<|eom_id|>", "<end_of_turn>"};

bool marks_end(std::string_view piece) {
  return std::find(kEndMarkers.begin(), kEndMarkers.end(), piece) != kEndMarkers.end();
}

/// Makes control tokens of the user-defined pieces that open or close a turn or a text: some files
/// give them that kind, but what a user writes must never become one.
void protect_markers(text::TokenizerSpec& spec) {
  const auto& ends = spec.end_of_generation;
  for (size_t i = 0; i < spec.pieces.size(); ++i) {
    if (spec.kinds[i] != text::TokenKind::kUserDefined) continue;
    const auto id = static_cast<int32_t>(i);
    const std::string& piece = spec.pieces[i];
    if (id == spec.bos || id == spec.eos || marks_end(piece) || text::is_chat_marker(piece) ||
        std::find(ends.begin(), ends.end(), id) != ends.end()) {
      spec.kinds[i] = text::TokenKind::kControl;
    }
  }
}

Status check_id(const char* name, int32_t id, size_t pieces) {
  if (id >= -1 && (id == -1 || static_cast<size_t>(id) < pieces)) return {};
  return fail(ErrorCode::kCorrupt, std::string("model: the ") + name + " token " +
                                       std::to_string(id) + " is outside the vocabulary of " +
                                       std::to_string(pieces));
}

}  // namespace

Result<std::pair<std::string, std::string>> split_merge(std::string_view merge) {
  const size_t space = merge.empty() ? std::string_view::npos : merge.find(' ', 1);
  if (space == std::string_view::npos || space + 1 == merge.size()) {
    return fail(ErrorCode::kCorrupt,
                "model: the merge " + quote(merge) + " is not two pieces with a space between");
  }
  return std::pair(std::string(merge.substr(0, space)), std::string(merge.substr(space + 1)));
}

void settle_markers(text::TokenizerSpec& spec) {
  protect_markers(spec);
  auto& ids = spec.end_of_generation;
  if (spec.eos >= 0) ids.push_back(spec.eos);
  for (size_t i = 0; i < spec.pieces.size(); ++i) {
    if (spec.kinds[i] == text::TokenKind::kControl && marks_end(spec.pieces[i])) {
      ids.push_back(static_cast<int32_t>(i));
    }
  }
  std::sort(ids.begin(), ids.end());
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
}

Status check_vocabulary(const text::TokenizerSpec& spec, int32_t vocab_size) {
  const size_t pieces = spec.pieces.size();
  if (pieces > static_cast<size_t>(vocab_size)) {
    return fail(ErrorCode::kCorrupt, "model: the tokenizer has " + std::to_string(pieces) +
                                         " pieces but the model scores " +
                                         std::to_string(vocab_size));
  }
  ISTHMUS_TRY(check_id("bos", spec.bos, pieces));
  ISTHMUS_TRY(check_id("eos", spec.eos, pieces));
  ISTHMUS_TRY(check_id("unknown", spec.unknown, pieces));
  for (const int32_t id : spec.end_of_generation) {
    ISTHMUS_TRY(check_id("end-of-generation", id, pieces));
  }
  return {};
}

}  // namespace isthmus::model
