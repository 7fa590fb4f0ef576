#include <isthmus/kernels/dispatch.h>

#include <algorithm>
#include <cmath>
#include <string_view>
#include <vector>

#include "coded_row.h"
#include "klt_variants.h"
#include "transform.h"

namespace isthmus::codec {
namespace {

using Kernel = void (*)(const TiledProduct&);

/// The variant that belongs to the kernels of the machine. A wish for another one that cannot be
/// fulfilled is reported where engines are made; here the results are the same.
Kernel choose_kernel() {
#ifdef ISTHMUS_X86_KERNELS
  const auto selected = kernels::select_kernels();
  const std::string_view name = selected ? (*selected)->name : "generic";
  if (name == "avx512") return avx512::tiled_product;
  if (name == "avx2") return avx2::tiled_product;
#endif
  return generic::tiled_product;
}

/// A block's matrix [inner, outputs] in tiles; `at(i, n)` gives its elements.
template <typename At>
std::vector<uint16_t> tiled(size_t inner, size_t outputs, const At& at) {
  const size_t tiles = (outputs + kTileColumns - 1) / kTileColumns;
  std::vector<uint16_t> result(tiles * kTileColumns * inner);
  for (size_t i = 0; i < inner; ++i) {
    for (size_t n = 0; n < outputs; ++n) {
      const size_t inside = n % kTileColumns;
      result[(n - inside) * inner + i * kTileColumns + inside] = at(i, n);
    }
  }
  return result;
}

/// Gives every component of `output` from `used` on the size that they have together in what the
/// block was.
void keep_norm(std::span<const float> input, std::span<float> output, size_t used) {
  const std::span<float> others = output.subspan(used);
  if (others.empty()) return;
  const double rest = std::max(energy(input) - energy(output.first(used)), 0.0);
  const double size = std::sqrt(rest / static_cast<double>(others.size()));
  std::fill(others.begin(), others.end(), static_cast<float>(size));
}

class KltTransform final : public RowTransform {
 public:
  KltTransform(const Calibration& calibration, std::span<const size_t> used)
      : kernel_(choose_kernel()), block_(calibration.block()), used_(used.begin(), used.end()) {
    for (size_t b = 0; b < used_.size(); ++b) {
      const std::span<const uint16_t> matrix = calibration.matrix(b);
      forward_.push_back(
          tiled(block_, used_[b], [&](size_t i, size_t n) { return matrix[i * block_ + n]; }));
      inverse_.push_back(
          tiled(used_[b], block_, [&](size_t i, size_t n) { return matrix[n * block_ + i]; }));
    }
  }

  void forward(MatrixView<float> rows) const override {
    const std::vector<float> input = apply(rows, [&](size_t b, TiledProduct& p) {
      p.inner = block_;
      p.outputs = used_[b];
      p.matrix = forward_[b].data();
    });
    for (size_t r = 0; r < rows.rows(); ++r) {
      for (size_t b = 0; b < used_.size(); ++b) {
        const size_t first = b * block_;
        keep_norm(std::span(input).subspan(r * rows.cols() + first, block_),
                  rows.row(r).subspan(first, block_), used_[b]);
      }
    }
  }

  void inverse(MatrixView<float> rows) const override {
    apply(rows, [&](size_t b, TiledProduct& p) {
      p.inner = used_[b];
      p.outputs = block_;
      p.matrix = inverse_[b].data();
    });
  }

 private:
  /// \returns the rows as they were.
  template <typename Describe>
  std::vector<float> apply(MatrixView<float> rows, const Describe& describe) const {
    std::vector<float> input(rows.values().begin(), rows.values().end());
    for (size_t b = 0; b < used_.size(); ++b) {
      TiledProduct p{.x = input.data() + b * block_,
                     .x_stride = rows.cols(),
                     .y = rows.data() + b * block_,
                     .y_stride = rows.cols(),
                     .rows = rows.rows()};
      describe(b, p);
      kernel_(p);
    }
    return input;
  }

  Kernel kernel_;
  size_t block_;
  std::vector<size_t> used_;
  std::vector<std::vector<uint16_t>> forward_;
  std::vector<std::vector<uint16_t>> inverse_;
};

}  // namespace

std::unique_ptr<const RowTransform> make_klt(const Calibration& calibration,
                                             std::span<const size_t> used) {
  return std::make_unique<const KltTransform>(calibration, used);
}

}  // namespace isthmus::codec
