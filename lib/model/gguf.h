// The GGUF container, versions 2 and 3, little-endian. Nothing is copied: names and values point
// into the bytes given.
//
// A file is, without padding but where said
// (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md):
//
//   magic            4 bytes   "GGUF"
//   version          u32       2 or 3; a big-endian file shows here as 2 or 3 with swapped bytes
//   tensor_count     u64
//   metadata_count   u64
//   metadata_count times, keys unique:
//     key            string    u64 length, then that many bytes; at most 65535, not empty
//     type           u32       ValueType
//     value                    a number or bool as it is, a string, or an array:
//                                item type u32 (not array), count u64, the items
//   tensor_count times, names unique:
//     name           string    at most 64 bytes, not empty
//     n_dims         u32       1 to 4
//     dims           u64 each  innermost (contiguous) first; the first a multiple of the type's
//     block type           u32       DType offset         u64       from the data section, a
//     multiple of the alignment
//   padding to the alignment: metadata general.alignment (u32, a power of two), else 32
//   data                       the tensors, not overlapping, gaps allowed
#pragma once

#include <isthmus/core/error.h>
#include <isthmus/model/model_file.h>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace isthmus::model::gguf {

enum class ValueType : uint32_t {
  kU8 = 0,
  kI8 = 1,
  kU16 = 2,
  kI16 = 3,
  kU32 = 4,
  kI32 = 5,
  kF32 = 6,
  kBool = 7,
  kString = 8,
  kArray = 9,
  kU64 = 10,
  kI64 = 11,
  kF64 = 12,
};

/// One metadata entry; its bytes are known to lie inside the file and to be well-formed.
struct Entry {
  std::string_view key;
  bool is_array = false;
  ValueType type = ValueType::kU8;   ///< of the value, or of an array's items
  uint64_t count = 1;                ///< items; 1 for a plain value
  std::span<const std::byte> items;  ///< the value, or the items one after the other
  std::span<const std::byte> whole;  ///< key, type and value as they lie in the file
};

/// The key-value part of a file. `T` is bool, int32_t, float, std::string_view or std::string;
/// every integer type converts to int32_t when the value fits, f64 to float by rounding.
class Metadata {
 public:
  [[nodiscard]] std::span<const Entry> entries() const { return entries_; }
  [[nodiscard]] const Entry* find(std::string_view key) const;

  /// \returns kNotFound, or kCorrupt for a value of another type or out of range.
  template <typename T>
  [[nodiscard]] Result<T> get(std::string_view key) const;
  /// As `get`, with a value for an absent key.
  template <typename T>
  [[nodiscard]] Result<T> get_or(std::string_view key, T fallback) const {
    return find(key) == nullptr ? Result<T>(fallback) : get<T>(key);
  }
  /// An array's items; an absent key is an empty array. \returns kCorrupt as for `get`.
  template <typename T>
  [[nodiscard]] Result<std::vector<T>> list(std::string_view key) const;

  /// \returns kCorrupt when the key is there already.
  [[nodiscard]] Status add(const Entry& entry);

 private:
  std::vector<Entry> entries_;
  std::unordered_map<std::string_view, size_t> index_;
};

/// A parsed file.
struct Contents {
  uint64_t alignment = 32;
  Metadata metadata;
  std::vector<Tensor> tensors;  ///< in file order
};

inline constexpr std::string_view kMagic = "GGUF";
inline constexpr uint64_t kDefaultAlignment = 32;

/// Parses a whole file, which may come from anyone. The result points into `file`.
/// \returns kTruncated, kCorrupt, or kUnsupported (version, byte order, tensor type, nested array).
[[nodiscard]] Result<Contents> parse(std::span<const std::byte> file);

}  // namespace isthmus::model::gguf
