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

/// Makes control tokens of the user-defined pieces that open or close a turn or a text: some files
/// give them that kind, but what a user writes must never become one.
void protect_markers(text::TokenizerSpec& spec);

/// Adds to `end_of_generation` the control tokens that end a turn in the formats we know; files
/// often name only one of the ids that end a reply. `eos` is added too. No id is there twice after.
void collect_end_of_generation(text::TokenizerSpec& spec);

/// \returns kCorrupt for an id outside the vocabulary, or a vocabulary of more than `vocab_size`
/// pieces.
[[nodiscard]] Status check_vocabulary(const text::TokenizerSpec& spec, int32_t vocab_size);

}  // namespace isthmus::model
