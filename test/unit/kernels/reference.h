// What the kernels should compute, as plainly as it can be written: the lane order in float, whose
// bits every variant must give, and the mathematics in double, which they must come close to.
#pragma once

#include <isthmus/kernels/kernel_table.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
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

/// What one query reads from keys and values [count, head_size].
inline std::vector<double> attend_in_double(std::span<const float> query,
                                            std::span<const float> keys,
                                            std::span<const float> values, double scale,
                                            double softcap) {
  const size_t head_size = query.size();
  const size_t count = keys.size() / head_size;
  std::vector<double> scores(count);
  for (size_t p = 0; p < count; ++p) {
    scores[p] = scale * dot_in_double(query.data(), keys.data() + p * head_size, head_size);
    if (softcap > 0) scores[p] = softcap * std::tanh(scores[p] / softcap);
  }
  const double largest = *std::max_element(scores.begin(), scores.end());
  double total = 0;
  for (double& score : scores) total += score = std::exp(score - largest);
  std::vector<double> out(head_size);
  for (size_t p = 0; p < count; ++p) {
    for (size_t i = 0; i < head_size; ++i) {
      out[i] += scores[p] / total * values[p * head_size + i];
    }
  }
  return out;
}

/// One row as bytes, with the memory that QuantizedRows points to.
struct ByteRow {
  ByteRow(size_t inputs, bool two_bytes)
      : codes((inputs + 31) / 32 * 32),
        half_sums(codes.size() / 16),
        fine_codes(two_bytes ? codes.size() : 0),
        fine_half_sums(two_bytes ? half_sums.size() : 0),
        scales(codes.size() / 32),
        sums(codes.size() / 32) {}
  /// From group `group` on.
  kernels::QuantizedRows get(size_t group = 0) {
    kernels::QuantizedRows rows;
    rows.coarse = {codes.data() + 32 * group, half_sums.data() + 2 * group};
    if (!fine_codes.empty()) {
      rows.fine = {fine_codes.data() + 32 * group, fine_half_sums.data() + 2 * group};
    }
    rows.scales = scales.data() + group;
    rows.sums = sums.data() + group;
    return rows;
  }
  /// Both bytes of number i together.
  [[nodiscard]] int32_t code(size_t i) const {
    return fine_codes.empty() ? codes[i] : codes[i] * kernels::kCoarseStep + fine_codes[i];
  }

  std::vector<int8_t> codes;
  std::vector<int32_t> half_sums;
  std::vector<int8_t> fine_codes;
  std::vector<int32_t> fine_half_sums;
  std::vector<float> scales;
  std::vector<float> sums;
};

/// Codes of `x` as `KernelTable::quantize` states them.
inline ByteRow quantize(std::span<const float> x, bool two_bytes) {
  ByteRow row(x.size(), two_bytes);
  const float top_code = two_bytes ? 127 * kernels::kCoarseStep : 127;
  for (size_t g = 0; g < row.scales.size(); ++g) {
    const auto group = x.subspan(g * 32, std::min<size_t>(32, x.size() - g * 32));
    float top = 0;
    for (const float value : group) top = std::max(top, std::abs(value));
    if (top < 0x1p-100F) continue;
    row.scales[g] = top / top_code;
    int32_t sum = 0;
    for (size_t i = 0; i < group.size(); ++i) {
      const size_t at = g * 32 + i;
      const auto code = static_cast<int>(std::nearbyint(group[i] * (top_code / top)));
      const int coarse = two_bytes ? static_cast<int>(std::nearbyint(code / 254.0)) : code;
      row.codes[at] = static_cast<int8_t>(coarse);
      row.half_sums[at / 16] += coarse;
      if (two_bytes) {
        row.fine_codes[at] = static_cast<int8_t>(code - coarse * kernels::kCoarseStep);
        row.fine_half_sums[at / 16] += row.fine_codes[at];
      }
      sum += code;
    }
    row.sums[g] = row.scales[g] * static_cast<float>(sum);
  }
  return row;
}

/// One output of a packed product in the order that PackedProduct states. `weight(i)` is the
/// integer code of input i (an offset of 8 taken away), `scale(i)` and `offset(g)` as float.
template <typename Code, typename Scale, typename Offset>
float packed_dot(const ByteRow& x, bool half_groups, bool offsets, const Code& code,
                 const Scale& scale, const Offset& offset) {
  float output = 0;
  for (size_t g = 0; g < x.scales.size(); ++g) {
    int64_t dots[2] = {0, 0};
    for (size_t i = g * 32; i < g * 32 + 32; ++i) dots[i / 16 % 2] += int64_t{code(i)} * x.code(i);
    float products = 0;
    if (half_groups) {
      products = static_cast<float>(dots[0]) * scale(g * 32) +
                 static_cast<float>(dots[1]) * scale(g * 32 + 16);
    } else {
      products = static_cast<float>(dots[0] + dots[1]) * scale(g * 32);
    }
    float sum = products * x.scales[g];
    if (offsets) sum += offset(g) * x.sums[g];
    output += sum;
  }
  return output;
}

}  // namespace isthmus::test
