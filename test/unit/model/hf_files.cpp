#include "hf_files.h"

#include <fstream>

#include "support/catch.h"
#include "support/gguf_writer.h"

namespace isthmus::test {

using nlohmann::json;

std::string safetensors_bytes(const json& header, const std::string& data) {
  const std::string text = header.dump();
  return little_endian<uint64_t>(text.size()) + text + data;
}

std::string safetensors_bytes(const std::vector<HfTensor>& tensors) {
  json header = {{"__metadata__", {{"format", "pt"}}}};
  std::string data;
  for (const HfTensor& tensor : tensors) {
    uint64_t count = 1;
    for (const uint64_t dim : tensor.shape) count *= dim;
    const size_t begin = data.size();
    for (uint64_t i = 0; i < count; ++i) data += little_endian(static_cast<float>(i));
    header[tensor.name] = {
        {"dtype", "F32"}, {"shape", tensor.shape}, {"data_offsets", {begin, data.size()}}};
  }
  return safetensors_bytes(header, data);
}

json tiny_hf_config() {
  return {{"model_type", "llama"},    {"num_hidden_layers", 2},   {"hidden_size", 8},
          {"intermediate_size", 12},  {"vocab_size", 6},          {"max_position_embeddings", 32},
          {"num_attention_heads", 2}, {"num_key_value_heads", 1}, {"hidden_act", "silu"},
          {"rms_norm_eps", 1e-5},     {"rope_theta", 500.0},      {"tie_word_embeddings", false},
          {"bos_token_id", 1},        {"eos_token_id", 2}};
}

json tiny_hf_tokenizer() {
  const auto special = [](int id, const std::string& content) {
    return json{{"id", id}, {"content", content}, {"special", true}};
  };
  return {
      {"added_tokens", {special(0, "<|endoftext|>"), special(1, "<s>"), special(2, "</s>")}},
      {"normalizer", nullptr},
      {"pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", true}}},
      {"post_processor", nullptr},
      {"model",
       {{"type", "BPE"},
        {"vocab", {{"<s>", 1}, {"</s>", 2}, {"a", 3}, {"b", 4}, {"ab", 5}}},
        {"merges", {"a b"}}}}};
}

std::vector<HfTensor> tiny_hf_tensors() {
  std::vector<HfTensor> tensors = {{"model.embed_tokens.weight", {6, 8}},
                                   {"model.norm.weight", {8}},
                                   {"lm_head.weight", {6, 8}}};
  for (const std::string layer : {"model.layers.0.", "model.layers.1."}) {
    tensors.push_back({layer + "input_layernorm.weight", {8}});
    tensors.push_back({layer + "self_attn.q_proj.weight", {8, 8}});
    tensors.push_back({layer + "self_attn.k_proj.weight", {4, 8}});
    tensors.push_back({layer + "self_attn.v_proj.weight", {4, 8}});
    tensors.push_back({layer + "self_attn.o_proj.weight", {8, 8}});
    tensors.push_back({layer + "post_attention_layernorm.weight", {8}});
    tensors.push_back({layer + "mlp.gate_proj.weight", {12, 8}});
    tensors.push_back({layer + "mlp.up_proj.weight", {12, 8}});
    tensors.push_back({layer + "mlp.down_proj.weight", {8, 12}});
  }
  return tensors;
}

void write_file(const std::filesystem::path& path, const std::string& bytes) {
  std::ofstream out(path, std::ios::binary);
  out << bytes;
  out.close();
  REQUIRE(out.good());
}

void write_tiny_hf_folder(const std::filesystem::path& folder) {
  write_file(folder / "config.json", tiny_hf_config().dump());
  write_file(folder / "tokenizer.json", tiny_hf_tokenizer().dump());
  write_file(folder / "model.safetensors", safetensors_bytes(tiny_hf_tensors()));
}

}  // namespace isthmus::test
