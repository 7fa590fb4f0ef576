// Norm, gates and rotation. Part of every variant, see lanes.h.
#pragma once

#include "float_product.h"

namespace isthmus::kernels::ISTHMUS_ISA {
namespace {

void silu_gate(const float* gate, const float* up, size_t size, float* y) {
  for (size_t i = 0; i < size; ++i) y[i] = gate[i] / (1 + exp(-gate[i])) * up[i];
}

/// 0.5 x (1 + tanh(u)) is x / (1 + e^(-2u)), which loses nothing where tanh is near -1.
void gelu_gate(const float* gate, const float* up, size_t size, float* y) {
  constexpr float kTwiceRootTwoOverPi = 1.5957691216F;
  for (size_t i = 0; i < size; ++i) {
    const float x = gate[i];
    const float twice_u = kTwiceRootTwoOverPi * (x + 0.044715F * x * x * x);
    y[i] = x / (1 + exp(-twice_u)) * up[i];
  }
}

void softcap(float* x, float cap, size_t size) {
  for (size_t i = 0; i < size; ++i) x[i] = cap * tanh(x[i] / cap);
}

void rms_norm(const float* x, const float* weight, float epsilon, size_t size, float* y) {
  float squares[1][1];
  dot_tile<1, 1>(x, 0, x, 0, size, squares);
  const float scale = 1 / __builtin_sqrtf(squares[0][0] / static_cast<float>(size) + epsilon);
  for (size_t i = 0; i < size; ++i) y[i] = x[i] * scale * weight[i];
}

template <bool Adjacent>
inline void rotate_pairs(float* head, size_t pairs, const float* cos_sin) {
  for (size_t i = 0; i < pairs; ++i) {
    float& a = Adjacent ? head[2 * i] : head[i];
    float& b = Adjacent ? head[2 * i + 1] : head[i + pairs];
    const float cos = cos_sin[i];
    const float sin = cos_sin[pairs + i];
    const float x = a;
    const float y = b;
    a = x * cos - y * sin;
    b = y * cos + x * sin;
  }
}

void rotate(float* head, size_t pairs, bool adjacent, const float* cos_sin) {
  if (adjacent) {
    rotate_pairs<true>(head, pairs, cos_sin);
  } else {
    rotate_pairs<false>(head, pairs, cos_sin);
  }
}

}  // namespace
}  // namespace isthmus::kernels::ISTHMUS_ISA
