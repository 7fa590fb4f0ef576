#include "extents.h"

#include <algorithm>
#include <limits>

#include "quote.h"

namespace isthmus::model {
namespace {

tl::unexpected<Error> tensor_error(ErrorCode code, std::string_view format, std::string_view name,
                                   std::string_view what) {
  std::string message(format);
  message += ": tensor ";
  message += quote(name);
  message += ' ';
  message += what;
  return fail(code, std::move(message));
}

}  // namespace

Result<uint64_t> tensor_bytes(const Tensor& tensor, std::string_view format) {
  const auto error = [&](ErrorCode code, std::string_view what) {
    return tensor_error(code, format, tensor.name, what);
  };
  const DTypeInfo* info = dtype_info(tensor.type);
  if (info == nullptr) {
    return error(ErrorCode::kUnsupported, "has type " +
                                              std::to_string(static_cast<uint32_t>(tensor.type)) +
                                              ", which is not supported");
  }
  if (tensor.shape.empty() || tensor.shape.size() > 4) {
    return error(ErrorCode::kCorrupt,
                 "has " + std::to_string(tensor.shape.size()) + " dimensions, not 1 to 4");
  }
  if (tensor.cols() % info->block_elements != 0) {
    return error(ErrorCode::kCorrupt,
                 "has rows of " + std::to_string(tensor.cols()) + ", not a multiple of the " +
                     std::to_string(info->block_elements) + " of " + std::string(info->name));
  }
  constexpr uint64_t kMaxElements = std::numeric_limits<int64_t>::max() / 8;  // bytes fit as well
  uint64_t elements = 1;
  for (const uint64_t dim : tensor.shape) {
    if (dim == 0 || dim > kMaxElements / elements) {
      return error(ErrorCode::kCorrupt, "has an impossible dimension " + std::to_string(dim));
    }
    elements *= dim;
  }
  return elements / info->block_elements * info->block_bytes;
}

Status check_disjoint(std::vector<Extent> extents, std::string_view format) {
  std::sort(extents.begin(), extents.end(),
            [](const Extent& a, const Extent& b) { return a.begin < b.begin; });
  for (size_t i = 1; i < extents.size(); ++i) {
    if (extents[i].begin < extents[i - 1].end) {
      return tensor_error(ErrorCode::kCorrupt, format, extents[i].name,
                          "overlaps tensor " + quote(extents[i - 1].name));
    }
  }
  return {};
}

}  // namespace isthmus::model
