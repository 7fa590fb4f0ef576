#include "gguf.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <limits>
#include <optional>
#include <unordered_set>
#include <utility>

#include "byte_reader.h"
#include "extents.h"
#include "quote.h"

namespace isthmus::model::gguf {
namespace {

constexpr uint64_t kMaxKeyBytes = 65535;
constexpr uint64_t kMaxTensorNameBytes = 64;
constexpr uint32_t kMaxDims = 4;

struct TypeInfo {
  std::string_view name;
  size_t bytes;  // of one item; 0 for strings and arrays
};

constexpr std::array<TypeInfo, 13> kTypes = {{{"u8", 1},
                                              {"i8", 1},
                                              {"u16", 2},
                                              {"i16", 2},
                                              {"u32", 4},
                                              {"i32", 4},
                                              {"f32", 4},
                                              {"bool", 1},
                                              {"string", 0},
                                              {"array", 0},
                                              {"u64", 8},
                                              {"i64", 8},
                                              {"f64", 8}}};

const TypeInfo& info_of(ValueType type) {
  return kTypes[static_cast<size_t>(type)];
}

Result<ValueType> read_type(ByteReader& in, std::string_view key) {
  ISTHMUS_ASSIGN(const auto number, in.number<uint32_t>("a value's type"));
  if (number >= kTypes.size()) {
    return fail(ErrorCode::kCorrupt,
                "gguf: key " + quote(key) + " has unknown type " + std::to_string(number));
  }
  return static_cast<ValueType>(number);
}

Status skip_items(ByteReader& in, const Entry& entry) {
  if (entry.type == ValueType::kString) {
    for (uint64_t i = 0; i < entry.count; ++i) {  // ends with the file: each item has bytes
      ISTHMUS_TRY(in.string("a string value"));
    }
    return {};
  }
  const size_t item_bytes = info_of(entry.type).bytes;
  if (entry.count > in.remaining() / item_bytes) {
    return fail(ErrorCode::kTruncated, "gguf: key " + quote(entry.key) + " has " +
                                           std::to_string(entry.count) +
                                           " items, more than the file holds");
  }
  ISTHMUS_ASSIGN(const auto items, in.take(entry.count * item_bytes, "a value"));
  if (entry.type == ValueType::kBool) {
    const bool valid =
        std::all_of(items.begin(), items.end(), [](std::byte b) { return b <= std::byte{1}; });
    if (!valid) {
      return fail(ErrorCode::kCorrupt, "gguf: key " + quote(entry.key) + " is neither 0 nor 1");
    }
  }
  return {};
}

Result<Entry> read_entry(ByteReader& in) {
  const size_t start = in.position();
  Entry entry;
  ISTHMUS_ASSIGN(entry.key, in.string("a metadata key"));
  if (entry.key.empty() || entry.key.size() > kMaxKeyBytes) {
    return fail(ErrorCode::kCorrupt, "gguf: a key of " + std::to_string(entry.key.size()) +
                                         " bytes, not 1 to " + std::to_string(kMaxKeyBytes));
  }
  ISTHMUS_ASSIGN(entry.type, read_type(in, entry.key));
  if (entry.type == ValueType::kArray) {
    entry.is_array = true;
    ISTHMUS_ASSIGN(entry.type, read_type(in, entry.key));
    if (entry.type == ValueType::kArray) {
      return fail(ErrorCode::kUnsupported, "gguf: key " + quote(entry.key) + " is a nested array");
    }
    ISTHMUS_ASSIGN(entry.count, in.number<uint64_t>("an array's length"));
  }
  const size_t items_start = in.position();
  ISTHMUS_TRY(skip_items(in, entry));
  entry.items = in.passed(items_start, in.position());
  entry.whole = in.passed(start, in.position());
  return entry;
}

struct Placed {
  Tensor tensor;
  uint64_t offset = 0;
  uint64_t bytes = 0;
};

Result<Placed> read_tensor(ByteReader& in) {
  Placed placed;
  Tensor& tensor = placed.tensor;
  ISTHMUS_ASSIGN(tensor.name, in.string("a tensor's name"));
  if (tensor.name.empty() || tensor.name.size() > kMaxTensorNameBytes) {
    return fail(ErrorCode::kCorrupt, "gguf: a tensor name of " +
                                         std::to_string(tensor.name.size()) + " bytes, not 1 to " +
                                         std::to_string(kMaxTensorNameBytes));
  }
  ISTHMUS_ASSIGN(const auto dims, in.number<uint32_t>("a tensor's dimensions"));
  if (dims < 1 || dims > kMaxDims) {
    return fail(ErrorCode::kCorrupt, "gguf: tensor " + quote(tensor.name) + " has " +
                                         std::to_string(dims) + " dimensions, not 1 to 4");
  }
  tensor.shape.resize(dims);
  for (uint32_t i = dims; i-- > 0;) {
    ISTHMUS_ASSIGN(tensor.shape[i], in.number<uint64_t>("a tensor's dimensions"));
  }
  ISTHMUS_ASSIGN(const auto type, in.number<uint32_t>("a tensor's type"));
  tensor.type = static_cast<DType>(type);
  ISTHMUS_ASSIGN(placed.offset, in.number<uint64_t>("a tensor's offset"));
  ISTHMUS_ASSIGN(placed.bytes, tensor_bytes(tensor, "gguf"));
  return placed;
}

Result<uint64_t> read_alignment(const Metadata& metadata) {
  const Entry* entry = metadata.find("general.alignment");
  if (entry == nullptr) return kDefaultAlignment;
  ISTHMUS_ASSIGN(const auto alignment, metadata.get<int32_t>("general.alignment"));
  if (alignment <= 0 || !std::has_single_bit(static_cast<uint32_t>(alignment))) {
    return fail(ErrorCode::kCorrupt,
                "gguf: alignment " + std::to_string(alignment) + " is not a power of two");
  }
  return static_cast<uint64_t>(alignment);
}

// Points each tensor at its bytes in `data`.
Status place(std::vector<Placed>& tensors, std::span<const std::byte> data, uint64_t alignment) {
  for (Placed& placed : tensors) {
    if (placed.offset % alignment != 0) {
      return fail(ErrorCode::kCorrupt, "gguf: tensor " + quote(placed.tensor.name) +
                                           " lies at offset " + std::to_string(placed.offset) +
                                           ", not a multiple of " + std::to_string(alignment));
    }
    if (placed.offset > data.size() || placed.bytes > data.size() - placed.offset) {
      return fail(ErrorCode::kTruncated, "gguf: tensor " + quote(placed.tensor.name) + " has " +
                                             std::to_string(placed.bytes) + " bytes at offset " +
                                             std::to_string(placed.offset) +
                                             " but the file holds " + std::to_string(data.size()) +
                                             " bytes of data");
    }
    placed.tensor.data =
        data.subspan(static_cast<size_t>(placed.offset), static_cast<size_t>(placed.bytes));
  }
  std::vector<Extent> extents;
  extents.reserve(tensors.size());
  for (const Placed& placed : tensors) {
    extents.push_back({placed.tensor.name, placed.offset, placed.offset + placed.bytes});
  }
  return check_disjoint(std::move(extents), "gguf");
}

Status check_version(ByteReader& in) {
  ISTHMUS_ASSIGN(const auto magic, in.take(kMagic.size(), "the magic"));
  if (std::memcmp(magic.data(), kMagic.data(), kMagic.size()) != 0) {
    return fail(ErrorCode::kCorrupt, "gguf: the file does not start with GGUF");
  }
  ISTHMUS_ASSIGN(const auto version, in.number<uint32_t>("the version"));
  if (version != 2 && version != 3) {
    const bool swapped = version == 0x02000000 || version == 0x03000000;
    return fail(ErrorCode::kUnsupported,
                swapped ? "gguf: big-endian files are not supported"
                        : "gguf: version " + std::to_string(version) + " is not 2 or 3");
  }
  return {};
}

Result<std::vector<Placed>> read_tensors(ByteReader& in, uint64_t count) {
  std::vector<Placed> tensors;  // grows with what the file holds, not with what it claims
  for (uint64_t i = 0; i < count; ++i) {
    ISTHMUS_ASSIGN(auto placed, read_tensor(in));
    tensors.push_back(std::move(placed));
  }
  std::unordered_set<std::string_view> names;
  for (const Placed& placed : tensors) {
    if (!names.insert(placed.tensor.name).second) {
      return fail(ErrorCode::kCorrupt, "gguf: tensor " + quote(placed.tensor.name) + " twice");
    }
  }
  return tensors;
}

template <typename T>
T load(const std::byte* bytes) {
  T value;
  std::memcpy(&value, bytes, sizeof value);
  return value;
}

// Nothing for a value that is no integer or does not fit 64 bits with a sign.
std::optional<int64_t> integer_at(ValueType type, const std::byte* bytes) {
  switch (type) {
    case ValueType::kU8:
      return load<uint8_t>(bytes);
    case ValueType::kI8:
      return load<int8_t>(bytes);
    case ValueType::kU16:
      return load<uint16_t>(bytes);
    case ValueType::kI16:
      return load<int16_t>(bytes);
    case ValueType::kU32:
      return load<uint32_t>(bytes);
    case ValueType::kI32:
      return load<int32_t>(bytes);
    case ValueType::kU64:
      if (load<uint64_t>(bytes) > std::numeric_limits<int64_t>::max()) return std::nullopt;
      return load<int64_t>(bytes);
    case ValueType::kI64:
      return load<int64_t>(bytes);
    default:
      return std::nullopt;
  }
}

// The item at the reader's position as T, if it is one.
template <typename T>
std::optional<T> item(ValueType type, ByteReader& in);

template <>
std::optional<int32_t> item(ValueType type, ByteReader& in) {
  const auto bytes = in.take(info_of(type).bytes, "a value");
  const auto value = bytes ? integer_at(type, bytes->data()) : std::nullopt;
  if (!value || *value < std::numeric_limits<int32_t>::min() ||
      *value > std::numeric_limits<int32_t>::max()) {
    return std::nullopt;
  }
  return static_cast<int32_t>(*value);
}

template <>
std::optional<float> item(ValueType type, ByteReader& in) {
  if (type == ValueType::kF32) return in.number<float>("a value").value();
  if (type == ValueType::kF64) return static_cast<float>(in.number<double>("a value").value());
  return std::nullopt;
}

template <>
std::optional<bool> item(ValueType type, ByteReader& in) {
  if (type != ValueType::kBool) return std::nullopt;
  return in.number<uint8_t>("a value").value() != 0;
}

template <>
std::optional<std::string_view> item(ValueType type, ByteReader& in) {
  if (type != ValueType::kString) return std::nullopt;
  return in.string("a value").value();
}

template <>
std::optional<std::string> item(ValueType type, ByteReader& in) {
  const auto view = item<std::string_view>(type, in);
  return view ? std::optional<std::string>(*view) : std::nullopt;
}

template <typename T>
constexpr std::string_view kWanted = "a 32-bit integer";
template <>
constexpr std::string_view kWanted<float> = "a floating-point number";
template <>
constexpr std::string_view kWanted<bool> = "a bool";
template <>
constexpr std::string_view kWanted<std::string_view> = "a string";
template <>
constexpr std::string_view kWanted<std::string> = "a string";

tl::unexpected<Error> wrong_type(const Entry& entry, std::string_view wanted) {
  return fail(ErrorCode::kCorrupt, "gguf: key " + quote(entry.key) + " is " +
                                       (entry.is_array ? "an array of " : "a ") +
                                       std::string(info_of(entry.type).name) + ", not " +
                                       std::string(wanted) + " in range");
}

}  // namespace

const Entry* Metadata::find(std::string_view key) const {
  const auto found = index_.find(key);
  return found == index_.end() ? nullptr : &entries_[found->second];
}

Status Metadata::add(const Entry& entry) {
  if (!index_.emplace(entry.key, entries_.size()).second) {
    return fail(ErrorCode::kCorrupt, "gguf: key " + quote(entry.key) + " twice");
  }
  entries_.push_back(entry);
  return {};
}

template <typename T>
Result<T> Metadata::get(std::string_view key) const {
  const Entry* entry = find(key);
  if (entry == nullptr) {
    return fail(ErrorCode::kNotFound, "gguf: the file lacks the key " + quote(key));
  }
  ByteReader in(entry->items);
  const auto value = entry->is_array ? std::nullopt : item<T>(entry->type, in);
  if (!value) return wrong_type(*entry, kWanted<T>);
  return *value;
}

template <typename T>
Result<std::vector<T>> Metadata::list(std::string_view key) const {
  std::vector<T> values;
  const Entry* entry = find(key);
  if (entry == nullptr) return values;
  const std::string wanted = "an array, each item " + std::string(kWanted<T>);
  if (!entry->is_array) return wrong_type(*entry, wanted);
  values.reserve(static_cast<size_t>(entry->count));  // checked: the items lie in the file
  ByteReader in(entry->items);
  for (uint64_t i = 0; i < entry->count; ++i) {
    auto value = item<T>(entry->type, in);
    if (!value) return wrong_type(*entry, wanted);
    values.push_back(std::move(*value));
  }
  return values;
}

template Result<bool> Metadata::get(std::string_view) const;
template Result<int32_t> Metadata::get(std::string_view) const;
template Result<float> Metadata::get(std::string_view) const;
template Result<std::string_view> Metadata::get(std::string_view) const;
template Result<std::string> Metadata::get(std::string_view) const;
template Result<std::vector<bool>> Metadata::list(std::string_view) const;
template Result<std::vector<int32_t>> Metadata::list(std::string_view) const;
template Result<std::vector<float>> Metadata::list(std::string_view) const;
template Result<std::vector<std::string_view>> Metadata::list(std::string_view) const;
template Result<std::vector<std::string>> Metadata::list(std::string_view) const;

Result<Contents> parse(std::span<const std::byte> file) {
  ByteReader in(file);
  Contents contents;
  ISTHMUS_TRY(check_version(in));
  ISTHMUS_ASSIGN(const auto tensor_count, in.number<uint64_t>("the tensor count"));
  ISTHMUS_ASSIGN(const auto metadata_count, in.number<uint64_t>("the metadata count"));
  for (uint64_t i = 0; i < metadata_count; ++i) {
    ISTHMUS_ASSIGN(const auto entry, read_entry(in));
    ISTHMUS_TRY(contents.metadata.add(entry));
  }
  ISTHMUS_ASSIGN(contents.alignment, read_alignment(contents.metadata));
  ISTHMUS_ASSIGN(auto tensors, read_tensors(in, tensor_count));

  const uint64_t misfit = in.position() % contents.alignment;
  const uint64_t data_start = in.position() + (misfit == 0 ? 0 : contents.alignment - misfit);
  const auto data = data_start < file.size() ? file.subspan(static_cast<size_t>(data_start))
                                             : std::span<const std::byte>{};
  ISTHMUS_TRY(place(tensors, data, contents.alignment));
  contents.tensors.reserve(tensors.size());
  for (Placed& placed : tensors) contents.tensors.push_back(std::move(placed.tensor));
  return contents;
}

}  // namespace isthmus::model::gguf
