// A privacy mechanism's codes. They are drawn by the mechanism, which clips the row itself; all
// that follows here works on what may be seen by anyone.
#include <algorithm>
#include <bit>
#include <vector>

#include "quantizer.h"

namespace isthmus::codec {
namespace {

// Codes less likely than this have no place in the table. More symbols than kMostSymbols share one,
// and their low bits are sent as they are.
constexpr double kLeastProbability = 0.5 / (1U << FrequencyTable::kBits);
constexpr size_t kMostSymbols = 200;
constexpr unsigned kPiece = 15;  // raw bits that the entropy coder takes at once

/// What is likely for a coordinate at 0, which noise that hides something makes likely for all.
struct Likely {
  size_t first = 0;  // of the range's codes
  size_t count = 0;
  unsigned low_bits = 0;
  std::vector<double> weights;  // of the groups, and of an escape

  explicit Likely(const std::vector<double>& distribution) {
    size_t end = distribution.size();
    while (end - first > 1 && distribution[end - 1] < kLeastProbability) --end;
    while (end - first > 1 && distribution[first] < kLeastProbability) ++first;
    while ((end - first - 1) >> low_bits >= kMostSymbols) ++low_bits;
    count = end - first;
    weights.resize(((count - 1) >> low_bits) + 2);
    for (size_t i = 0; i < count; ++i) weights[i >> low_bits] += distribution[first + i];
    weights.back() = kLeastProbability;
  }
};

class MechanismQuantizer final : public RowQuantizer {
 public:
  explicit MechanismQuantizer(std::unique_ptr<const privacy::Mechanism> mechanism)
      : mechanism_(std::move(mechanism)),
        range_(mechanism_->code_range()),
        bits_(static_cast<unsigned>(std::bit_width(most()))),
        likely_(mechanism_->zero_distribution()),
        table_(likely_.weights) {}

  Status quantize(std::span<float> row, RandomSource* random, CodedRow& coded) const override {
    coded.draws.resize(row.size());
    return mechanism_->randomize(row, *random, coded.draws);
  }

  Status reconstruct(const CodedRow& coded, std::span<float> row) const override {
    return mechanism_->estimate(coded.draws, row);
  }

  bool has_scale() const override { return false; }
  bool is_random() const override { return true; }

  size_t most_bits() const override { return mechanism_->width() * bits_; }

  void write(const CodedRow& coded, BitWriter& bits) const override {
    for (const int32_t code : coded.draws) bits.put(offset_of(code), bits_);
  }

  bool read(BitReader& bits, CodedRow& coded) const override {
    return read_all(coded, [&] { return bits.get(bits_); });
  }

  void write(const CodedRow& coded, RansEncoder& encoder) const override {
    for (const int32_t code : coded.draws) {
      const uint32_t offset = offset_of(code);
      const uint32_t place = offset - static_cast<uint32_t>(likely_.first);
      if (offset < likely_.first || place >= likely_.count) {
        encoder.symbol(table_, table_.size() - 1);
        write_raw(offset, bits_, encoder);
      } else {
        encoder.symbol(table_, place >> likely_.low_bits);
        write_raw(place & ((1U << likely_.low_bits) - 1), likely_.low_bits, encoder);
      }
    }
  }

  bool read(RansDecoder& decoder, CodedRow& coded) const override {
    return read_all(coded, [&] {
      const uint32_t symbol = decoder.symbol(table_);
      if (symbol == table_.size() - 1) return read_raw(bits_, decoder);
      const uint32_t place = (symbol << likely_.low_bits) + read_raw(likely_.low_bits, decoder);
      return place + static_cast<uint32_t>(likely_.first);
    });
  }

 private:
  uint32_t most() const { return static_cast<uint32_t>(range_.last - range_.first); }
  uint32_t offset_of(int32_t code) const { return static_cast<uint32_t>(code - range_.first); }

  static void write_raw(uint32_t value, unsigned count, RansEncoder& encoder) {
    for (; count > kPiece; count -= kPiece, value >>= kPiece)
      encoder.bits(value & ((1U << kPiece) - 1), kPiece);
    if (count > 0) encoder.bits(value, count);
  }

  static uint32_t read_raw(unsigned count, RansDecoder& decoder) {
    uint32_t value = 0;
    for (unsigned at = 0; at < count; at += kPiece)
      value |= decoder.bits(std::min(kPiece, count - at)) << at;
    return value;
  }

  template <typename ReadOffset>
  bool read_all(CodedRow& coded, const ReadOffset& read_offset) const {
    coded.draws.resize(mechanism_->width());
    bool valid = true;
    for (int32_t& code : coded.draws) {
      const uint32_t offset = read_offset();
      valid = valid && offset <= most();
      code = range_.first + static_cast<int32_t>(std::min(offset, most()));
    }
    return valid;
  }

  std::unique_ptr<const privacy::Mechanism> mechanism_;
  privacy::CodeRange range_;
  unsigned bits_;
  Likely likely_;
  FrequencyTable table_;
};

}  // namespace

std::unique_ptr<const RowQuantizer> make_mechanism_quantizer(
    std::unique_ptr<const privacy::Mechanism> mechanism) {
  return std::make_unique<MechanismQuantizer>(std::move(mechanism));
}

}  // namespace isthmus::codec
