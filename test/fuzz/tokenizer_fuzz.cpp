// Vocabularies, texts and ids from outside: making a tokenizer gives an error or a tokenizer that
// holds its promises for every text and every id.
//
// Input: one byte of settings, one of pieces to come, the pieces (kind, score, length, bytes),
// then the text. The first pieces also give the merges.
#include <isthmus/text/tokenizer.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

namespace {

using isthmus::text::TokenizerKind;
using isthmus::text::TokenizerSpec;
using isthmus::text::TokenKind;

constexpr const char* kPreTokenizers[] = {"gpt2", "smollm", "llama-bpe", "qwen2"};

class Input {
 public:
  Input(const uint8_t* data, size_t size) : rest_(reinterpret_cast<const char*>(data), size) {}
  uint8_t byte() {
    const std::string_view one = take(1);
    return one.empty() ? 0 : static_cast<uint8_t>(one.front());
  }
  std::string_view take(size_t count) {
    const std::string_view taken = rest_.substr(0, count);
    rest_.remove_prefix(taken.size());
    return taken;
  }
  [[nodiscard]] std::string_view rest() const { return rest_; }

 private:
  std::string_view rest_;
};

TokenizerSpec read_spec(Input& input) {
  const uint8_t settings = input.byte();
  TokenizerSpec spec;
  spec.kind = settings & 1 ? TokenizerKind::kSentencePiece : TokenizerKind::kByteBpe;
  spec.add_space_prefix = settings & 2;
  spec.normalize_nfc = settings & 4;
  spec.ignore_merges = settings & 8;
  spec.pre_tokenizer = kPreTokenizers[settings >> 4 & 3];
  const size_t count = input.byte();
  for (size_t i = 0; i < count; ++i) {
    spec.kinds.push_back(static_cast<TokenKind>(input.byte()));
    spec.scores.push_back(static_cast<float>(input.byte()));
    spec.pieces.emplace_back(input.take(input.byte()));
  }
  if (settings & 64) {
    for (size_t i = 2; i < spec.pieces.size(); i += 3) {
      spec.merges.emplace_back(spec.pieces[i - 2], spec.pieces[i - 1]);
    }
  }
  spec.unknown = static_cast<int32_t>(count) - 1;
  return spec;
}

void require(bool promise) {
  if (!promise) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace isthmus::text;
  Input input(data, size);
  const auto tokenizer = Tokenizer::make(read_spec(input));
  if (!tokenizer) return 0;
  const auto& kinds = tokenizer->spec().kinds;
  for (const bool parse_special : {false, true}) {
    for (const int32_t id : tokenizer->encode(input.rest(), {.parse_special = parse_special})) {
      require(id >= 0 && static_cast<size_t>(id) < kinds.size());
      require(parse_special || kinds[static_cast<size_t>(id)] != TokenKind::kControl ||
              id == tokenizer->spec().unknown);
    }
  }
  std::vector<int32_t> ids;
  for (const char byte : input.rest()) ids.push_back(static_cast<int8_t>(byte) + 8);
  StreamDecoder decoder(*tokenizer);
  std::string streamed;
  for (const int32_t id : ids) {
    const std::string part = decoder.push(id);
    require(replace_invalid_utf8(part) == part);
    streamed += part;
  }
  streamed += decoder.finish();
  require(tokenizer->decode(ids) == streamed);
  return 0;
}
