// The vocabularies and token ids that tools/refgen/text_goldens.py wrote.
#pragma once

#include <isthmus/text/tokenizer.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace isthmus::text::test {

/// test/data/text/NAME.json; fails the test if it cannot be read.
nlohmann::json golden_json(const std::string& name);

/// The vocabulary of test/data/text/NAME.json.
TokenizerSpec golden_spec(const std::string& name);
Tokenizer golden_tokenizer(const std::string& name);

/// Every string that has golden ids.
const std::vector<std::string>& golden_strings();

}  // namespace isthmus::text::test
