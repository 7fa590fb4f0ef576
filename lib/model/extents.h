// Where tensors lie in a file's data section.
#pragma once

#include <isthmus/core/error.h>
#include <isthmus/model/model_file.h>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace isthmus::model {

/// Bytes of a tensor from its type and shape. `format` starts the errors.
/// \returns kCorrupt for a number of dimensions outside 1 to 4, a zero dimension, an overflow, or
/// rows that are no whole blocks; kUnsupported for an unknown type.
[[nodiscard]] Result<uint64_t> tensor_bytes(const Tensor& tensor, std::string_view format);

/// A tensor's bytes in the data section, [begin, end).
struct Extent {
  std::string_view name;
  uint64_t begin = 0;
  uint64_t end = 0;
};

/// \returns kCorrupt naming two tensors that share bytes.
[[nodiscard]] Status check_disjoint(std::vector<Extent> extents, std::string_view format);

}  // namespace isthmus::model
