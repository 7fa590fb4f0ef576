// Small models whose weights follow from their tensors' names by a rule that tools/refgen/models.py
// states too, so that no weights are stored.
#pragma once

#include <isthmus/model/config.h>
#include <isthmus/model/model_file.h>

#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace isthmus::test {

/// The weights of the tensor `name`, which may be GGUF's or Hugging Face's name.
std::vector<float> tiny_weights(std::string_view name, size_t count);

/// `count` token ids below `vocab_size`, always the same.
std::vector<int32_t> tiny_tokens(size_t count, int32_t vocab_size);

/// A config and what sets it apart.
struct NamedConfig {
  std::string name;
  model::ModelConfig config;
};

/// Configs of four layers that exercise every trait between them, with sizes that are no multiple
/// of a vector's width.
std::vector<NamedConfig> tiny_configs();

/// A model in memory. Weights are floats.
class TinyModel final : public model::ModelFile {
 public:
  explicit TinyModel(model::ModelConfig config);

  const model::ModelConfig& config() const override { return config_; }
  const text::TokenizerSpec& tokenizer() const override { return tokenizer_; }
  std::span<const model::Tensor> tensors() const override { return tensors_; }
  Result<const model::Tensor*> find(std::string_view name) const override;

  /// Takes a tensor away. The name must exist.
  void remove(std::string_view name);
  /// Changes one number. The name must exist.
  void set(std::string_view name, size_t index, float value);
  /// Gives a tensor other dimensions. The name must exist.
  void reshape(std::string_view name, std::vector<uint64_t> shape);

 private:
  void add(std::string name, std::vector<uint64_t> shape);
  void add_layer(int32_t layer);

  model::ModelConfig config_;
  text::TokenizerSpec tokenizer_;
  std::vector<model::Tensor> tensors_;
  std::vector<std::vector<float>> values_;
};

/// Everything: all layers, embedding and head.
model::Part whole_model(const model::ModelConfig& config);

/// Writes a Hugging Face folder: a copy of `config_json`, the weights as safetensors, and the
/// smallest tokenizer.
void write_tiny_folder(const std::filesystem::path& config_json,
                       const std::filesystem::path& folder);

}  // namespace isthmus::test
