// A file broken by hand for each field of the format and each way to break it.
#include <cstring>
#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "loaded_model.h"
#include "support/catch.h"
#include "support/gguf_writer.h"

namespace isthmus::model {
namespace {

using test::gguf_string;
using test::GgufFile;
using test::little_endian;
using test::tiny_gguf;

constexpr uint64_t kHuge = std::numeric_limits<uint64_t>::max();
constexpr uint32_t kArray = 9;
constexpr uint32_t kString = 8;

// Reads from memory of exactly the file's length, so that AddressSanitizer sees a read behind it.
Result<ModelParts> read(const std::string& image) {
  const auto bytes = std::make_unique<std::byte[]>(image.size());
  std::memcpy(bytes.get(), image.data(), image.size());
  return read_gguf_model({bytes.get(), image.size()});
}

struct Breakage {
  std::string what;
  ErrorCode code;
  std::string named;  // must be part of the message
  std::function<void(GgufFile&)> apply;
};

void run(const std::vector<Breakage>& breakages) {
  for (const Breakage& breakage : breakages) {
    CAPTURE(breakage.what);
    GgufFile file = tiny_gguf();
    REQUIRE(read(file.bytes()));
    breakage.apply(file);
    const auto result = read(file.bytes());
    CHECK_FAILS_WITH(result, breakage.code);
    CAPTURE(result.error().message);
    CHECK(result.error().message.find(breakage.named) != std::string::npos);
  }
}

Breakage set(const std::string& key, const test::GgufValue& value, ErrorCode code) {
  return {"set " + key, code, key, [=](GgufFile& file) { file.set(key, value); }};
}

TEST_CASE("a broken header is refused", "[model][gguf][broken]") {
  run({
      {"magic", ErrorCode::kCorrupt, "GGUF", [](GgufFile& f) { f.magic = "GGML"; }},
      {"version 1", ErrorCode::kUnsupported, "version 1", [](GgufFile& f) { f.version = 1; }},
      {"version 4", ErrorCode::kUnsupported, "version 4", [](GgufFile& f) { f.version = 4; }},
      {"big-endian", ErrorCode::kUnsupported, "big-endian",
       [](GgufFile& f) { f.version = 0x03000000; }},
      {"more tensors than there are", ErrorCode::kCorrupt, "",
       [](GgufFile& f) { f.tensor_count = f.tensors.size() + 1; }},
      {"endless tensors", ErrorCode::kTruncated, "tensor",
       [](GgufFile& f) {
         f.tensors.clear();
         f.alignment = 1;
         f.tensor_count = kHuge;
       }},
      {"endless metadata", ErrorCode::kTruncated, "metadata",
       [](GgufFile& f) {
         f.tensors.clear();
         f.alignment = 1;
         f.entry_count = kHuge;
       }},
      {"fewer entries than there are", ErrorCode::kCorrupt, "",
       [](GgufFile& f) { f.entry_count = f.entries.size() - 1; }},
  });
}

TEST_CASE("a file cut short anywhere is refused", "[model][gguf][broken]") {
  const std::string image = tiny_gguf().bytes();
  // The last tensor's data may end before the padding does.
  for (size_t length = 0; length + 32 < image.size(); ++length) {
    CAPTURE(length);
    const auto result = read(image.substr(0, length));
    REQUIRE_FALSE(result.has_value());
    REQUIRE(result.error().code == ErrorCode::kTruncated);
  }
}

TEST_CASE("a broken metadata entry is refused", "[model][gguf][broken]") {
  const std::string key = "llama.block_count";
  const auto raw = [](uint32_t type, const std::string& value) {
    return [=](GgufFile& file) { file.set_raw("extra", type, value); };
  };
  run({
      {"key longer than the file", ErrorCode::kTruncated, "key",
       [](GgufFile& f) { f.entries[0].key_length = kHuge; }},
      {"key of no bytes", ErrorCode::kCorrupt, "key", [](GgufFile& f) { f.entries[0].key = ""; }},
      {"key of 64 KiB", ErrorCode::kCorrupt, "65536",
       [](GgufFile& f) { f.entries[0].key = std::string(65536, 'k'); }},
      {"key twice", ErrorCode::kCorrupt, "'llama.block_count' twice",
       [](GgufFile& f) { f.entries.push_back(f.entries[1]); }},
      {"unknown type", ErrorCode::kCorrupt, "type 13", raw(13, "")},
      {"huge type", ErrorCode::kCorrupt, "type 4294967295", raw(0xFFFFFFFF, "")},
      {"bool of 2", ErrorCode::kCorrupt, "'extra'", raw(7, "\2")},
      {"string longer than the file", ErrorCode::kTruncated, "string",
       raw(kString, little_endian(kHuge))},
      {"array of unknown type", ErrorCode::kCorrupt, "type 99",
       raw(kArray, little_endian(99U) + little_endian(uint64_t{1}))},
      {"array of arrays", ErrorCode::kUnsupported, "nested",
       raw(kArray, little_endian(kArray) + little_endian(uint64_t{1}))},
      {"array longer than the file", ErrorCode::kTruncated, "'extra'",
       raw(kArray, little_endian(4U) + little_endian(uint64_t{1} << 40))},
      {"array whose bytes overflow", ErrorCode::kTruncated, "'extra'",
       raw(kArray, little_endian(10U) + little_endian(kHuge / 8 + 2))},
      {"endless array of strings", ErrorCode::kTruncated, "string",
       raw(kArray, little_endian(kString) + little_endian(kHuge))},
      {"array of a string longer than the file", ErrorCode::kTruncated, "string",
       raw(kArray, little_endian(kString) + little_endian(uint64_t{1}) + little_endian(kHuge))},
  });
}

TEST_CASE("a broken tensor entry is refused", "[model][gguf][broken]") {
  const auto change = [](const std::function<void(GgufFile::Tensor&)>& apply) {
    return [=](GgufFile& file) { apply(file.tensor("blk.0.attn_k.weight")); };
  };
  const std::string name = "'blk.0.attn_k.weight'";
  using T = GgufFile::Tensor;
  run({
      {"name longer than the file", ErrorCode::kTruncated, "name",
       change([](T& t) { t.name_length = kHuge; })},
      {"name of no bytes", ErrorCode::kCorrupt, "name", change([](T& t) { t.name = ""; })},
      {"name of 65 bytes", ErrorCode::kCorrupt, "65",
       change([](T& t) { t.name = std::string(65, 'n'); })},
      {"name twice", ErrorCode::kCorrupt, "'blk.0.attn_q.weight' twice",
       change([](T& t) { t.name = "blk.0.attn_q.weight"; })},
      {"no dimensions", ErrorCode::kCorrupt, name, change([](T& t) { t.dim_count = 0; })},
      {"five dimensions", ErrorCode::kCorrupt, name, change([](T& t) { t.dim_count = 5; })},
      {"endless dimensions", ErrorCode::kCorrupt, name,
       change([](T& t) { t.dim_count = 0xFFFFFFFF; })},
      {"dimension of zero", ErrorCode::kCorrupt, name, change([](T& t) {
         t.dims = {8, 0};
       })},
      {"huge dimension", ErrorCode::kCorrupt, name, change([](T& t) {
         t.dims = {kHuge, 1};
       })},
      {"product that overflows", ErrorCode::kCorrupt, name, change([](T& t) {
         t.dims = {1ULL << 32, 1ULL << 32};
       })},
      {"bytes that would overflow", ErrorCode::kCorrupt, name, change([](T& t) {
         t.dims = {1ULL << 31, 1ULL << 31};
       })},
      {"type without a definition", ErrorCode::kUnsupported, name + " has type 4",
       change([](T& t) { t.type = 4; })},
      {"unsupported type", ErrorCode::kUnsupported, name + " has type 16",
       change([](T& t) { t.type = 16; })},
      {"rows that are no whole blocks", ErrorCode::kCorrupt, "Q8_0",
       change([](T& t) { t.type = 8; })},
      {"unaligned offset", ErrorCode::kCorrupt, name, change([](T& t) { t.offset = 4; })},
      {"offset past the end", ErrorCode::kTruncated, name,
       change([](T& t) { t.offset = 1ULL << 40; })},
      {"offset whose end overflows", ErrorCode::kTruncated, name,
       change([](T& t) { t.offset = kHuge - 31; })},
      {"overlap", ErrorCode::kCorrupt, "overlaps", change([](T& t) { t.offset = 0; })},
      {"more bytes than the file has", ErrorCode::kTruncated, "'blk.1.ffn_down.weight'",
       [](GgufFile& f) {
         f.tensor("blk.1.ffn_down.weight").dims = {12, 9};
       }},
      {"unknown name", ErrorCode::kUnsupported, "'blk.0.ffn_gate.bias'",
       change([](T& t) { t.name = "blk.0.ffn_gate.bias"; })},
      {"layer behind the last", ErrorCode::kUnsupported, "'blk.2.attn_k.weight'",
       change([](T& t) { t.name = "blk.2.attn_k.weight"; })},
  });
}

TEST_CASE("a broken alignment is refused", "[model][gguf][broken]") {
  const std::string key = "general.alignment";
  run({
      {"zero", ErrorCode::kCorrupt, "alignment 0", [=](GgufFile& f) { f.set(key, 0U); }},
      {"not a power of two", ErrorCode::kCorrupt, "24", [=](GgufFile& f) { f.set(key, 24U); }},
      {"negative", ErrorCode::kCorrupt, "-32", [=](GgufFile& f) { f.set(key, -32); }},
      set(key, "32", ErrorCode::kCorrupt),
      {"behind the end", ErrorCode::kTruncated, "", [=](GgufFile& f) { f.set(key, 1U << 30U); }},
  });
}

TEST_CASE("metadata that must be there is named when missing", "[model][gguf][broken]") {
  for (const std::string key :
       {"general.architecture", "llama.block_count", "llama.context_length",
        "llama.embedding_length", "llama.feed_forward_length", "llama.attention.head_count",
        "llama.attention.layer_norm_rms_epsilon", "tokenizer.ggml.tokens",
        "tokenizer.ggml.merges"}) {
    run({{"no " + key, ErrorCode::kNotFound, key, [&](GgufFile& f) { f.erase(key); }}});
  }
  run({{"no vocabulary size", ErrorCode::kNotFound, "llama.vocab_size", [](GgufFile& f) {
          std::erase_if(f.tensors, [](const auto& t) { return t.name == "token_embd.weight"; });
        }}});
}

TEST_CASE("metadata of another type or out of range is named", "[model][gguf][broken]") {
  for (const std::string key : {"llama.block_count", "llama.context_length",
                                "llama.embedding_length", "llama.feed_forward_length",
                                "llama.attention.head_count", "llama.attention.head_count_kv"}) {
    run({set(key, "2", ErrorCode::kCorrupt), set(key, 2.0F, ErrorCode::kCorrupt),
         set(key, std::vector<int32_t>{2}, ErrorCode::kCorrupt),
         set(key, uint64_t{1} << 32U, ErrorCode::kCorrupt), set(key, kHuge, ErrorCode::kCorrupt)});
    for (const int32_t value : {0, -1, std::numeric_limits<int32_t>::min()}) {
      run({{key + " " + std::to_string(value), ErrorCode::kCorrupt, std::to_string(value),
            [&](GgufFile& f) { f.set(key, value); }}});
    }
  }
  run({
      set("general.architecture", 1, ErrorCode::kCorrupt),
      set("llama.attention.layer_norm_rms_epsilon", 1, ErrorCode::kCorrupt),
      set("llama.rope.freq_base", "10000", ErrorCode::kCorrupt),
      set("llama.rope.scaling.type", 1, ErrorCode::kCorrupt),
      set("llama.attention.sliding_window", "4096", ErrorCode::kCorrupt),
      set("tokenizer.ggml.model", 1, ErrorCode::kCorrupt),
      set("tokenizer.ggml.pre", 1, ErrorCode::kCorrupt),
      set("tokenizer.ggml.tokens", "a b", ErrorCode::kCorrupt),
      set("tokenizer.ggml.tokens", std::vector<int32_t>{1}, ErrorCode::kCorrupt),
      set("tokenizer.ggml.token_type", std::vector<float>{1}, ErrorCode::kCorrupt),
      set("tokenizer.ggml.merges", std::vector<int32_t>{1}, ErrorCode::kCorrupt),
      set("tokenizer.ggml.bos_token_id", "1", ErrorCode::kCorrupt),
      set("tokenizer.ggml.add_bos_token", 1, ErrorCode::kCorrupt),
      set("tokenizer.chat_template", 1, ErrorCode::kCorrupt),
  });
}

TEST_CASE("impossible sizes are refused before anything is made from them",
          "[model][gguf][broken]") {
  const auto size = [](const std::string& key, uint32_t value, const std::string& named) {
    return Breakage{key, ErrorCode::kCorrupt, named,
                    [=](GgufFile& f) { f.set("llama." + key, value); }};
  };
  run({
      size("block_count", 4097, "layer_count"),
      size("embedding_length", (1U << 24U) + 1, "hidden_size"),
      size("feed_forward_length", (1U << 24U) + 1, "mlp_size"),
      size("attention.head_count", 65537, "head_count"),
      size("attention.head_count_kv", 3, "kv_head_count"),
      size("attention.head_count", 3, "head_size"),
      size("attention.key_length", 0, "head_size"),
      size("attention.key_length", 5, "head_size"),
      size("attention.key_length", 1U << 30U, "head_size"),
  });
  const auto number = [](const std::string& key, float value, const std::string& named) {
    return Breakage{key, ErrorCode::kCorrupt, named,
                    [=](GgufFile& f) { f.set("llama." + key, value); }};
  };
  const float infinity = std::numeric_limits<float>::infinity();
  const float nan = std::numeric_limits<float>::quiet_NaN();
  run({
      number("attention.layer_norm_rms_epsilon", -1, "norm_epsilon"),
      number("attention.layer_norm_rms_epsilon", nan, "norm_epsilon"),
      number("attention.scale", infinity, "attention_scale"),
      number("final_logit_softcapping", -1, "final_softcap"),
      number("rope.freq_base", 0, "rope"),
      number("rope.freq_base", -10, "rope"),
      number("rope.freq_base", nan, "rope"),
      number("rope.scaling.factor", 0, "rope scaling"),
      number("rope.scaling.factor", nan, "rope scaling"),
  });
  run({{"negative window", ErrorCode::kCorrupt, "window",
        [](GgufFile& f) { f.set("llama.attention.sliding_window", -1); }},
       {"too few layer flags", ErrorCode::kCorrupt, "layer traits",
        [](GgufFile& f) {
          f.set("llama.attention.sliding_window_pattern", std::vector<bool>{true});
        }},
       {"rope divisors of another count", ErrorCode::kCorrupt, "rope_freqs",
        [](GgufFile& f) { f.add_tensor("rope_freqs.weight", {3}); }},
       {"rope divisors that are zero", ErrorCode::kCorrupt, "rope",
        [](GgufFile& f) { f.add_tensor("rope_freqs.weight", {2}); }}});
}

TEST_CASE("a vocabulary that contradicts itself is refused", "[model][gguf][broken]") {
  const auto pieces = [](size_t count) { return std::vector<std::string>(count, "x"); };
  run({
      {"more pieces than rows", ErrorCode::kCorrupt, "7",
       [&](GgufFile& f) {
         f.set("tokenizer.ggml.tokens", pieces(7));
         f.set("tokenizer.ggml.token_type", std::vector<int32_t>(7, 1));
       }},
      {"fewer types than pieces", ErrorCode::kCorrupt, "token_type",
       [](GgufFile& f) { f.set("tokenizer.ggml.token_type", std::vector<int32_t>(5, 1)); }},
      {"type 0", ErrorCode::kCorrupt, "type 0",
       [](GgufFile& f) { f.set("tokenizer.ggml.token_type", std::vector<int32_t>(6, 0)); }},
      {"type 7", ErrorCode::kCorrupt, "type 7",
       [](GgufFile& f) { f.set("tokenizer.ggml.token_type", std::vector<int32_t>(6, 7)); }},
      {"fewer scores than pieces", ErrorCode::kCorrupt, "scores",
       [](GgufFile& f) {
         f.set("tokenizer.ggml.model", "llama");
         f.set("tokenizer.ggml.scores", std::vector<float>(5, 0));
       }},
      {"merge of one piece", ErrorCode::kCorrupt, "'ab'",
       [](GgufFile& f) { f.set("tokenizer.ggml.merges", std::vector<std::string>{"ab"}); }},
      {"merge with nothing behind the space", ErrorCode::kCorrupt, "'a '",
       [](GgufFile& f) { f.set("tokenizer.ggml.merges", std::vector<std::string>{"a "}); }},
      {"empty merge", ErrorCode::kCorrupt, "merge",
       [](GgufFile& f) { f.set("tokenizer.ggml.merges", std::vector<std::string>{""}); }},
      {"bos outside", ErrorCode::kCorrupt, "bos",
       [](GgufFile& f) { f.set("tokenizer.ggml.bos_token_id", 6U); }},
      {"eos outside", ErrorCode::kCorrupt, "eos",
       [](GgufFile& f) { f.set("tokenizer.ggml.eos_token_id", -2); }},
      {"unknown outside", ErrorCode::kCorrupt, "unknown",
       [](GgufFile& f) { f.set("tokenizer.ggml.unknown_token_id", 100U); }},
      {"eot outside", ErrorCode::kCorrupt, "end-of-generation",
       [](GgufFile& f) { f.set("tokenizer.ggml.eot_token_id", 6U); }},
  });
}

TEST_CASE("what we cannot compute is refused by name", "[model][gguf][broken]") {
  run({
      {"architecture", ErrorCode::kUnsupported, "'mamba' is not one of llama, qwen2, qwen3, gemma3",
       [](GgufFile& f) { f.set("general.architecture", "mamba"); }},
      {"tokenizer", ErrorCode::kUnsupported, "'bert'",
       [](GgufFile& f) { f.set("tokenizer.ggml.model", "bert"); }},
      {"yarn", ErrorCode::kUnsupported, "'yarn'",
       [](GgufFile& f) { f.set("llama.rope.scaling.type", "yarn"); }},
      {"attention that looks ahead", ErrorCode::kUnsupported, "attention.causal",
       [](GgufFile& f) { f.set("llama.attention.causal", false); }},
      {"experts", ErrorCode::kUnsupported, "expert_count",
       [](GgufFile& f) { f.set("llama.expert_count", 8U); }},
      {"values of another width", ErrorCode::kUnsupported, "attention.value_length",
       [](GgufFile& f) { f.set("llama.attention.value_length", 8U); }},
      {"partly rotated heads", ErrorCode::kUnsupported, "rope.dimension_count",
       [](GgufFile& f) { f.set("llama.rope.dimension_count", 2U); }},
      {"several files", ErrorCode::kUnsupported, "split",
       [](GgufFile& f) { f.set("split.count", 3U); }},
  });
}

}  // namespace
}  // namespace isthmus::model
