// Rotary position embedding on a CUDA device (Su et al. 2021, RoFormer, section 3.4).
#pragma once

#include <isthmus/core/error.h>
#include <cstdint>

namespace isthmus::kernels::cuda {

enum class Element : uint8_t { kF32, kBf16, kF16 };

/// Rows of heads, each row at a position of its own: rows of many sequences may stand side by side.
/// All pointers are device memory, borrowed until the launch has run.
struct RopeRows {
  void* values = nullptr;              ///< [rows, heads, head_size], contiguous; rotated in place
  const int32_t* positions = nullptr;  ///< [rows]
  const float* frequencies = nullptr;  ///< [head_size / 2] angle per position of each pair
  Element element = Element::kF32;     ///< of `values`; angles and products are float in all cases
  int64_t rows = 0;
  int32_t heads = 0;
  int32_t head_size = 0;    ///< even
  bool half_apart = false;  ///< pairs are (i, i + head_size / 2); otherwise (2i, 2i + 1)
};

/// Rotates on `stream` (a cudaStream_t; null is the default stream) of the current device, without
/// waiting for it. Deterministic to the bit: no two threads touch one number.
/// \returns kInvalidArgument when a size is negative or head_size is odd, kDeviceFailed when the
/// launch fails.
[[nodiscard]] Status rotate_rows(const RopeRows& rows, void* stream);

}  // namespace isthmus::kernels::cuda
