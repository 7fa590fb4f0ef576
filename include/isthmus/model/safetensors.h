// The safetensors container. Nothing is copied but names: data point into the bytes given.
//
// A file is (https://github.com/huggingface/safetensors#format):
//
//   header_bytes   u64       little-endian; at most 100,000,000
//   header         JSON      an object: tensor name -> {"dtype": text, "shape": [numbers],
//                            "data_offsets": [begin, end]}, names unique, offsets into the data;
//                            the optional member "__metadata__" is not a tensor and not read
//   data                     the tensors, row-major, not overlapping
#pragma once

#include <isthmus/core/error.h>
#include <isthmus/model/model_file.h>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <vector>

namespace isthmus::model::safetensors {

inline constexpr uint64_t kMaxHeaderBytes = 100'000'000;

/// Parses a whole file, which may come from anyone. Tensors have the file's own names and point
/// into `file`. \returns kTruncated, kTooLarge, kCorrupt, or kUnsupported for a type that is not
/// F32, F16 or BF16.
[[nodiscard]] Result<std::vector<Tensor>> parse(std::span<const std::byte> file);

/// "__metadata__" of a file that may come from anyone; empty when there is none. \returns
/// kTruncated, kTooLarge, kCorrupt (also for an entry that is no text) or kNotFound (for a null).
[[nodiscard]] Result<std::map<std::string, std::string>> metadata(std::span<const std::byte> file);

/// A whole file of float tensors (F32 or F16) and metadata. Equal input gives equal bytes.
/// \throws std::invalid_argument for another type, or data that do not fit the shape.
[[nodiscard]] std::vector<std::byte> write(std::span<const Tensor> tensors,
                                           const std::map<std::string, std::string>& metadata);

/// A file's bytes, for the readers above. \returns kNotFound, kIo, kTooLarge above `most_bytes`.
[[nodiscard]] Result<std::vector<std::byte>> load(const std::filesystem::path& path,
                                                  size_t most_bytes);

/// `write` to a file, which appears under its name only when complete. \returns kIo.
[[nodiscard]] Status save(const std::filesystem::path& path, std::span<const Tensor> tensors,
                          const std::map<std::string, std::string>& metadata);

}  // namespace isthmus::model::safetensors
