// A cursor over the bytes of a GGUF file that never reads past their end.
#pragma once

#include <isthmus/core/error.h>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>

namespace isthmus::model::gguf {

static_assert(std::endian::native == std::endian::little, "numbers are read as they lie in files");

/// Reads little-endian values front to back. Every error is kTruncated and says what was being
/// read.
class ByteReader {
 public:
  explicit ByteReader(std::span<const std::byte> bytes) : bytes_(bytes) {}

  [[nodiscard]] size_t position() const { return position_; }
  [[nodiscard]] size_t remaining() const { return bytes_.size() - position_; }
  /// The bytes between two positions already passed.
  [[nodiscard]] std::span<const std::byte> passed(size_t from, size_t to) const {
    return bytes_.subspan(from, to - from);
  }

  [[nodiscard]] Result<std::span<const std::byte>> take(uint64_t count, std::string_view what) {
    if (count > remaining()) {
      return fail(ErrorCode::kTruncated, "gguf: " + std::string(what) + " takes " +
                                             std::to_string(count) + " bytes at " +
                                             std::to_string(position_) + " but the file has " +
                                             std::to_string(bytes_.size()));
    }
    const auto taken = bytes_.subspan(position_, static_cast<size_t>(count));
    position_ += taken.size();
    return taken;
  }

  template <typename T>
  [[nodiscard]] Result<T> number(std::string_view what) {
    ISTHMUS_ASSIGN(const auto taken, take(sizeof(T), what));
    T value;
    std::memcpy(&value, taken.data(), sizeof value);
    return value;
  }

  /// A string with its u64 length in front.
  [[nodiscard]] Result<std::string_view> string(std::string_view what) {
    ISTHMUS_ASSIGN(const auto length, number<uint64_t>(what));
    ISTHMUS_ASSIGN(const auto taken, take(length, what));
    return std::string_view(reinterpret_cast<const char*>(taken.data()), taken.size());
  }

 private:
  std::span<const std::byte> bytes_;
  size_t position_ = 0;
};

}  // namespace isthmus::model::gguf
