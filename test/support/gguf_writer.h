// GGUF files from values, with every field open to be broken.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace isthmus::test {

/// What metadata can hold; the alternative decides the type in the file.
using GgufValue = std::variant<bool, uint32_t, int32_t, uint64_t, float, double, std::string,
                               std::vector<std::string>, std::vector<int32_t>, std::vector<float>,
                               std::vector<bool>>;

/// A GGUF file. Optional fields are written as given, or else truthfully.
struct GgufFile {
  struct Entry {
    std::string key;
    std::string bytes;  ///< the type and the value as they lie in the file
    std::optional<uint64_t> key_length;
  };
  struct Tensor {
    std::string name;
    std::vector<uint64_t> dims;  ///< innermost first
    uint32_t type = 0;           ///< F32
    std::string data;
    std::optional<uint64_t> name_length;
    std::optional<uint32_t> dim_count;
    std::optional<uint64_t> offset;
  };

  std::string magic = "GGUF";
  uint32_t version = 3;
  std::optional<uint64_t> tensor_count;
  std::optional<uint64_t> entry_count;
  uint64_t alignment =
      32;  ///< how the data are laid out; written only by a general.alignment entry
  std::vector<Entry> entries;
  std::vector<Tensor> tensors;

  /// Adds an entry, or replaces the one with this key.
  void set(const std::string& key, const GgufValue& value);
  /// Adds an entry, or replaces the one with this key, by its type number and the bytes behind it.
  void set_raw(const std::string& key, uint32_t type, const std::string& value);
  void erase(std::string_view key);
  /// Adds an F32 tensor with 0, 1, 2, ... `shape` is outermost first.
  void add_tensor(const std::string& name, const std::vector<uint64_t>& shape);
  /// \throws std::out_of_range
  Tensor& tensor(std::string_view name);

  [[nodiscard]] std::string bytes() const;
};

/// Little-endian bytes of a number.
template <typename T>
std::string little_endian(T number) {
  return {reinterpret_cast<const char*>(&number), sizeof number};
}

/// A string with its u64 length in front.
std::string gguf_string(std::string_view text);

/// A complete llama of 2 layers with a vocabulary of 6: D 8, H 2, one KV head, K 4, MLP 12.
GgufFile tiny_gguf();

}  // namespace isthmus::test
