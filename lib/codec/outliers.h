// Threshold splitting: a row's largest coordinates are taken out of it, so that one scale fits the
// rest, and travel with their positions.
#pragma once

#include <isthmus/codec/spec.h>

#include <span>

#include "bits.h"
#include "coded_row.h"
#include "rans.h"

namespace isthmus::codec {

class OutlierSplitter {
 public:
  OutlierSplitter(const Split& split, size_t width);

  /// Moves the outliers of `row` into `outliers`, and leaves zeros behind.
  void take(std::span<float> row, Outliers& outliers) const;
  /// Adds them again.
  void put_back(const Outliers& outliers, std::span<float> row) const;

  /// Bits of `count` outliers in plain packing.
  [[nodiscard]] size_t packed_bits(size_t count) const;
  /// The most outliers of a row.
  [[nodiscard]] size_t most() const { return most_; }
  void write(const Outliers& outliers, BitWriter& bits) const;
  void write(const Outliers& outliers, RansEncoder& encoder) const;
  /// False when the positions are not in order or not in the row.
  [[nodiscard]] bool read(BitReader& bits, Outliers& outliers) const;
  [[nodiscard]] bool read(RansDecoder& decoder, Outliers& outliers) const;

 private:
  [[nodiscard]] size_t count_above_threshold(std::span<const float> row,
                                             std::span<const uint32_t> candidates) const;

  Split split_;
  size_t width_;
  uint32_t most_;           // outliers of a row
  unsigned position_bits_;  // packed
  unsigned count_bits_;     // packed; 0 when the count is fixed
  FrequencyTable counts_;
  FrequencyTable gaps_;       // bit widths of the distances between positions
  FrequencyTable exponents_;  // binary16 exponents, largest first
};

}  // namespace isthmus::codec
