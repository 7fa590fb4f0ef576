// Statistics of public text at one cut of one model, and the transform made from them: the
// Karhunen-Loeve transform, which turns correlated channels into uncorrelated components. Most
// components are small and cost almost no bits.
#pragma once

#include <isthmus/core/error.h>
#include <isthmus/core/matrix.h>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace isthmus::codec {

/// A calibration: immutable, made by `calibrate` or read from a file, named by the hash of its
/// bytes. Both sides need the same one. It holds nothing but averages over public text.
///
/// File: "ISTHKLT1", then little-endian uint32 width D, uint32 block size B (a divisor of D),
/// float32 variance[D] of the components and float32 size[D] of the channels (root mean square),
/// both of rows scaled to unit mean square, and D / B orthogonal matrices [B, B] in bfloat16, whose
/// columns are the components of a block in order of falling variance.
class Calibration {
 public:
  /// Most components of a block.
  static constexpr size_t kMaxBlock = 4'096;

  /// \returns kCorrupt or kTruncated for bytes that are no calibration; kTooLarge when D is above
  /// kMaxWidth (spec.h) or B above kMaxBlock.
  [[nodiscard]] static Result<Calibration> parse(std::span<const std::byte> bytes);
  /// `parse` of a file. \returns also kNotFound, kIo.
  [[nodiscard]] static Result<Calibration> load(const std::string& path);

  [[nodiscard]] size_t width() const { return variance_.size(); }
  [[nodiscard]] size_t block() const { return block_; }
  [[nodiscard]] std::span<const float> variance() const { return variance_; }
  [[nodiscard]] std::span<const float> channel_size() const { return channel_size_; }
  /// Of block b: [block, block], row = channel, column = component; bfloat16.
  [[nodiscard]] std::span<const uint16_t> matrix(size_t b) const {
    return std::span(matrices_).subspan(b * block_ * block_, block_ * block_);
  }
  /// First 8 bytes of the BLAKE2b hash of the file's bytes, as a big-endian number.
  [[nodiscard]] uint64_t hash() const { return hash_; }
  [[nodiscard]] std::vector<std::byte> serialize() const;
  /// Writes the file, over one that is there. \returns kIo.
  [[nodiscard]] Status save(const std::string& path) const;

 private:
  friend Result<Calibration> calibrate(MatrixView<const float> rows, size_t block);
  Calibration() = default;

  size_t block_ = 0;
  std::vector<float> variance_;
  std::vector<float> channel_size_;
  std::vector<uint16_t> matrices_;
  uint64_t hash_ = 0;
};

/// Makes a calibration from boundary rows [T, D] of public text; several thousand rows are wanted.
/// Every row counts alike: it is scaled to unit mean square after coordinates of more than 16 times
/// the rest's root mean square have been left out.
/// \param block size of the transform's blocks; 0 chooses D up to 1,024, and above that the largest
/// divisor of D up to 512. Time grows with D * block^2 + T * D * block.
/// \returns kInvalidArgument when there are fewer than 2 rows, the block is no divisor or above
/// kMaxBlock, or D is out of range; kNotFinite naming a row.
[[nodiscard]] Result<Calibration> calibrate(MatrixView<const float> rows, size_t block = 0);

}  // namespace isthmus::codec
