#include <isthmus/core/random.h>
#include <isthmus/kernels/portable_math.h>

#include <bit>
#include <cmath>
#include <numeric>
#include <vector>

#include "transform.h"

namespace isthmus::codec {
namespace {

constexpr size_t kMostBlocks = 1024;

/// Hadamard transform (Sylvester's order, not scaled) of `size` neighbours.
void hadamard(float* x, size_t size) {
  size_t h = 1;
  if (size >= 4) {
    for (size_t i = 0; i < size; i += 4) {
      const float a = x[i] + x[i + 1];
      const float b = x[i] - x[i + 1];
      const float c = x[i + 2] + x[i + 3];
      const float d = x[i + 2] - x[i + 3];
      x[i] = a + c;
      x[i + 1] = b + d;
      x[i + 2] = a - c;
      x[i + 3] = b - d;
    }
    h = 4;
  }
  for (; h < size; h *= 2) {
    for (size_t i = 0; i < size; i += 2 * h) {
      float* const low = x + i;
      float* const high = x + i + h;
      for (size_t j = 0; j < h; ++j) {
        const float a = low[j];
        const float b = high[j];
        low[j] = a + b;
        high[j] = a - b;
      }
    }
  }
}

class Rotation final : public RowTransform {
 public:
  Rotation(uint32_t seed, size_t width)
      : block_(width & (~width + 1)), blocks_(width / block_), signs_(width) {
    for (size_t i = 0; i < width; ++i) signs_[i] = counter_uniform(seed, i) < 0.5 ? -1.0F : 1.0F;
    // Entry (p, q) of the Hartley transform is cos + sin of 2 pi p q / blocks: symmetric and its
    // own inverse. The Hadamard transform's scale is in it too.
    hartley_.resize(blocks_ * blocks_);
    const double scale = 1 / std::sqrt(static_cast<double>(width));
    constexpr double kTurn = 6.283185307179586477;
    for (size_t p = 0; p < blocks_; ++p) {
      for (size_t q = 0; q < blocks_; ++q) {
        const kernels::SinCos angle = kernels::portable_sin_cos(
            kTurn * static_cast<double>(p * q % blocks_) / static_cast<double>(blocks_));
        hartley_[p * blocks_ + q] = static_cast<float>(scale * (angle.cos + angle.sin));
      }
    }
  }

  void forward(MatrixView<float> rows) const override {
    std::vector<float> scratch(signs_.size());
    for (size_t r = 0; r < rows.rows(); ++r) {
      const std::span<float> row = rows.row(r);
      for (size_t i = 0; i < row.size(); ++i) row[i] *= signs_[i];
      mix(row, scratch);
    }
  }

  void inverse(MatrixView<float> rows) const override {
    std::vector<float> scratch(signs_.size());
    for (size_t r = 0; r < rows.rows(); ++r) {
      const std::span<float> row = rows.row(r);
      mix(row, scratch);
      for (size_t i = 0; i < row.size(); ++i) row[i] *= signs_[i];
    }
  }

 private:
  /// Both transforms without the signs; symmetric and its own inverse.
  void mix(std::span<float> row, std::vector<float>& scratch) const {
    for (size_t b = 0; b < blocks_; ++b) hadamard(row.data() + b * block_, block_);
    if (blocks_ == 1) {
      for (float& value : row) value *= hartley_[0];
      return;
    }
    for (size_t p = 0; p < blocks_; ++p) {
      float* const out = scratch.data() + p * block_;
      for (size_t j = 0; j < block_; ++j) out[j] = hartley_[p * blocks_] * row[j];
      for (size_t q = 1; q < blocks_; ++q) {
        const float factor = hartley_[p * blocks_ + q];
        const float* const in = row.data() + q * block_;
        for (size_t j = 0; j < block_; ++j) out[j] += factor * in[j];
      }
    }
    std::copy(scratch.begin(), scratch.end(), row.begin());
  }

  size_t block_;   // the power of two in the width
  size_t blocks_;  // what is left of it
  std::vector<float> signs_;
  std::vector<float> hartley_;  // [blocks, blocks]
};

class Reordering final : public RowTransform {
 public:
  explicit Reordering(const Calibration& calibration) : order_(calibration.width()) {
    std::iota(order_.begin(), order_.end(), size_t{0});
    const std::span<const float> size = calibration.channel_size();
    std::stable_sort(order_.begin(), order_.end(),
                     [size](size_t a, size_t b) { return size[a] > size[b]; });
  }

  void forward(MatrixView<float> rows) const override {
    std::vector<float> sorted(order_.size());
    for (size_t r = 0; r < rows.rows(); ++r) {
      const std::span<float> row = rows.row(r);
      for (size_t i = 0; i < row.size(); ++i) sorted[i] = row[order_[i]];
      std::copy(sorted.begin(), sorted.end(), row.begin());
    }
  }

  void inverse(MatrixView<float> rows) const override {
    std::vector<float> channels(order_.size());
    for (size_t r = 0; r < rows.rows(); ++r) {
      const std::span<float> row = rows.row(r);
      for (size_t i = 0; i < row.size(); ++i) channels[order_[i]] = row[i];
      std::copy(channels.begin(), channels.end(), row.begin());
    }
  }

 private:
  std::vector<size_t> order_;  // channel of each sorted place
};

}  // namespace

Result<std::unique_ptr<const RowTransform>> make_rotation(uint32_t seed, size_t width) {
  const size_t blocks = width / (width & (~width + 1));
  if (blocks > kMostBlocks) {
    return fail(ErrorCode::kUnsupported,
                "codec: rotate takes widths whose largest odd divisor is at most " +
                    std::to_string(kMostBlocks) + ", that of " + std::to_string(width) + " is " +
                    std::to_string(blocks));
  }
  return std::make_unique<const Rotation>(seed, width);
}

std::unique_ptr<const RowTransform> make_reordering(const Calibration& calibration) {
  return std::make_unique<const Reordering>(calibration);
}

}  // namespace isthmus::codec
