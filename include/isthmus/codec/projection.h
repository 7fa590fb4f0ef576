// A learned projection: a few numbers in place of a row's D, trained so that the model behind it
// still understands (DEL: Gu et al. 2026, arXiv 2602.11513).
#pragma once

#include <isthmus/core/error.h>
#include <isthmus/core/matrix.h>
#include <cstddef>
#include <cstdint>

namespace isthmus::codec {

/// Two linear maps without bias: the device's encoder [d, D] and the server's decoder [D, d]. Each
/// side needs only its own. Immutable. Every sum is taken in one fixed order, so that results are
/// the same on every machine.
class Projection {
 public:
  /// Largest magnitude of an entry.
  static constexpr float kMaxEntry = 0x1p20F;

  /// \param id names it in specs: the hash of the artefact that it comes from
  /// \param encoder [d, D], or empty for the server's part
  /// \param decoder [D, d], or empty for the device's part
  /// \returns kInvalidArgument when both are empty, shapes do not fit each other, d is above
  /// D or D above kMaxWidth (spec.h); kNotFinite for an entry that is not finite or above
  /// kMaxEntry.
  [[nodiscard]] static Result<Projection> make(uint64_t id, const Matrix& encoder,
                                               const Matrix& decoder);

  [[nodiscard]] uint64_t id() const { return id_; }
  /// D
  [[nodiscard]] size_t width() const { return width_; }
  /// d
  [[nodiscard]] size_t dims() const { return dims_; }
  [[nodiscard]] bool has_encoder() const { return !transposed_encoder_.empty(); }
  [[nodiscard]] bool has_decoder() const { return !transposed_decoder_.empty(); }

  /// [T, D] to [T, d]. \returns kNotFound without an encoder. Shapes must fit.
  [[nodiscard]] Status encode(MatrixView<const float> rows, MatrixView<float> latents) const;
  /// [T, d] to [T, D]. \returns kNotFound without a decoder. Shapes must fit.
  [[nodiscard]] Status decode(MatrixView<const float> latents, MatrixView<float> rows) const;

 private:
  Projection() = default;

  uint64_t id_ = 0;
  size_t width_ = 0;
  size_t dims_ = 0;
  Matrix transposed_encoder_;  // [D, d]
  Matrix transposed_decoder_;  // [d, D]
};

}  // namespace isthmus::codec
