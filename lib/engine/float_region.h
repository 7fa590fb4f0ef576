// Floats in memory of their own: reserved at once, committed page by page as they are written.
#pragma once

#include <isthmus/core/error.h>
#include <cstddef>

namespace isthmus::engine {

/// `size` floats that read as zero until written. Move-only. The start is aligned to a page.
class FloatRegion {
 public:
  /// For a region that fills slowly, or never: memory is committed in small pages.
  /// \returns kOutOfMemory when the address space cannot be had.
  [[nodiscard]] static Result<FloatRegion> reserve(size_t size);
  /// For a region that is filled at once and read in full again and again: huge pages are asked
  /// for. \returns kOutOfMemory
  [[nodiscard]] static Result<FloatRegion> allocate(size_t size);

  FloatRegion() = default;
  FloatRegion(FloatRegion&& other) noexcept;
  FloatRegion& operator=(FloatRegion&& other) noexcept;
  ~FloatRegion();

  [[nodiscard]] float* data() { return data_; }
  [[nodiscard]] const float* data() const { return data_; }
  [[nodiscard]] size_t size() const { return size_; }

 private:
  FloatRegion(float* data, size_t size) : data_(data), size_(size) {}

  float* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace isthmus::engine
