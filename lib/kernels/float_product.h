// The float product and its order of summation. Part of every variant, see lanes.h. The including
// source defines ISTHMUS_TILE_OUTPUTS by ISTHMUS_TILE_ROWS: how many sums fit in registers.
#pragma once

#include "lanes.h"

namespace isthmus::kernels::ISTHMUS_ISA {
namespace {

/// sums[r][o] = row r of `x` . row o of `weights`, for a tile of rows and outputs. Rows lie
/// `stride` floats apart.
template <size_t Rows, size_t Outputs>
inline void dot_tile(const float* x, size_t x_stride, const float* weights, size_t weight_stride,
                     size_t inner, float (&sums)[Rows][Outputs]) {
  Lanes lanes[Rows][Outputs] = {};
  size_t i = 0;
  for (; i + kLanes <= inner; i += kLanes) {
    Lanes w[Outputs];
    ISTHMUS_UNROLL
    for (size_t o = 0; o < Outputs; ++o) w[o] = load(weights + o * weight_stride + i);
    ISTHMUS_UNROLL
    for (size_t r = 0; r < Rows; ++r) {
      const Lanes row = load(x + r * x_stride + i);
      ISTHMUS_UNROLL
      for (size_t o = 0; o < Outputs; ++o) add_product(lanes[r][o], row, w[o]);
    }
  }
  if (const size_t rest = inner - i; rest > 0) {
    ISTHMUS_UNROLL
    for (size_t o = 0; o < Outputs; ++o) {
      const Lanes w = load_first(weights + o * weight_stride + i, rest);
      ISTHMUS_UNROLL
      for (size_t r = 0; r < Rows; ++r) {
        add_product(lanes[r][o], load_first(x + r * x_stride + i, rest), w);
      }
    }
  }
  ISTHMUS_UNROLL
  for (size_t r = 0; r < Rows; ++r) {
    ISTHMUS_UNROLL
    for (size_t o = 0; o < Outputs; ++o) sums[r][o] = reduce(lanes[r][o]);
  }
}

template <size_t Rows, size_t Outputs>
inline void product_tile(const Product& p, size_t row, size_t output) {
  float sums[Rows][Outputs];
  dot_tile<Rows, Outputs>(p.x + row * p.inner, p.inner, p.weights + output * p.inner, p.inner,
                          p.inner, sums);
  for (size_t r = 0; r < Rows; ++r) {
    float* y = p.y + (row + r) * p.y_stride + output;
    for (size_t o = 0; o < Outputs; ++o) {
      y[o] = p.bias == nullptr ? sums[r][o] : sums[r][o] + p.bias[output + o];
    }
  }
}

/// All rows against outputs [output, output + Outputs).
template <size_t Outputs>
inline void product_rows(const Product& p, size_t output) {
  size_t row = 0;
  for (; row + ISTHMUS_TILE_ROWS <= p.rows; row += ISTHMUS_TILE_ROWS) {
    product_tile<ISTHMUS_TILE_ROWS, Outputs>(p, row, output);
  }
  for (; row < p.rows; ++row) product_tile<1, Outputs>(p, row, output);
}

/// A tile's weight rows stay in the first cache while all rows pass by, so that the weights are
/// read from memory once for a whole prompt.
void product(const Product& p) {
  size_t output = p.first_output;
  for (; output + ISTHMUS_TILE_OUTPUTS <= p.end_output; output += ISTHMUS_TILE_OUTPUTS) {
    product_rows<ISTHMUS_TILE_OUTPUTS>(p, output);
  }
  for (; output < p.end_output; ++output) product_rows<1>(p, output);
}

}  // namespace
}  // namespace isthmus::kernels::ISTHMUS_ISA
