#include <isthmus/text/tokenizer.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>
#include <random>

#include "golden.h"
#include "support/catch.h"

namespace isthmus::text::test {
namespace {

using isthmus::test::value_of;
using Ids = std::vector<int32_t>;

constexpr const char* kReplacement = "\xEF\xBF\xBD";

// "<unk>", then one piece per character of `characters`, then `pieces`.
TokenizerSpec small_sentence_piece(std::vector<std::string> pieces) {
  TokenizerSpec spec;
  spec.kind = TokenizerKind::kSentencePiece;
  spec.pieces = std::move(pieces);
  spec.pieces.insert(spec.pieces.begin(), "<unk>");
  spec.kinds.assign(spec.pieces.size(), TokenKind::kNormal);
  spec.kinds[0] = TokenKind::kUnknown;
  spec.scores.assign(spec.pieces.size(), 0);
  spec.unknown = 0;
  return spec;
}

TokenizerSpec small_byte_bpe() {
  TokenizerSpec spec;
  spec.pre_tokenizer = "gpt2";
  spec.pieces = {"a", "b", "c", "ab", "abc"};
  spec.kinds.assign(spec.pieces.size(), TokenKind::kNormal);
  spec.merges = {{"a", "b"}, {"ab", "c"}};
  return spec;
}

std::string streamed(const Tokenizer& tokenizer, const Ids& ids, TextStart start) {
  StreamDecoder decoder(tokenizer, start);
  std::string text;
  for (const int32_t id : ids) text += decoder.push(id);
  return text + decoder.finish();
}

TEST_CASE("a vocabulary that contradicts itself is refused", "[text][tokenizer]") {
  struct Case {
    const char* what;
    void (*breaks)(TokenizerSpec&);
  };
  const auto item = GENERATE(
      Case{"fewer kinds", [](TokenizerSpec& s) { s.kinds.pop_back(); }},
      Case{"more kinds", [](TokenizerSpec& s) { s.kinds.push_back(TokenKind::kNormal); }},
      Case{"kind 0", [](TokenizerSpec& s) { s.kinds[1] = static_cast<TokenKind>(0); }},
      Case{"kind 7", [](TokenizerSpec& s) { s.kinds[1] = static_cast<TokenKind>(7); }},
      Case{"fewer scores", [](TokenizerSpec& s) { s.scores.pop_back(); }},
      Case{"no scores", [](TokenizerSpec& s) { s.scores.clear(); }},
      Case{"NaN", [](TokenizerSpec& s) { s.scores[1] = std::nanf(""); }},
      Case{"bos", [](TokenizerSpec& s) { s.bos = 4; }},
      Case{"negative bos", [](TokenizerSpec& s) { s.bos = -2; }},
      Case{"eos", [](TokenizerSpec& s) { s.eos = std::numeric_limits<int32_t>::max(); }},
      Case{"unknown", [](TokenizerSpec& s) { s.unknown = 4; }},
      Case{"end",
           [](TokenizerSpec& s) {
             s.end_of_generation = {0, 4};
           }},
      Case{"negative end", [](TokenizerSpec& s) { s.end_of_generation = {-1}; }},
      Case{"control token in half a character",
           [](TokenizerSpec& s) { s.kinds[1] = TokenKind::kControl, s.pieces[1].back() = '\x9F'; }},
      Case{"user-defined token in half a character",
           [](TokenizerSpec& s) {
             s.kinds[1] = TokenKind::kUserDefined, s.pieces[1].back() = '\xF0';
           }},
      Case{"byte", [](TokenizerSpec& s) { s.kinds[1] = TokenKind::kByte; }},
      Case{"left of a merge",
           [](TokenizerSpec& s) {
             s.merges = {{"z", "b"}};
           }},
      Case{"right of a merge",
           [](TokenizerSpec& s) {
             s.merges = {{"a", "z"}};
           }},
      Case{"result of a merge", [](TokenizerSpec& s) {
             s.merges = {{"b", "a"}};
           }});
  CAPTURE(item.what);
  TokenizerSpec spec = small_sentence_piece({"a", "b", "ab"});
  CHECK(Tokenizer::make(spec).has_value());
  item.breaks(spec);
  CHECK_FAILS_WITH(Tokenizer::make(spec), ErrorCode::kCorrupt);
}

TEST_CASE("a model without a vocabulary is told so", "[text][tokenizer]") {
  const auto tokenizer = Tokenizer::make({});
  CHECK_FAILS_WITH(tokenizer, ErrorCode::kNotFound);
  CHECK(tokenizer.error().message ==
        "text: the model comes without a vocabulary (tokenizer.json, or tokenizer.ggml.* in a "
        "GGUF)");
}

TEST_CASE("an unknown pre-tokenizer is named", "[text][tokenizer]") {
  TokenizerSpec spec = small_byte_bpe();
  spec.pre_tokenizer = "tekken";
  CHECK_FAILS_WITH(Tokenizer::make(spec), ErrorCode::kUnsupported);
  CHECK(Tokenizer::make(spec).error().message ==
        "text: unknown pre-tokenizer 'tekken' (known: gpt2, smollm, llama-bpe, qwen2)");
}

TEST_CASE("ids outside the vocabulary and control tokens print nothing", "[text][tokenizer]") {
  const Tokenizer tokenizer = golden_tokenizer("smollm");
  const auto size = static_cast<int32_t>(tokenizer.vocab_size());
  for (const int32_t id : {-1, std::numeric_limits<int32_t>::min(), size,
                           std::numeric_limits<int32_t>::max(), tokenizer.spec().eos}) {
    CHECK(tokenizer.bytes_of(id).empty());
  }
  CHECK(tokenizer.find("<|im_end|>") == tokenizer.spec().eos);
  CHECK(tokenizer.find("no such piece") == -1);
  CHECK(tokenizer.ends_generation(tokenizer.spec().eos));
  CHECK_FALSE(tokenizer.ends_generation(-1));
}

TEST_CASE("bos is put in front only where asked for and known", "[text][tokenizer]") {
  const Tokenizer with = golden_tokenizer("llama3");
  CHECK(with.encode("", {.add_bos = true}) == Ids{with.spec().bos});
  CHECK(with.encode("").empty());
  CHECK(golden_tokenizer("qwen2").encode("", {.add_bos = true}).empty());
}

TEST_CASE("ordinary text never becomes a control token, whatever the merges say",
          "[text][tokenizer]") {
  TokenizerSpec spec = small_byte_bpe();
  spec.kinds[4] = TokenKind::kControl;  // "abc", which a merge spells
  spec.ignore_merges = GENERATE(false, true);
  const Tokenizer tokenizer = value_of(Tokenizer::make(spec));
  CHECK(tokenizer.encode("abc") == Ids{3, 2});
  CHECK(tokenizer.encode("abc", {.parse_special = true}) == Ids{4});
}

TEST_CASE("of the tokens that start at one place the longest is taken", "[text][tokenizer]") {
  TokenizerSpec spec = small_byte_bpe();
  for (const char* piece : {"<x", "<x>", "<x>y>", "", "b<"}) {
    spec.pieces.emplace_back(piece);
    spec.kinds.push_back(TokenKind::kUserDefined);
  }
  const Tokenizer tokenizer = value_of(Tokenizer::make(spec));
  CHECK(tokenizer.encode("a<x>yc<x<x>y>") == Ids{0, 6, 2, 5, 7});
  CHECK(tokenizer.encode("ab<x") == Ids{0, 9});  // the leftmost wins over the longer one behind it
  CHECK(tokenizer.decode(Ids{6, 0, 7}) == "<x>a<x>y>");
}

TEST_CASE("a byte without a piece is left out", "[text][tokenizer]") {
  const Tokenizer tokenizer = value_of(Tokenizer::make(small_byte_bpe()));
  CHECK(tokenizer.encode("azb") == Ids{3});  // as in Hugging Face's, its neighbours meet
  CHECK(tokenizer.encode("z").empty());
}

TEST_CASE("characters without a piece become bytes or one unknown token", "[text][tokenizer]") {
  TokenizerSpec spec = small_sentence_piece({"a", "b"});
  const Tokenizer without = value_of(Tokenizer::make(spec));
  CHECK(without.encode("aéébz") == Ids{1, 0, 2, 0});
  CHECK(without.decode(Ids{1, 0, 2}) == "a" + std::string(kReplacement) + "b");
  for (const char* piece : {"<0xC3>", "<0xa9>"}) {
    spec.pieces.emplace_back(piece);
    spec.kinds.push_back(TokenKind::kByte);
    spec.scores.push_back(0);
  }
  const Tokenizer with = value_of(Tokenizer::make(spec));
  CHECK(with.encode("aéz") == Ids{1, 3, 4, 0});  // z has no byte piece
  CHECK(with.decode(Ids{1, 3, 4}) == "aé");
  spec.unknown = -1;
  CHECK(value_of(Tokenizer::make(spec)).encode("az") == Ids{1});
}

TEST_CASE("the space prefix is put in front and taken away again", "[text][tokenizer]") {
  const Tokenizer tokenizer = golden_tokenizer("llama2_scores");
  const Ids hello = tokenizer.encode("hello");
  CHECK(tokenizer.bytes_of(hello.front()).starts_with(" "));
  CHECK(tokenizer.decode(hello) == "hello");
  CHECK(streamed(tokenizer, hello, TextStart::kBeginning) == "hello");
  CHECK(streamed(tokenizer, hello, TextStart::kContinuation) == " hello");
  // Exactly one space, wherever the first visible piece is.
  Ids two = tokenizer.encode("  hello");
  two.insert(two.begin(), tokenizer.spec().bos);
  CHECK(tokenizer.decode(two) == "  hello");
  // Vocabularies without the prefix keep every space.
  const Tokenizer other = golden_tokenizer("gemma_merges");
  CHECK(other.decode(other.encode(" hello")) == " hello");
}

TEST_CASE("streaming never splits a character and prints what decode prints", "[text][stream]") {
  const std::string name =
      GENERATE("gpt2", "smollm", "llama2_scores", "unknown_scores", "gemma_merges");
  CAPTURE(name);
  const Tokenizer tokenizer = golden_tokenizer(name);
  std::mt19937 random(7);
  std::uniform_int_distribution<int32_t> any_id(-1, static_cast<int32_t>(tokenizer.vocab_size()));
  for (int round = 0; round < 500; ++round) {
    Ids ids(12);
    for (int32_t& id : ids) id = any_id(random);
    StreamDecoder decoder(tokenizer);
    std::string text;
    for (const int32_t id : ids) {
      const std::string part = decoder.push(id);
      CHECK(replace_invalid_utf8(part) == part);
      text += part;
    }
    const std::string rest = decoder.finish();
    CHECK(replace_invalid_utf8(rest) == rest);
    CHECK(tokenizer.decode(ids) == text + rest);
  }
}

TEST_CASE("an unfinished character waits, and ends as one replacement", "[text][stream]") {
  const Tokenizer tokenizer = golden_tokenizer("llama2_scores");
  const auto byte = [&](const char* piece) {
    const int32_t id = tokenizer.find(piece);
    REQUIRE(id >= 0);
    return id;
  };
  const int32_t smile[] = {byte("<0xF0>"), byte("<0x9F>"), byte("<0x98>"), byte("<0x80>")};
  StreamDecoder decoder(tokenizer);
  CHECK(decoder.push(smile[0]).empty());
  CHECK(decoder.push(smile[1]).empty());
  CHECK(decoder.push(smile[2]).empty());
  CHECK(decoder.push(smile[3]) == "😀");
  CHECK(decoder.finish().empty());

  CHECK(decoder.push(smile[0]).empty());
  CHECK(decoder.push(smile[1]).empty());
  CHECK(decoder.push(tokenizer.find("a")) == std::string(kReplacement) + "a");
  CHECK(decoder.push(smile[3]) == kReplacement);
  CHECK(decoder.push(smile[0]).empty());
  CHECK(decoder.finish() == kReplacement);
  CHECK(decoder.finish().empty());
}

TEST_CASE("a tokenizer can be moved", "[text][tokenizer]") {
  Tokenizer tokenizer = golden_tokenizer("llama2_scores");
  const Ids ids = tokenizer.encode("the river");
  Tokenizer moved = std::move(tokenizer);
  CHECK(moved.encode("the river") == ids);
  moved = golden_tokenizer("gpt2");
  CHECK(moved.decode(moved.encode("the river")) == "the river");
}

TEST_CASE("long runs of anything are encoded in about linear time", "[text][tokenizer]") {
  const std::string name = GENERATE("gpt2", "llama3", "qwen2", "llama2_scores");
  const std::string unit = GENERATE("a", " ", "\n", " \n", "1", "!", "ab ", "é", "日", "<|im_end|>",
                                    "\u0301\u0323", "\xff");
  CAPTURE(name, unit);
  const Tokenizer tokenizer = golden_tokenizer(name);
  std::string text;
  while (text.size() < (1U << 18U)) text += unit;
  const auto begin = std::chrono::steady_clock::now();
  const Ids ids = tokenizer.encode(text, {.parse_special = true});
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
  // A quadratic step over 2^18 bytes takes minutes; sanitizers and busy machines do not.
  CHECK(seconds.count() < 10);
  if (name == "gpt2" || name == "llama2_scores") {
    CHECK(tokenizer.decode(ids) == replace_invalid_utf8(text));
  }
}

}  // namespace
}  // namespace isthmus::text::test
