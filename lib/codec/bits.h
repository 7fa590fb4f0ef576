// Numbers of a few bits each, packed without gaps, the lowest bit first.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace isthmus::codec {

class BitWriter {
 public:
  explicit BitWriter(std::vector<std::byte>& bytes) : bytes_(bytes) {}
  /// \param count at most 32; higher bits of `value` must be 0.
  void put(uint32_t value, unsigned count) {
    pending_ |= uint64_t{value} << filled_;
    filled_ += count;
    for (; filled_ >= 8; filled_ -= 8, pending_ >>= 8)
      bytes_.push_back(static_cast<std::byte>(pending_));
  }
  /// Fills the last byte with zeros.
  void finish() {
    if (filled_ > 0) put(0, 8 - filled_);
  }

 private:
  std::vector<std::byte>& bytes_;
  uint64_t pending_ = 0;
  unsigned filled_ = 0;
};

class BitReader {
 public:
  explicit BitReader(std::span<const std::byte> bytes) : bytes_(bytes) {}
  /// \param count at most 32. Past the end it gives zeros and remembers that.
  uint32_t get(unsigned count) {
    for (; filled_ < count; filled_ += 8, ++read_)
      if (read_ < bytes_.size()) pending_ |= std::to_integer<uint64_t>(bytes_[read_]) << filled_;
    const auto value = static_cast<uint32_t>(pending_ & ((uint64_t{1} << count) - 1));
    pending_ >>= count;
    filled_ -= count;
    return value;
  }
  /// Whether more was read than there is.
  [[nodiscard]] bool overrun() const { return read_ > bytes_.size(); }
  /// Bytes touched so far.
  [[nodiscard]] size_t position() const { return read_; }
  /// Whether the rest of the last byte touched is zeros.
  [[nodiscard]] bool rest_is_zero() const { return pending_ == 0; }

 private:
  std::span<const std::byte> bytes_;
  size_t read_ = 0;
  uint64_t pending_ = 0;
  unsigned filled_ = 0;
};

}  // namespace isthmus::codec
