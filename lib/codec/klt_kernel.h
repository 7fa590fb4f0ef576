// Products of a few rows with a bfloat16 matrix, compiled once for each instruction set. A sum runs
// over the rows of the matrix in their order, each product rounded before it is added, so neither
// the register width nor the rows done together show in the result.
//
// The sources of the variants define, before they include this: ISTHMUS_ISA, the bytes of a vector
// register, how many vectors of columns are kept in registers for one row, and how many rows and
// vectors when there are several. It holds no inline functions, as kernel_table.h explains.
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "klt_variants.h"

namespace isthmus::codec::ISTHMUS_ISA {
namespace {

using Floats = float __attribute__((vector_size(ISTHMUS_VECTOR_BYTES)));
using Words = uint32_t __attribute__((vector_size(ISTHMUS_VECTOR_BYTES)));
using Halves = uint16_t __attribute__((vector_size(ISTHMUS_VECTOR_BYTES / 2)));
constexpr size_t kLanes = ISTHMUS_VECTOR_BYTES / sizeof(float);

// Vectors go by reference: by value, how they are passed would depend on the instruction set.
void load_bf16(const uint16_t* from, Floats& to) {
  Halves halves;
  std::memcpy(&halves, from, sizeof halves);
  const Words words = __builtin_convertvector(halves, Words) << 16;
  std::memcpy(&to, &words, sizeof to);
}

/// `Rows` rows with `Vectors` vectors of columns.
template <size_t Rows, size_t Vectors>
void tile(const TiledProduct& p, const uint16_t* matrix, size_t row, size_t column) {
  Floats sums[Rows][Vectors] = {};
  for (size_t i = 0; i < p.inner; ++i, matrix += kTileColumns) {
    for (size_t v = 0; v < Vectors; ++v) {
      Floats weights;
      load_bf16(matrix + v * kLanes, weights);
      for (size_t r = 0; r < Rows; ++r) sums[r][v] += p.x[(row + r) * p.x_stride + i] * weights;
    }
  }
  for (size_t r = 0; r < Rows; ++r) {
    for (size_t v = 0; v < Vectors; ++v) {
      const size_t first = column + v * kLanes;
      if (first >= p.outputs) break;
      const size_t count = p.outputs - first < kLanes ? p.outputs - first : kLanes;
      std::memcpy(p.y + (row + r) * p.y_stride + first, &sums[r][v], count * sizeof(float));
    }
  }
}

template <size_t Rows>
void rows_product(const TiledProduct& p, size_t row) {
  constexpr size_t kVectors = Rows == 1 ? ISTHMUS_ROW_VECTORS : ISTHMUS_TILE_VECTORS;
  for (size_t column = 0; column < p.outputs; column += kVectors * kLanes) {
    const size_t inside = column % kTileColumns;
    const uint16_t* const matrix = p.matrix + (column - inside) * p.inner + inside;
    tile<Rows, kVectors>(p, matrix, row, column);
  }
}

}  // namespace

void tiled_product(const TiledProduct& p) {
  size_t row = 0;
  for (; row + ISTHMUS_TILE_ROWS <= p.rows; row += ISTHMUS_TILE_ROWS)
    rows_product<ISTHMUS_TILE_ROWS>(p, row);
  for (; row < p.rows; ++row) rows_product<1>(p, row);
}

}  // namespace isthmus::codec::ISTHMUS_ISA
