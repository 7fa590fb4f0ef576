#include "region.h"

#include <sys/mman.h>

#include <algorithm>
#include <limits>
#include <string>
#include <utility>

namespace isthmus::engine {

Result<Region> Region::reserve(size_t bytes) {
  if (bytes == 0) return Region();
  void* data = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, /*fd=*/-1, /*offset=*/0);
  if (data == MAP_FAILED) {
    return fail(ErrorCode::kOutOfMemory,
                "engine: cannot reserve memory for " + std::to_string(bytes) + " bytes");
  }
#ifdef MADV_NOHUGEPAGE
  // Where the system gives huge pages unasked, the first token of every table would take one.
  madvise(data, bytes, MADV_NOHUGEPAGE);
#endif
  return Region(static_cast<std::byte*>(data), bytes);
}

Result<Region> Region::allocate(size_t bytes) {
  ISTHMUS_ASSIGN(Region region, reserve(bytes));
#ifdef MADV_HUGEPAGE
  // Only speed depends on whether the system agrees.
  if (bytes > 0) madvise(region.data_, bytes, MADV_HUGEPAGE);
#endif
  return region;
}

Region::Region(Region&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

Region& Region::operator=(Region&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

Region::~Region() {
  if (data_ != nullptr) munmap(data_, size_);
}

Result<std::byte*> Arena::take(size_t bytes) {
  constexpr size_t kAlignment = 64;
  constexpr size_t kRegionBytes = size_t{64} << 20U;  // what is not written costs no memory
  if (bytes > std::numeric_limits<size_t>::max() - kAlignment) {
    return fail(ErrorCode::kOutOfMemory, "engine: weights take more than the address space");
  }
  const size_t rounded = (bytes + kAlignment - 1) / kAlignment * kAlignment;
  if (regions_.empty() || regions_.back().size() - used_ < rounded) {
    ISTHMUS_ASSIGN(Region region, Region::allocate(std::max(rounded, kRegionBytes)));
    regions_.push_back(std::move(region));
    used_ = 0;
  }
  std::byte* piece = regions_.back().data() + used_;
  used_ += rounded;
  taken_ += rounded;
  return piece;
}

Result<float*> Arena::take_floats(size_t count) {
  size_t bytes = 0;
  if (__builtin_mul_overflow(count, sizeof(float), &bytes)) {
    return fail(ErrorCode::kOutOfMemory, "engine: weights take more than the address space");
  }
  ISTHMUS_ASSIGN(std::byte * piece, take(bytes));
  return reinterpret_cast<float*>(piece);
}

}  // namespace isthmus::engine
