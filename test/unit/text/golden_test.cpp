// Token ids equal to those of Hugging Face tokenizers and of SentencePiece.
#include "golden.h"
#include "support/catch.h"

namespace isthmus::text::test {
namespace {

constexpr const char* kVocabularies[] = {"gpt2",          "smollm",        "llama3",
                                         "qwen2",         "llama2_scores", "unknown_scores",
                                         "llama2_merges", "gemma_merges"};

TEST_CASE("every golden string gets the reference's ids", "[text][golden]") {
  REQUIRE(golden_strings().size() >= 2000);
  const std::string name = GENERATE(from_range(std::begin(kVocabularies), std::end(kVocabularies)));
  CAPTURE(name);
  const Tokenizer tokenizer = golden_tokenizer(name);
  const auto ids = golden_json(name).at("ids").get<std::vector<std::vector<int32_t>>>();
  REQUIRE(ids.size() == golden_strings().size());
  for (size_t i = 0; i < ids.size(); ++i) {
    CAPTURE(i, golden_strings()[i]);
    CHECK(tokenizer.encode(golden_strings()[i]) == ids[i]);
  }
}

TEST_CASE("control tokens are recognised where they are asked for", "[text][golden]") {
  const std::string name =
      GENERATE("gpt2", "smollm", "llama3", "qwen2", "llama2_merges", "gemma_merges");
  CAPTURE(name);
  const Tokenizer tokenizer = golden_tokenizer(name);
  const nlohmann::json cases = golden_json(name).at("special_ids");
  REQUIRE_FALSE(cases.empty());
  for (const auto& item : cases) {
    const std::string& text = golden_strings()[item.at(0).get<size_t>()];
    CAPTURE(text);
    CHECK(tokenizer.encode(text, {.parse_special = true}) ==
          item.at(1).get<std::vector<int32_t>>());
  }
}

TEST_CASE("decoding gives the text back", "[text][golden]") {
  // The other vocabularies lose something on the way: bytes without a piece, unknown characters,
  // other normal forms.
  const std::string name =
      GENERATE("gpt2", "llama3", "llama2_scores", "llama2_merges", "gemma_merges");
  CAPTURE(name);
  const Tokenizer tokenizer = golden_tokenizer(name);
  for (const std::string& text : golden_strings()) {
    // SentencePiece cannot tell U+2581 from a space.
    if (text.find("\u2581") != std::string::npos) continue;
    CHECK(tokenizer.decode(tokenizer.encode(text)) == text);
  }
}

TEST_CASE("invalid UTF-8 is replaced as Python replaces it", "[text][utf8]") {
  const auto from_hex = [](const std::string& hex) {
    std::string bytes;
    for (size_t i = 0; i < hex.size(); i += 2) {
      bytes += static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16));
    }
    return bytes;
  };
  const Tokenizer tokenizer = golden_tokenizer("gpt2");
  for (const auto& item : golden_json("invalid_utf8")) {
    const std::string bytes = from_hex(item.at(0));
    const std::string replaced = item.at(1);
    CAPTURE(item.at(0).get<std::string>());
    CHECK(replace_invalid_utf8(bytes) == replaced);
    CHECK(tokenizer.encode(bytes) == tokenizer.encode(replaced));
  }
}

}  // namespace
}  // namespace isthmus::text::test
