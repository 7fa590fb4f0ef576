// tokenizer.json of a Hugging Face folder, with what tokenizer_config.json and config.json add.
#pragma once

#include <isthmus/core/error.h>
#include <isthmus/text/tokenizer.h>
#include <nlohmann/json.hpp>

namespace isthmus::model {

/// The documents a tokenizer is read from; the settings and the generation config may be empty
/// objects.
struct HfTokenizerFiles {
  nlohmann::json tokenizer;          ///< tokenizer.json: pieces, merges, how text is split
  nlohmann::json tokenizer_config;   ///< tokenizer_config.json: special pieces, chat template
  nlohmann::json config;             ///< config.json: vocab_size, special ids
  nlohmann::json generation_config;  ///< generation_config.json: ids that end a reply
};

/// \returns kCorrupt or kNotFound naming the member, or kUnsupported naming the kind of tokenizer.
[[nodiscard]] Result<text::TokenizerSpec> read_hf_tokenizer(const HfTokenizerFiles& files);

}  // namespace isthmus::model
