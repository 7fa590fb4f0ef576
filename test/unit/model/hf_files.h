// The files of a Hugging Face folder, made from values.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace isthmus::test {

/// A tensor for a safetensors file, with 0, 1, 2, ... as F32.
struct HfTensor {
  std::string name;
  std::vector<uint64_t> shape;  ///< outermost first
};

/// A safetensors file: the length of `header`, `header`, `data`.
std::string safetensors_bytes(const nlohmann::json& header, const std::string& data);
std::string safetensors_bytes(const std::vector<HfTensor>& tensors);

/// config.json of a llama of 2 layers: D 8, H 2, one KV head, K 4, MLP 12, V 6, untied.
nlohmann::json tiny_hf_config();
/// tokenizer.json with 6 pieces and the pre-tokenizer of GPT-2.
nlohmann::json tiny_hf_tokenizer();
/// The tensors of that model.
std::vector<HfTensor> tiny_hf_tensors();

void write_file(const std::filesystem::path& path, const std::string& bytes);
/// config.json, tokenizer.json and model.safetensors.
void write_tiny_hf_folder(const std::filesystem::path& folder);

}  // namespace isthmus::test
