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
#include <span>
#include <vector>

namespace isthmus::model::safetensors {

inline constexpr uint64_t kMaxHeaderBytes = 100'000'000;

/// Parses a whole file, which may come from anyone. Tensors have the file's own names and point
/// into `file`. \returns kTruncated, kTooLarge, kCorrupt, or kUnsupported for a type that is not
/// F32, F16 or BF16.
[[nodiscard]] Result<std::vector<Tensor>> parse(std::span<const std::byte> file);

}  // namespace isthmus::model::safetensors
