// Boundary activations to bytes and back, as a CodecSpec says.
//
// Without a mechanism none of this hides anything: a boundary is as good as the text itself.
#pragma once

#include <isthmus/codec/calibration.h>
#include <isthmus/codec/projection.h>
#include <isthmus/codec/spec.h>
#include <isthmus/core/error.h>
#include <isthmus/core/matrix.h>
#include <isthmus/core/random.h>
#include <cstddef>
#include <memory>
#include <span>
#include <vector>

namespace isthmus::codec {

/// What a spec may need beside its text.
struct CodecResources {
  std::shared_ptr<const Calibration> calibration;  ///< for klt and reorder; else ignored
  std::shared_ptr<const Projection> projection;    ///< for proj; else ignored
  RandomSource* random =
      nullptr;  ///< borrowed; for encoding with sint or a mechanism; else ignored
};

/// The one of `calibrations` that the spec names; null when it names none or it is not there.
[[nodiscard]] std::shared_ptr<const Calibration> find_calibration(
    const CodecSpec& spec, std::span<const std::shared_ptr<const Calibration>> calibrations);

/// One spec made ready for rows of one width: tables, signs, matrices. Immutable, so it is safe to
/// use from several threads as far as `resources.random` is.
///
/// What a row decodes to depends on that row's numbers alone (and on the random numbers drawn for
/// it), not on the rows beside it, and is the same on every machine.
class BoundaryCodec {
 public:
  /// \returns what CodecSpec::validate and privacy::make_mechanism return; kUnsupported when the
  /// spec does not fit the width, or that is above kMaxWidth; kNotFound when it names a calibration
  /// or a projection that was not given, kInvalidArgument when that has another width.
  [[nodiscard]] static Result<BoundaryCodec> make(const CodecSpec& spec, size_t width,
                                                  const CodecResources& resources = {});
  BoundaryCodec(BoundaryCodec&&) noexcept;
  BoundaryCodec& operator=(BoundaryCodec&&) noexcept;
  ~BoundaryCodec();

  /// What was asked for, with the mechanism's derived parameters in place of an epsilon: the text
  /// to negotiate.
  [[nodiscard]] const CodecSpec& spec() const;
  [[nodiscard]] size_t width() const;
  /// Numbers of a row behind the projection: what is clipped, noised and written. Equal to `width`
  /// without one.
  [[nodiscard]] size_t coded_width() const;
  /// The mechanism, for its statement and for accounting: each row that is encoded is one release.
  /// Null when the spec has none.
  [[nodiscard]] const privacy::Mechanism* mechanism() const;
  /// Whether equal rows are encoded differently: with a mechanism, and with sint.
  [[nodiscard]] bool is_random() const;

  /// The most bytes that `rows` rows can take. Entropy coding never exceeds plain packing by more
  /// than one byte a message. \returns kTooLarge when the number does not fit.
  [[nodiscard]] Result<size_t> max_encoded_bytes(size_t rows) const;

  /// Encodes [T, width]. \returns kNotFinite naming the row when it holds NaN or infinity, or a
  /// number that the spec cannot carry: one that bf16 or f16 would round to infinity (within 2^-8
  /// or 2^-11 of float's largest), and 2^100 and more for all but plain numbers; kInvalidArgument
  /// for another width, or when random numbers are needed and there is no source of them; kNotFound
  /// when the projection has no encoder.
  [[nodiscard]] Result<std::vector<std::byte>> encode(MatrixView<const float> rows) const;

  /// Natural logs of the chances that each of `candidates` [N, width] is encoded as each of M
  /// messages of one row: what an attacker who knows the mechanism computes. A vector of M for each
  /// candidate. \returns what `decode_into` returns for the messages; kInvalidArgument without a
  /// mechanism or for another width; kNotFinite; kNotFound when the projection has no encoder.
  [[nodiscard]] Result<std::vector<std::vector<double>>> log_likelihoods(
      std::span<const std::vector<std::byte>> messages, MatrixView<const float> candidates) const;

  /// What `rows` [N, width] decode to on average over the draws of a codec that `is_random`, which
  /// are unbiased: clipped, and no more. \returns kInvalidArgument for another codec or width;
  /// kNotFound when the projection lacks a half.
  [[nodiscard]] Result<Matrix> expectations(MatrixView<const float> rows) const;

  /// Decodes bytes that may come from anyone into `rows`, whose shape says what is expected.
  /// \returns kCorrupt when the bytes are not what `encode` makes of so many rows as far as a
  /// reader can tell (length, ranges, what is left over), kNotFinite when a plain number is not
  /// finite, kInvalidArgument for another width; `rows` may have been written to then.
  [[nodiscard]] Status decode_into(std::span<const std::byte> bytes, MatrixView<float> rows) const;

 private:
  class Impl;
  [[nodiscard]] Status check_width(size_t columns) const;
  [[nodiscard]] Result<Matrix> projected(MatrixView<const float> rows) const;
  explicit BoundaryCodec(std::unique_ptr<const Impl> impl);
  std::unique_ptr<const Impl> impl_;
};

}  // namespace isthmus::codec
