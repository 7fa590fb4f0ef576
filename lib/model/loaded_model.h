// The one ModelFile: what both readers end in. Also their entry points that work on bytes in
// memory, for tests and fuzzing.
#pragma once

#include <isthmus/model/model_file.h>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "mapped_file.h"

namespace isthmus::model {

namespace gguf {
struct Contents;
}

/// What a reader found.
struct ModelParts {
  ModelConfig config;
  text::TokenizerSpec tokenizer;
  std::vector<Tensor> tensors;  ///< names unique
  std::string slice;            ///< what a sliced file holds, in words; empty for a whole model
  std::vector<Digest> source_digests;  ///< of the parts of the model that a slice was cut from
};

class LoadedModel final : public ModelFile {
 public:
  /// `files` keep the tensors' bytes alive.
  LoadedModel(ModelParts parts, std::vector<MappedFile> files);

  [[nodiscard]] const ModelConfig& config() const override { return parts_.config; }
  [[nodiscard]] const text::TokenizerSpec& tokenizer() const override { return parts_.tokenizer; }
  [[nodiscard]] std::span<const Tensor> tensors() const override { return parts_.tensors; }
  [[nodiscard]] Result<const Tensor*> find(std::string_view name) const override;
  void release(const Tensor& tensor) const override;
  [[nodiscard]] bool is_slice() const override { return !parts_.slice.empty(); }
  [[nodiscard]] std::span<const Digest> source_digests() const override {
    return parts_.source_digests;
  }

 private:
  ModelParts parts_;
  std::unordered_map<std::string_view, const Tensor*> index_;
  std::vector<MappedFile> files_;
};

/// Reads a GGUF file, which may come from anyone. Tensors point into `file`.
[[nodiscard]] Result<ModelParts> read_gguf_model(std::span<const std::byte> file);
/// The same from a file that has been parsed.
[[nodiscard]] Result<ModelParts> read_gguf_model(gguf::Contents contents);

/// Reads a Hugging Face folder.
[[nodiscard]] Result<std::shared_ptr<const ModelFile>> open_hf_folder(
    const std::filesystem::path& folder);

}  // namespace isthmus::model
