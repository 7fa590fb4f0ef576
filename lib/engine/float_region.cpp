#include "float_region.h"

#include <sys/mman.h>

#include <limits>
#include <string>
#include <utility>

namespace isthmus::engine {

Result<FloatRegion> FloatRegion::reserve(size_t size) {
  if (size == 0) return FloatRegion();
  const auto out_of_memory = [size] {
    return fail(ErrorCode::kOutOfMemory,
                "engine: cannot reserve memory for " + std::to_string(size) + " floats");
  };
  if (size > std::numeric_limits<size_t>::max() / sizeof(float)) return out_of_memory();
  void* data = mmap(nullptr, size * sizeof(float), PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, /*fd=*/-1, /*offset=*/0);
  if (data == MAP_FAILED) return out_of_memory();
  return FloatRegion(static_cast<float*>(data), size);
}

Result<FloatRegion> FloatRegion::allocate(size_t size) {
  ISTHMUS_ASSIGN(FloatRegion region, reserve(size));
#ifdef MADV_HUGEPAGE
  // Only speed depends on whether the system agrees.
  if (size > 0) madvise(region.data_, size * sizeof(float), MADV_HUGEPAGE);
#endif
  return region;
}

FloatRegion::FloatRegion(FloatRegion&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

FloatRegion& FloatRegion::operator=(FloatRegion&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

FloatRegion::~FloatRegion() {
  if (data_ != nullptr) munmap(data_, size_ * sizeof(float));
}

}  // namespace isthmus::engine
