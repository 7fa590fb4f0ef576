// What both readers of tokenizers share.
#pragma once

#include <isthmus/core/error.h>
#include <isthmus/text/tokenizer.h>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

namespace isthmus::model {

/// The two pieces of a merge written "left right". \returns kCorrupt.
[[nodiscard]] Result<std::pair<std::string, std::string>> split_merge(std::string_view merge);

/// Once pieces, kinds and ids are read: user-defined pieces that open or close a turn or a text
/// become control tokens, which what a user writes never becomes. Adds to `end_of_generation` the
/// control tokens that end a turn in the formats we know; files often name only one of the ids that
/// end a reply. `eos` is added too. No id is there twice after.
void settle_markers(text::TokenizerSpec& spec);

/// \returns kCorrupt for an id outside the vocabulary, or a vocabulary of more than `vocab_size`
/// pieces.
[[nodiscard]] Status check_vocabulary(const text::TokenizerSpec& spec, int32_t vocab_size);

}  // namespace isthmus::model
