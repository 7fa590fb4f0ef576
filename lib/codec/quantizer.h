// Coordinates of a row to small integers and back, and how those integers are written.
#pragma once

#include <isthmus/codec/spec.h>
#include <isthmus/core/random.h>
#include <isthmus/privacy/mechanism.h>

#include <memory>
#include <span>

#include "bits.h"
#include "coded_row.h"
#include "rans.h"

namespace isthmus::codec {

/// What a quantiser may assume about the rows it sees: their transform's output.
struct RowStatistics {
  size_t width = 0;
  bool rotated = false;  ///< Gaussian coordinates of equal size
  std::span<const float>
      variance;  ///< of each coordinate of a row of unit mean square; may be empty
};

/// Immutable; one for each codec.
class RowQuantizer {
 public:
  virtual ~RowQuantizer() = default;

  /// Fills codes, scale and what else the quantiser uses of `coded`; `row` may be written to.
  /// \param random not null if `is_random`
  /// \returns what a mechanism returns; the others do not fail.
  [[nodiscard]] virtual Status quantize(std::span<float> row, RandomSource* random,
                                        CodedRow& coded) const = 0;
  /// The numbers that `coded` stands for.
  [[nodiscard]] virtual Status reconstruct(const CodedRow& coded, std::span<float> row) const = 0;

  /// Whether rows have a scale; a mechanism's must not.
  [[nodiscard]] virtual bool has_scale() const { return true; }
  /// Whether `quantize` needs random numbers.
  [[nodiscard]] virtual bool is_random() const { return false; }

  /// Bits of a row in plain packing at most, without its scale.
  [[nodiscard]] virtual size_t most_bits() const = 0;
  /// The same of one row.
  [[nodiscard]] virtual size_t packed_bits(const CodedRow& /*coded*/) const { return most_bits(); }
  virtual void write(const CodedRow& coded, BitWriter& bits) const = 0;
  virtual void write(const CodedRow& coded, RansEncoder& encoder) const = 0;
  /// False when what is read is out of range.
  [[nodiscard]] virtual bool read(BitReader& bits, CodedRow& coded) const = 0;
  [[nodiscard]] virtual bool read(RansDecoder& decoder, CodedRow& coded) const = 0;
};

/// int, sint, tabq, sign.
[[nodiscard]] std::unique_ptr<const RowQuantizer> make_uniform_quantizer(const Quantizer& quantizer,
                                                                         const RowStatistics& rows);
/// Whether step and trellis code a component of this variance (of rows of unit mean square); they
/// take the others for 0.
[[nodiscard]] bool is_worth_coding(const Step& step, float variance);
/// step, trellis.
[[nodiscard]] std::unique_ptr<const RowQuantizer> make_step_quantizer(const Step& step,
                                                                      const RowStatistics& rows);
/// bfp.
[[nodiscard]] std::unique_ptr<const RowQuantizer> make_block_quantizer(const BlockFloat& format,
                                                                       const RowStatistics& rows);

/// binomial, dgauss, rqm.
[[nodiscard]] std::unique_ptr<const RowQuantizer> make_mechanism_quantizer(
    std::unique_ptr<const privacy::Mechanism> mechanism);

/// Walks from `start` to the neighbour with the least cost, one step at a time, until none is
/// better. The range is [least, most].
template <typename Cost>
uint32_t walk_downhill(uint32_t start, uint32_t least, uint32_t most, uint32_t stride,
                       const Cost& cost) {
  uint32_t best = start;
  auto best_cost = cost(best);
  for (const bool up : {true, false}) {
    for (;;) {
      if (up ? most - best < stride : best - least < stride) break;
      const uint32_t next = up ? best + stride : best - stride;
      const auto next_cost = cost(next);
      if (!(next_cost < best_cost)) break;
      best = next;
      best_cost = next_cost;
    }
    if (best != start) break;
  }
  return best;
}

}  // namespace isthmus::codec
