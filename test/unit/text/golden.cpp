#include "golden.h"

#include <fstream>

#include "support/catch.h"

namespace isthmus::text::test {

nlohmann::json golden_json(const std::string& name) {
  const std::string path = ISTHMUS_TEST_DATA "/text/" + name + ".json";
  std::ifstream in(path);
  if (!in) FAIL("cannot open " << path);
  return nlohmann::json::parse(in);
}

TokenizerSpec golden_spec(const std::string& name) {
  const nlohmann::json json = golden_json(name).at("spec");
  TokenizerSpec spec;
  spec.kind =
      json.at("kind") == "byte_bpe" ? TokenizerKind::kByteBpe : TokenizerKind::kSentencePiece;
  spec.pre_tokenizer = json.value("pre_tokenizer", "");
  json.at("pieces").get_to(spec.pieces);
  for (const int kind : json.at("kinds")) spec.kinds.push_back(static_cast<TokenKind>(kind));
  spec.scores = json.value("scores", std::vector<float>());
  spec.merges = json.value("merges", decltype(spec.merges)());
  spec.bos = json.value("bos", -1);
  spec.eos = json.value("eos", -1);
  spec.unknown = json.value("unknown", -1);
  json.at("end_of_generation").get_to(spec.end_of_generation);
  spec.add_bos = json.value("add_bos", false);
  spec.add_space_prefix = json.value("add_space_prefix", false);
  spec.normalize_nfc = json.value("normalize_nfc", false);
  spec.ignore_merges = json.value("ignore_merges", false);
  spec.chat_template = json.value("chat_template", "");
  return spec;
}

Tokenizer golden_tokenizer(const std::string& name) {
  return isthmus::test::value_of(Tokenizer::make(golden_spec(name)));
}

const std::vector<std::string>& golden_strings() {
  static const auto strings = golden_json("strings").get<std::vector<std::string>>();
  return strings;
}

}  // namespace isthmus::text::test
