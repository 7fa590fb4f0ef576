// The variants of klt_kernel.h.
#pragma once

#include <cstddef>
#include <cstdint>

namespace isthmus::codec {

inline constexpr size_t kTileColumns = 64;

/// y[t, n] = sum over i of x[t, i] * matrix[i, n]. The matrix lies in tiles of kTileColumns columns
/// one after the other, each [inner, kTileColumns], the last one filled up with zeros.
struct TiledProduct {
  const float* x = nullptr;
  size_t x_stride = 0;
  const uint16_t* matrix = nullptr;  // bfloat16
  float* y = nullptr;
  size_t y_stride = 0;
  size_t rows = 0;
  size_t inner = 0;
  size_t outputs = 0;
};

namespace generic {
void tiled_product(const TiledProduct& p);
}
namespace avx2 {
void tiled_product(const TiledProduct& p);  // x86-64 only
}
namespace avx512 {
void tiled_product(const TiledProduct& p);  // x86-64 only
}

}  // namespace isthmus::codec
