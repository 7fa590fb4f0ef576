#include "safetensors.h"

#include <cstring>
#include <utility>

#include "extents.h"
#include "json_object.h"
#include "quote.h"

namespace isthmus::model::safetensors {
namespace {

constexpr std::string_view kHeaderName = "safetensors header";

tl::unexpected<Error> tensor_error(ErrorCode code, std::string_view name, std::string_view what) {
  return fail(code, ("safetensors: tensor " + quote(name)).append(" ").append(what));
}

Result<DType> read_type(const JsonObject& entry, std::string_view name) {
  ISTHMUS_ASSIGN(const auto type, entry.get<std::string>("dtype"));
  if (type == "F32") return DType::kF32;
  if (type == "F16") return DType::kF16;
  if (type == "BF16") return DType::kBf16;
  return tensor_error(ErrorCode::kUnsupported, name,
                      "has type " + quote(type) + ", not F32, F16 or BF16");
}

Result<std::vector<uint64_t>> read_counts(const JsonObject& entry, std::string_view key,
                                          std::string_view name) {
  ISTHMUS_ASSIGN(const auto items, entry.list(key));
  std::vector<uint64_t> counts;
  for (const nlohmann::json& item : items) {
    if (!item.is_number_unsigned()) {
      return tensor_error(ErrorCode::kCorrupt, name,
                          "has " + quote(key) + " that are not whole numbers");
    }
    counts.push_back(item.get<uint64_t>());
  }
  return counts;
}

Result<Tensor> read_tensor(const JsonObject& entry, std::string_view name,
                           std::span<const std::byte> data, std::vector<Extent>& extents) {
  Tensor tensor;
  tensor.name = name;
  ISTHMUS_ASSIGN(tensor.type, read_type(entry, name));
  ISTHMUS_ASSIGN(tensor.shape, read_counts(entry, "shape", name));
  ISTHMUS_ASSIGN(const auto bytes, tensor_bytes(tensor, "safetensors"));
  ISTHMUS_ASSIGN(const auto offsets, read_counts(entry, "data_offsets", name));
  if (offsets.size() != 2 || offsets[0] > offsets[1] || offsets[1] - offsets[0] != bytes) {
    return tensor_error(ErrorCode::kCorrupt, name,
                        "has data_offsets that do not fit its " + std::to_string(bytes) + " bytes");
  }
  if (offsets[1] > data.size()) {
    return tensor_error(ErrorCode::kTruncated, name,
                        "ends at " + std::to_string(offsets[1]) + " but the file has " +
                            std::to_string(data.size()) + " bytes of data");
  }
  tensor.data = data.subspan(static_cast<size_t>(offsets[0]), static_cast<size_t>(bytes));
  extents.push_back({name, offsets[0], offsets[1]});
  return tensor;
}

}  // namespace

Result<std::vector<Tensor>> parse(std::span<const std::byte> file) {
  uint64_t header_bytes = 0;
  if (file.size() < sizeof header_bytes) {
    return fail(ErrorCode::kTruncated,
                "safetensors: a file of " + std::to_string(file.size()) + " bytes has no header");
  }
  std::memcpy(&header_bytes, file.data(), sizeof header_bytes);
  if (header_bytes > kMaxHeaderBytes) {
    return fail(ErrorCode::kTooLarge, "safetensors: a header of " + std::to_string(header_bytes) +
                                          " bytes, more than " + std::to_string(kMaxHeaderBytes));
  }
  const auto rest = file.subspan(sizeof header_bytes);
  if (header_bytes > rest.size()) {
    return fail(ErrorCode::kTruncated, "safetensors: a header of " + std::to_string(header_bytes) +
                                           " bytes in a file of " + std::to_string(file.size()));
  }
  ISTHMUS_ASSIGN(const auto document,
                 parse_json(rest.first(static_cast<size_t>(header_bytes)), kHeaderName));
  const auto data = rest.subspan(static_cast<size_t>(header_bytes));
  const JsonObject header(document, kHeaderName);
  std::vector<Tensor> tensors;
  std::vector<Extent> extents;
  for (const auto& [name, node] : document.items()) {
    if (name == "__metadata__") continue;
    ISTHMUS_ASSIGN(const auto entry, header.item(node, name));
    ISTHMUS_ASSIGN(auto tensor, read_tensor(entry, name, data, extents));
    tensors.push_back(std::move(tensor));
  }
  // The names in `extents` are the document's keys.
  ISTHMUS_TRY(check_disjoint(std::move(extents), "safetensors"));
  return tensors;
}

}  // namespace isthmus::model::safetensors
