// The arithmetic of the exact path: one set of functions, compiled once per instruction set.
//
// Every variant gives the same bits. A sum of products is kept in 16 float lanes: element i is
// added to lane i % 16 in the order of i, each product rounded before it is added (no fused
// multiply-add), and at the end lane j takes lane j + 8, then j + 4, j + 2 and j + 1. Elementary
// functions are built from basic operations alone, not from libm. So neither the tile that an
// output happens to be computed in nor the width of a register shows in the result.
//
// The sources of the variants include this header, so it holds no inline functions: a linker would
// keep one copy, maybe the one with instructions that this machine lacks.
#pragma once

#include <cstddef>

namespace isthmus::kernels {

/// y[t, n] = sum over i of x[t, i] * weights[n, i], plus bias[n]; the columns
/// [first_output, end_output) of y are written.
struct Product {
  const float* x = nullptr;        ///< [rows, inner]
  const float* weights = nullptr;  ///< [outputs, inner]
  const float* bias = nullptr;     ///< [outputs], or null for none
  float* y = nullptr;              ///< [rows, outputs]
  size_t rows = 0;
  size_t inner = 0;
  size_t outputs = 0;
  size_t first_output = 0;
  size_t end_output = 0;
};

/// One query head against `count` >= 1 positions of one key/value head:
/// out = sum over p of softmax(softcap(scale * query . key p)) * value p.
struct Attention {
  const float* query = nullptr;   ///< [head_size]
  const float* keys = nullptr;    ///< [count, head_size], rows `stride` apart
  const float* values = nullptr;  ///< as `keys`
  size_t stride = 0;
  size_t count = 0;
  size_t head_size = 0;
  float scale = 1;
  float softcap = 0;        ///< c tanh(x / c) on the scaled scores; 0: none
  float* scores = nullptr;  ///< [count] scratch
  float* out = nullptr;     ///< [head_size]
};

/// The functions of one instruction set. Pointers need no alignment; outputs do not overlap inputs
/// unless said.
struct KernelTable {
  const char* name;

  void (*product)(const Product& product);
  void (*attend)(const Attention& attention);
  /// y = x / sqrt(mean(x^2) + epsilon) * weight, all [size]; y may be x.
  void (*rms_norm)(const float* x, const float* weight, float epsilon, size_t size, float* y);
  /// y = silu(gate) * up, all [size].
  void (*silu_gate)(const float* gate, const float* up, size_t size, float* y);
  /// y = gelu(gate) * up with GELU's tanh approximation, all [size].
  void (*gelu_gate)(const float* gate, const float* up, size_t size, float* y);
  /// x = cap tanh(x / cap), [size], in place.
  void (*softcap)(float* x, float cap, size_t size);
};

}  // namespace isthmus::kernels
