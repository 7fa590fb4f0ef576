// A model on disk: its config, its vocabulary and its tensors, mapped and not yet read.
//
// Two layouts are known: one GGUF file (versions 2 and 3, little-endian), and a Hugging Face folder
// (config.json, tokenizer.json, *.safetensors with or without an index). Tensors are found by
// GGUF's names in both.
#pragma once

#include <isthmus/core/error.h>
#include <isthmus/core/matrix.h>
#include <isthmus/kernels/dtype.h>
#include <isthmus/model/config.h>
#include <isthmus/text/tokenizer.h>
#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace isthmus::model {

struct LowRank;  // adapters.h

/// A named tensor. What it points to lives as long as the ModelFile.
struct Tensor {
  std::string name;  ///< GGUF's name, for example "blk.3.attn_q.weight"
  DType type = DType::kF32;
  std::vector<uint64_t>
      shape;  ///< outermost first: a linear layer's weight is [out, in], a norm's is [D]
  std::span<const std::byte> data;   ///< in the mapped file
  const LowRank* adapter = nullptr;  ///< what the matrix is changed by, if it is

  [[nodiscard]] uint64_t rows() const { return shape.size() < 2 ? 1 : shape[0]; }
  [[nodiscard]] uint64_t cols() const { return shape.empty() ? 0 : shape.back(); }
};

/// Rows [first_row, first_row + out.rows()) of a one- or two-dimensional tensor as float, changed
/// by its adapter. \returns kInvalidArgument when `out` does not fit the tensor.
[[nodiscard]] Status read_rows(const Tensor& tensor, uint64_t first_row, MatrixView<float> out);

/// BLAKE2b, 256 bits.
using Digest = std::array<std::byte, 32>;

/// An open model. Immutable; safe to read from any thread. Memory is mapped, so opening is cheap.
class ModelFile {
 public:
  virtual ~ModelFile() = default;

  /// Opens a GGUF file or a Hugging Face folder.
  /// \returns kNotFound, kIo, kTruncated, kCorrupt, kTooLarge, or kUnsupported (architecture,
  /// tensor type or tokenizer, named).
  [[nodiscard]] static Result<std::shared_ptr<const ModelFile>> open(
      const std::filesystem::path& path);

  [[nodiscard]] virtual const ModelConfig& config() const = 0;
  /// No pieces when the model comes without a vocabulary.
  [[nodiscard]] virtual const text::TokenizerSpec& tokenizer() const = 0;
  [[nodiscard]] virtual std::span<const Tensor> tensors() const = 0;

  /// \returns kNotFound naming the tensor (and saying so when the file is a slice that lacks it).
  [[nodiscard]] virtual Result<const Tensor*> find(std::string_view name) const = 0;

  /// Says that a tensor will not be read soon: its pages stop counting as this process's memory,
  /// and come back from the file when it is read after all. Does nothing where memory is not
  /// mapped.
  virtual void release(const Tensor& /*tensor*/) const {}

  /// Whether this is a part of a model, cut out of its file.
  [[nodiscard]] virtual bool is_slice() const { return false; }
  /// What a slice says of the parts of its source (fingerprint.h); empty when it does not.
  [[nodiscard]] virtual std::span<const Digest> source_digests() const { return {}; }
};

/// Which part of a model one side holds.
struct Part {
  std::vector<std::pair<int32_t, int32_t>> layers;  ///< half-open, increasing, not overlapping
  bool embedding = false;
  bool head = false;  ///< final norm and LM head

  [[nodiscard]] bool has_layer(int32_t layer) const;
  /// \returns kInvalidArgument when a range is not inside [0, layer_count].
  [[nodiscard]] Status validate(int32_t layer_count) const;
};

/// What a file holds: its whole model, or the part a slice was made of. A layer counts when its
/// attention and MLP weights are there; the head when the final norm and the weights of the LM head
/// are.
[[nodiscard]] Part available_part(const ModelFile& file);

/// Writes a valid GGUF with the metadata and vocabulary of `source` and only the tensors of `part`,
/// unconverted. Layers keep their numbers. `source` must be a GGUF. The file appears under its name
/// only when complete. \returns kUnsupported for a Hugging Face folder, kIo, or the errors of
/// `open`.
[[nodiscard]] Status write_slice(const std::filesystem::path& source, const Part& part,
                                 const std::filesystem::path& destination);

}  // namespace isthmus::model
