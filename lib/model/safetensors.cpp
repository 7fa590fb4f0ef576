#include <isthmus/model/safetensors.h>

#include <cstring>
#include <stdexcept>
#include <utility>

#include "atomic_file.h"
#include "extents.h"
#include "json_object.h"
#include "mapped_file.h"
#include "quote.h"

namespace isthmus::model::safetensors {
namespace {

constexpr std::string_view kHeaderName = "safetensors header";
constexpr const char* kMetadata = "__metadata__";

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

/// Where the header of a file ends, which is where its data begin.
struct Sections {
  nlohmann::json header;
  std::span<const std::byte> data;
};

Result<Sections> split(std::span<const std::byte> file) {
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
  const auto size = static_cast<size_t>(header_bytes);
  ISTHMUS_ASSIGN(nlohmann::json header, parse_json(rest.first(size), kHeaderName));
  return Sections{std::move(header), rest.subspan(size)};
}

}  // namespace

Result<std::vector<Tensor>> parse(std::span<const std::byte> file) {
  ISTHMUS_ASSIGN(const Sections sections, split(file));
  const JsonObject header(sections.header, kHeaderName);
  std::vector<Tensor> tensors;
  std::vector<Extent> extents;
  for (const auto& [name, node] : sections.header.items()) {
    if (name == kMetadata) continue;
    ISTHMUS_ASSIGN(const auto entry, header.item(node, name));
    ISTHMUS_ASSIGN(auto tensor, read_tensor(entry, name, sections.data, extents));
    tensors.push_back(std::move(tensor));
  }
  // The names in `extents` are the document's keys.
  ISTHMUS_TRY(check_disjoint(std::move(extents), "safetensors"));
  return tensors;
}

Result<std::map<std::string, std::string>> metadata(std::span<const std::byte> file) {
  ISTHMUS_ASSIGN(const Sections sections, split(file));
  ISTHMUS_ASSIGN(const auto object, JsonObject(sections.header, kHeaderName).object(kMetadata));
  std::map<std::string, std::string> entries;
  if (!object) return entries;
  for (const auto& [key, node] : object->node().items()) {
    ISTHMUS_ASSIGN(entries[key], object->get<std::string>(key));
  }
  return entries;
}

std::vector<std::byte> write(std::span<const Tensor> tensors,
                             const std::map<std::string, std::string>& metadata) {
  nlohmann::json header = {{kMetadata, metadata}};
  uint64_t end = 0;
  for (const Tensor& tensor : tensors) {
    if ((tensor.type != DType::kF32 && tensor.type != DType::kF16) ||
        tensor_bytes(tensor, "safetensors").value_or(0) != tensor.data.size()) {
      throw std::invalid_argument("safetensors: cannot write '" + tensor.name + "'");
    }
    const uint64_t begin = end;
    end += tensor.data.size();
    header[tensor.name] = {{"dtype", tensor.type == DType::kF32 ? "F32" : "F16"},
                           {"shape", tensor.shape},
                           {"data_offsets", {begin, end}}};
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');  // so that data are aligned
  const uint64_t header_bytes = text.size();
  std::vector<std::byte> file(sizeof header_bytes + text.size());
  std::memcpy(file.data(), &header_bytes, sizeof header_bytes);
  std::memcpy(file.data() + sizeof header_bytes, text.data(), text.size());
  for (const Tensor& tensor : tensors)
    file.insert(file.end(), tensor.data.begin(), tensor.data.end());
  return file;
}

Result<std::vector<std::byte>> load(const std::filesystem::path& path, size_t most_bytes) {
  ISTHMUS_ASSIGN(const MappedFile file, MappedFile::open(path));
  const std::span<const std::byte> bytes = file.bytes();
  if (bytes.size() > most_bytes) {
    return fail(ErrorCode::kTooLarge,
                "safetensors: " + quote(path.string()) + " has " + std::to_string(bytes.size()) +
                    " bytes, it may have at most " + std::to_string(most_bytes));
  }
  return std::vector<std::byte>(bytes.begin(), bytes.end());
}

Status save(const std::filesystem::path& path, std::span<const Tensor> tensors,
            const std::map<std::string, std::string>& metadata) {
  ISTHMUS_ASSIGN(AtomicFile file, AtomicFile::create(path));
  ISTHMUS_TRY(file.write(write(tensors, metadata)));
  return file.commit();
}

}  // namespace isthmus::model::safetensors
