// Linear transforms of rows, in place. All are orthogonal (the calibrated one to bfloat16's
// precision), and what a row becomes depends on that row alone.
#pragma once

#include <isthmus/codec/calibration.h>
#include <isthmus/codec/spec.h>
#include <isthmus/core/error.h>
#include <isthmus/core/matrix.h>

#include <memory>
#include <span>

namespace isthmus::codec {

class RowTransform {
 public:
  virtual ~RowTransform() = default;
  virtual void forward(MatrixView<float> rows) const = 0;
  virtual void inverse(MatrixView<float> rows) const = 0;
};

/// Random signs, then a Hadamard transform of 2^k neighbours and a Hartley transform across those
/// blocks, so that every coordinate is spread over the whole row. Takes about 2 D (k + D / 2^k)
/// operations. \returns kUnsupported when D / 2^k is above 1,024.
[[nodiscard]] Result<std::unique_ptr<const RowTransform>> make_rotation(uint32_t seed,
                                                                        size_t width);

/// The calibration's Karhunen-Loeve transform.
/// \param used how many components of each block are wanted. `forward` gives the others of a block
/// one size, with which rows keep their norm; what they hold for `inverse` does not count.
[[nodiscard]] std::unique_ptr<const RowTransform> make_klt(const Calibration& calibration,
                                                           std::span<const size_t> used);

/// Channels in order of falling size.
[[nodiscard]] std::unique_ptr<const RowTransform> make_reordering(const Calibration& calibration);

}  // namespace isthmus::codec
