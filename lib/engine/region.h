// Memory straight from the system: reserved at once, committed page by page as it is written.
#pragma once

#include <isthmus/core/error.h>
#include <cstddef>
#include <vector>

namespace isthmus::engine {

/// Bytes that read as zero until written. Move-only. The start is aligned to a page.
class Region {
 public:
  /// For a region that fills slowly, or never: memory is committed in small pages.
  /// \returns kOutOfMemory when the address space cannot be had.
  [[nodiscard]] static Result<Region> reserve(size_t bytes);
  /// For a region that is filled at once and read in full again and again: huge pages are asked
  /// for. \returns kOutOfMemory
  [[nodiscard]] static Result<Region> allocate(size_t bytes);

  Region() = default;
  Region(Region&& other) noexcept;
  Region& operator=(Region&& other) noexcept;
  ~Region();

  [[nodiscard]] std::byte* data() { return data_; }
  [[nodiscard]] size_t size() const { return size_; }

 private:
  Region(std::byte* data, size_t size) : data_(data), size_(size) {}

  std::byte* data_ = nullptr;
  size_t size_ = 0;
};

/// Pieces of memory that live until the arena goes, packed into few regions so that small weights
/// share huge pages.
class Arena {
 public:
  /// `bytes` bytes, zero, aligned to 64. \returns kOutOfMemory
  [[nodiscard]] Result<std::byte*> take(size_t bytes);
  /// The same as floats.
  [[nodiscard]] Result<float*> take_floats(size_t count);
  /// All that was taken.
  [[nodiscard]] size_t size() const { return taken_; }

 private:
  std::vector<Region> regions_;
  size_t used_ = 0;  // of the last region
  size_t taken_ = 0;
};

}  // namespace isthmus::engine
