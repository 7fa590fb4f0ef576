#include "scarce_memory.h"

#include <cstdlib>
#include <new>

namespace isthmus::test {
namespace {

struct Shortage {
  size_t least = 0;  // 0: there is none
  size_t allocations_before = 0;
};
thread_local Shortage shortage;

// Null when there is none, or when it is this one's turn to fail.
void* allocate(size_t size) noexcept {
  if (shortage.least > 0 && size >= shortage.least && shortage.allocations_before-- == 0) {
    shortage = {};
    return nullptr;
  }
  return std::malloc(size == 0 ? 1 : size);
}

void* allocate_or_throw(size_t size) {
  void* const memory = allocate(size);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}

}  // namespace

ScarceMemory::ScarceMemory(size_t least, size_t index) {
  shortage = {.least = least, .allocations_before = index};
}
ScarceMemory::~ScarceMemory() {
  shortage = {};
}
bool ScarceMemory::has_failed() const {
  return shortage.least == 0;
}

}  // namespace isthmus::test

// The program's own, all of those without an alignment: a sanitizer has its own of what is left
// out.
void* operator new(size_t size) {
  return isthmus::test::allocate_or_throw(size);
}
void* operator new[](size_t size) {
  return isthmus::test::allocate_or_throw(size);
}
void* operator new(size_t size, const std::nothrow_t&) noexcept {
  return isthmus::test::allocate(size);
}
void* operator new[](size_t size, const std::nothrow_t&) noexcept {
  return isthmus::test::allocate(size);
}
void operator delete(void* memory) noexcept {
  std::free(memory);
}
void operator delete[](void* memory) noexcept {
  std::free(memory);
}
void operator delete(void* memory, size_t) noexcept {
  std::free(memory);
}
void operator delete[](void* memory, size_t) noexcept {
  std::free(memory);
}
void operator delete(void* memory, const std::nothrow_t&) noexcept {
  std::free(memory);
}
void operator delete[](void* memory, const std::nothrow_t&) noexcept {
  std::free(memory);
}
