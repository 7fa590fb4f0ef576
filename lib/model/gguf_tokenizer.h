// The tokenizer that a GGUF file carries in its metadata.
#pragma once

#include <isthmus/core/error.h>
#include <isthmus/text/tokenizer.h>

#include "gguf.h"

namespace isthmus::model::gguf {

/// An empty spec for a file without a vocabulary. \returns kCorrupt, kNotFound naming the key, or
/// kUnsupported naming the tokenizer.
[[nodiscard]] Result<text::TokenizerSpec> read_tokenizer(const Metadata& metadata);

}  // namespace isthmus::model::gguf
