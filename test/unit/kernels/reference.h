// What the kernels should compute, as plainly as it can be written: the lane order in float, whose
// bits every variant must give, and the mathematics in double, which they must come close to.
#pragma once

#include <isthmus/kernels/kernel_table.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <span>
#include <vector>

namespace isthmus::test {

/// A dot product in the order that kernel_table.h states.
inline float dot_in_lanes(const float* a, const float* b, size_t size) {
  std::array<float, 16> lanes{};
  for (size_t i = 0; i < size; ++i) lanes[i % 16] += a[i] * b[i];
  for (size_t step = 8; step > 0; step /= 2) {
    for (size_t j = 0; j < step; ++j) lanes[j] += lanes[j + step];
  }
  return lanes[0];
}

inline double dot_in_double(const float* a, const float* b, size_t size) {
  double sum = 0;
  for (size_t i = 0; i < size; ++i) sum += static_cast<double>(a[i]) * b[i];
  return sum;
}

inline std::vector<double> rms_norm_in_double(std::span<const float> x,
                                              std::span<const float> weight, double epsilon) {
  const double squares = dot_in_double(x.data(), x.data(), x.size());
  const double scale = 1 / std::sqrt(squares / static_cast<double>(x.size()) + epsilon);
  std::vector<double> y(x.size());
  for (size_t i = 0; i < x.size(); ++i) y[i] = x[i] * scale * weight[i];
  return y;
}

inline double silu_in_double(double x) {
  return x / (1 + std::exp(-x));
}

inline double gelu_in_double(double x) {
  const double root_two_over_pi = std::sqrt(2 / M_PI);
  return 0.5 * x * (1 + std::tanh(root_two_over_pi * (x + 0.044715 * x * x * x)));
}

inline std::vector<double> attend_in_double(const kernels::Attention& a) {
  std::vector<double> scores(a.count);
  for (size_t p = 0; p < a.count; ++p) {
    scores[p] = a.scale * dot_in_double(a.query, a.keys + p * a.stride, a.head_size);
    if (a.softcap > 0) scores[p] = a.softcap * std::tanh(scores[p] / a.softcap);
  }
  const double largest = *std::max_element(scores.begin(), scores.end());
  double total = 0;
  for (double& score : scores) total += score = std::exp(score - largest);
  std::vector<double> out(a.head_size);
  for (size_t p = 0; p < a.count; ++p) {
    for (size_t i = 0; i < a.head_size; ++i) {
      out[i] += scores[p] / total * a.values[p * a.stride + i];
    }
  }
  return out;
}

}  // namespace isthmus::test
