#include "hf_tokenizer.h"

#include <string>
#include <utility>
#include <vector>

#include "hf_files.h"
#include "support/catch.h"

namespace isthmus::model {
namespace {

using nlohmann::json;
using test::tiny_hf_config;
using test::tiny_hf_tokenizer;
using test::value_of;
using text::TokenizerKind;
using text::TokenizerSpec;
using text::TokenKind;
using Merges = std::vector<std::pair<std::string, std::string>>;

// The cuts of Llama 3 and Qwen 2, which differ in how many digits stay together.
std::string gpt4_style_regex(const std::string& digits) {
  return R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|)" + digits +
         R"(| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
}

json sequence(const char* key, const json& steps) {
  return {{"type", "Sequence"}, {key, steps}};
}

json byte_level(bool use_regex) {
  return {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", use_regex}};
}

json split(const std::string& regex) {
  return {{"type", "Split"},
          {"pattern", {{"Regex", regex}}},
          {"behavior", "Isolated"},
          {"invert", false}};
}

Result<TokenizerSpec> read(const json& tokenizer, const json& settings = json::object(),
                           const json& generation = json::object()) {
  return read_hf_tokenizer({tokenizer, settings, tiny_hf_config(), generation});
}

// tokenizer.json as files converted from SentencePiece have it.
json tiny_sentence_piece() {
  json tokenizer = tiny_hf_tokenizer();
  tokenizer["pre_tokenizer"] = nullptr;
  tokenizer["normalizer"] =
      sequence("normalizers",
               {{{"type", "Prepend"}, {"prepend", "\u2581"}},
                {{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", "\u2581"}}});
  tokenizer["added_tokens"][0]["content"] = "<unk>";
  tokenizer["model"]["unk_token"] = "<unk>";
  tokenizer["model"]["byte_fallback"] = true;
  tokenizer["model"]["vocab"] = {{"<unk>", 0},  {"<s>", 1}, {"</s>", 2},
                                 {"<0x41>", 3}, {"b", 4},   {"\u2581b", 5}};
  tokenizer["model"]["merges"] = {"\u2581 b"};
  return tokenizer;
}

TEST_CASE("a byte-level tokenizer reads with its specials", "[model][hf][tokenizer]") {
  const TokenizerSpec spec = value_of(read(tiny_hf_tokenizer()));
  CHECK(spec.kind == TokenizerKind::kByteBpe);
  CHECK(spec.pre_tokenizer == "gpt2");
  CHECK(spec.pieces == std::vector<std::string>{"<|endoftext|>", "<s>", "</s>", "a", "b", "ab"});
  CHECK(spec.kinds == std::vector<TokenKind>{TokenKind::kControl, TokenKind::kControl,
                                             TokenKind::kControl, TokenKind::kNormal,
                                             TokenKind::kNormal, TokenKind::kNormal});
  CHECK(spec.merges == Merges{{"a", "b"}});
  CHECK(spec.bos == 1);
  CHECK(spec.eos == 2);
  CHECK(spec.unknown == -1);
  CHECK(spec.end_of_generation == std::vector<int32_t>{0, 2});
  CHECK_FALSE(spec.add_bos);
  CHECK_FALSE(spec.ignore_merges);
  CHECK_FALSE(spec.normalize_nfc);
}

TEST_CASE("pre-tokenizers are recognised by what they do", "[model][hf][tokenizer]") {
  json tokenizer = tiny_hf_tokenizer();
  const json digits = {{"type", "Digits"}, {"individual_digits", true}};
  const auto name = [&](const json& pre_tokenizer) {
    tokenizer["pre_tokenizer"] = pre_tokenizer;
    return value_of(read(tokenizer)).pre_tokenizer;
  };
  const auto steps = [](const json& list) { return sequence("pretokenizers", list); };
  CHECK(name(byte_level(true)) == "gpt2");
  CHECK(name(steps({digits, byte_level(true)})) == "smollm");
  CHECK(name(steps({split(gpt4_style_regex(R"(\p{N}{1,3})")), byte_level(false)})) == "llama-bpe");
  CHECK(name(steps({split(gpt4_style_regex(R"(\p{N})")), byte_level(false)})) == "qwen2");
}

TEST_CASE("an unknown pre-tokenizer, normalizer or model is named", "[model][hf][tokenizer]") {
  struct Case {
    std::string member;
    json value;
    std::string named;
  };
  const auto steps = [](const json& list) { return sequence("pretokenizers", list); };
  const json prefixed = {{"type", "ByteLevel"}, {"add_prefix_space", true}};
  for (const Case& unknown : std::vector<Case>{
           {"pre_tokenizer", nullptr, "pre-tokenizer ''"},
           {"pre_tokenizer", byte_level(false), "'ByteLevel'"},
           {"pre_tokenizer", prefixed, "a space in front"},
           {"pre_tokenizer", {{"type", "Whitespace"}}, "'Whitespace'"},
           {"pre_tokenizer", steps({split("\\w+"), byte_level(false)}), "Split \\w+"},
           {"pre_tokenizer", steps({{{"type", "Digits"}}, byte_level(true)}), "'Digits, "},
           {"normalizer", {{"type", "Lowercase"}}, "'Lowercase'"},
           {"model", {{"type", "Unigram"}, {"vocab", json::array()}}, "'Unigram'"},
       }) {
    CAPTURE(unknown.named);
    json tokenizer = tiny_hf_tokenizer();
    tokenizer[unknown.member] = unknown.value;
    const auto result = read(tokenizer);
    CHECK_FAILS_WITH(result, ErrorCode::kUnsupported);
    CAPTURE(result.error().message);
    CHECK(result.error().message.find(unknown.named) != std::string::npos);
  }
}

TEST_CASE("merges, normalizer and added pieces read in all their forms", "[model][hf][tokenizer]") {
  json tokenizer = tiny_hf_tokenizer();
  tokenizer["model"]["merges"] = json::array({json::array({"a", "b"})});
  tokenizer["model"]["ignore_merges"] = true;
  tokenizer["normalizer"] = sequence("normalizers", {{{"type", "NFC"}}});
  tokenizer["added_tokens"].push_back({{"id", 8}, {"content", "<tool>"}, {"special", false}});
  json config = tiny_hf_config();
  config["vocab_size"] = 12;
  const TokenizerSpec spec =
      value_of(read_hf_tokenizer({tokenizer, json::object(), config, json::object()}));
  CHECK(spec.merges == Merges{{"a", "b"}});
  CHECK(spec.ignore_merges);
  CHECK(spec.normalize_nfc);
  REQUIRE(spec.pieces.size() == 9);
  CHECK(spec.pieces[8] == "<tool>");
  CHECK(spec.kinds[8] == TokenKind::kUserDefined);
  CHECK(spec.kinds[6] == TokenKind::kUnused);
  CHECK(spec.pieces[6] != spec.pieces[7]);
}

TEST_CASE("chat markers and ends that are not called special are control tokens",
          "[model][hf][tokenizer]") {
  json tokenizer = tiny_hf_tokenizer();
  const std::vector<std::string> pieces = {"<start_of_turn>", "<end_of_turn>", "<tool>", "<stop>"};
  for (size_t i = 0; i < pieces.size(); ++i) {
    tokenizer["added_tokens"].push_back(
        {{"id", 6 + i}, {"content", pieces[i]}, {"special", false}});
  }
  json config = tiny_hf_config();
  config["vocab_size"] = 12;
  const TokenizerSpec spec =
      value_of(read_hf_tokenizer({tokenizer, json::object(), config, {{"eos_token_id", {2, 9}}}}));
  CHECK(spec.kinds[6] == TokenKind::kControl);
  CHECK(spec.kinds[7] == TokenKind::kControl);
  CHECK(spec.kinds[8] == TokenKind::kUserDefined);
  CHECK(spec.kinds[9] == TokenKind::kControl);
  CHECK(spec.end_of_generation == std::vector<int32_t>{0, 2, 7, 9});
}

TEST_CASE("added pieces without a row in the model are left out", "[model][hf][tokenizer]") {
  json tokenizer = tiny_hf_tokenizer();
  tokenizer["added_tokens"].push_back({{"id", 6}, {"content", "<image>"}, {"special", true}});
  CHECK(value_of(read(tokenizer)).pieces.size() == 6);
}

TEST_CASE("bos goes in front when the template or the settings say so", "[model][hf][tokenizer]") {
  json tokenizer = tiny_hf_tokenizer();
  const json bos_first = {
      {"type", "TemplateProcessing"},
      {"single", {{{"SpecialToken", {{"id", "<s>"}}}}, {{"Sequence", {{"id", "A"}}}}}}};
  tokenizer["post_processor"] = sequence("processors", {byte_level(true), bos_first});
  CHECK(value_of(read(tokenizer)).add_bos);
  CHECK_FALSE(value_of(read(tokenizer, {{"add_bos_token", false}})).add_bos);
  CHECK(value_of(read(tiny_hf_tokenizer(), {{"add_bos_token", true}})).add_bos);
}

TEST_CASE("special pieces come from the settings, then from the config", "[model][hf][tokenizer]") {
  const json settings = {{"bos_token", {{"content", "</s>"}}},
                         {"eos_token", "<|endoftext|>"},
                         {"unk_token", nullptr},
                         {"chat_template", "{{ messages }}"}};
  const TokenizerSpec spec =
      value_of(read(tiny_hf_tokenizer(), settings, {{"eos_token_id", {2, 5}}}));
  CHECK(spec.bos == 2);
  CHECK(spec.eos == 0);
  CHECK(spec.end_of_generation == std::vector<int32_t>{0, 2, 5});
  CHECK(spec.chat_template == "{{ messages }}");
  const json named = {
      {"chat_template",
       {{{"name", "tool_use"}, {"template", "t"}}, {{"name", "default"}, {"template", "d"}}}}};
  CHECK(value_of(read(tiny_hf_tokenizer(), named)).chat_template == "d");
}

TEST_CASE("a SentencePiece-style tokenizer reads with its space marks", "[model][hf][tokenizer]") {
  json tokenizer = tiny_sentence_piece();
  const TokenizerSpec spec = value_of(read(tokenizer, {{"unk_token", "<unk>"}}));
  CHECK(spec.kind == TokenizerKind::kSentencePiece);
  CHECK(spec.add_space_prefix);
  CHECK(spec.unknown == 0);
  CHECK(spec.kinds[0] == TokenKind::kUnknown);
  CHECK(spec.kinds[1] == TokenKind::kControl);
  CHECK(spec.kinds[3] == TokenKind::kByte);
  CHECK(spec.merges == Merges{{"\u2581", "b"}});

  SECTION("Gemma puts no space in front") {
    tokenizer["normalizer"] = tokenizer["normalizer"]["normalizers"][1];
    tokenizer["pre_tokenizer"] = {{"type", "Split"},
                                  {"pattern", {{"String", " "}}},
                                  {"behavior", "MergedWithPrevious"},
                                  {"invert", false}};
    CHECK_FALSE(value_of(read(tokenizer)).add_space_prefix);
  }
  SECTION("newer files do it in the pre-tokenizer") {
    tokenizer["normalizer"] = nullptr;
    tokenizer["pre_tokenizer"] = {{"type", "Metaspace"}, {"prepend_scheme", "first"}};
    CHECK(value_of(read(tokenizer)).add_space_prefix);
    tokenizer["pre_tokenizer"]["prepend_scheme"] = "never";
    CHECK_FALSE(value_of(read(tokenizer)).add_space_prefix);
  }
  SECTION("any other normalizer is named") {
    tokenizer["normalizer"] = {{"type", "NFKC"}};
    CHECK_FAILS_WITH(read(tokenizer), ErrorCode::kUnsupported);
  }
}

TEST_CASE("a broken tokenizer.json is refused by name", "[model][hf][tokenizer][broken]") {
  struct Case {
    std::string pointer;  // JSON pointer of the member that is replaced
    json value;
    ErrorCode code;
    std::string named;
  };
  for (const Case& broken : std::vector<Case>{
           {"/model", nullptr, ErrorCode::kNotFound, "'model'"},
           {"/model", json::array(), ErrorCode::kCorrupt, "'model'"},
           {"/model/type", 3, ErrorCode::kCorrupt, "'type'"},
           {"/model/vocab", nullptr, ErrorCode::kNotFound, "'vocab'"},
           {"/model/vocab", json::array(), ErrorCode::kCorrupt, "'vocab'"},
           {"/model/vocab/a", "3", ErrorCode::kCorrupt, "'a'"},
           {"/model/vocab/a", -3, ErrorCode::kCorrupt, "negative"},
           {"/model/vocab/a", 4, ErrorCode::kCorrupt, "twice"},
           {"/model/vocab/a", 1 << 30, ErrorCode::kCorrupt, "holes"},
           {"/model/vocab/a", 1ULL << 40U, ErrorCode::kCorrupt, "'a'"},
           {"/model/merges", "a b", ErrorCode::kCorrupt, "'merges'"},
           {"/model/merges/0", "ab", ErrorCode::kCorrupt, "'ab'"},
           {"/model/merges/0", 3, ErrorCode::kCorrupt, "merge"},
           {"/model/merges/0", json::array({"a"}), ErrorCode::kCorrupt, "merge"},
           {"/model/merges/0", json::array({"a", 3}), ErrorCode::kCorrupt, "merge"},
           {"/model/byte_fallback", "yes", ErrorCode::kCorrupt, "byte_fallback"},
           {"/added_tokens", 3, ErrorCode::kCorrupt, "added_tokens"},
           {"/added_tokens/0", 3, ErrorCode::kCorrupt, "added_tokens"},
           {"/added_tokens/0/id", nullptr, ErrorCode::kNotFound, "'id'"},
           {"/added_tokens/0/id", -1, ErrorCode::kCorrupt, "negative"},
           {"/added_tokens/0/content", 3, ErrorCode::kCorrupt, "'content'"},
           {"/pre_tokenizer", "ByteLevel", ErrorCode::kCorrupt, "pre_tokenizer"},
           {"/pre_tokenizer/type", nullptr, ErrorCode::kNotFound, "'type'"},
           {"/pre_tokenizer/use_regex", 1, ErrorCode::kCorrupt, "use_regex"},
           {"/normalizer", 3, ErrorCode::kCorrupt, "normalizer"},
           {"/post_processor", 3, ErrorCode::kCorrupt, "post_processor"},
       }) {
    CAPTURE(broken.pointer, broken.value.dump());
    json tokenizer = tiny_hf_tokenizer();
    tokenizer[json::json_pointer(broken.pointer)] = broken.value;
    const auto result = read(tokenizer);
    CHECK_FAILS_WITH(result, broken.code);
    CAPTURE(result.error().message);
    CHECK(result.error().message.find(broken.named) != std::string::npos);
  }
  CHECK_FAILS_WITH(read(tiny_hf_tokenizer(), {{"bos_token", 3}}), ErrorCode::kCorrupt);
  CHECK_FAILS_WITH(read(tiny_hf_tokenizer(), {{"chat_template", 3}}), ErrorCode::kCorrupt);
  CHECK_FAILS_WITH(read(tiny_hf_tokenizer(), {{"chat_template", {3}}}), ErrorCode::kCorrupt);
  CHECK_FAILS_WITH(read(tiny_hf_tokenizer(), {}, {{"eos_token_id", {1, -1}}}), ErrorCode::kCorrupt);
  CHECK_FAILS_WITH(read(tiny_hf_tokenizer(), {}, {{"eos_token_id", "2"}}), ErrorCode::kCorrupt);
}

}  // namespace
}  // namespace isthmus::model
