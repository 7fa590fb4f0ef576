// Block floating point: neighbours share an exponent. Code k in [-2^(b-1) + 1, 2^(b-1) - 1] stands
// for k 2^(1-b) times the block's power of two, which is the row's over 2^n, n < 16.
#include <algorithm>
#include <vector>

#include "model.h"
#include "quantizer.h"

namespace isthmus::codec {
namespace {

constexpr unsigned kExponentBits = 4;
constexpr uint32_t kMostBelow = (1U << kExponentBits) - 1;
// The standard deviation of a block's coordinates over its power of two, on average for blocks of
// 32 Gaussian numbers.
constexpr double kDeviation = 0.35;

class BlockQuantizer final : public RowQuantizer {
 public:
  BlockQuantizer(const BlockFloat& format, const RowStatistics& rows)
      : format_(format),
        width_(rows.width),
        most_((1 << (format.bits - 1)) - 1),
        table_(Distribution(Shape::kGaussian), Cells::kAround,
               class_of(kDeviation * static_cast<double>(1U << (format.bits - 1))), format.bits) {}

  Status quantize(std::span<float> row, RandomSource* /*random*/, CodedRow& coded) const override {
    coded.exponents.clear();
    coded.scale = power_above(largest_of(row));
    for (size_t begin = 0; begin < row.size(); begin += format_.block) {
      const std::span<const float> block = block_of(std::span<const float>(row), begin);
      const uint32_t power = power_above(largest_of(block));
      const uint32_t below = std::min((coded.scale - power) / kOctave, kMostBelow);
      coded.exponents.push_back(static_cast<uint8_t>(below));
      const float step = step_of(coded.scale, below);
      for (size_t i = 0; i < block.size(); ++i)
        coded.codes[begin + i] = step > 0 ? rounded(block[i] / step) : int16_t{0};
    }
    return {};
  }

  Status reconstruct(const CodedRow& coded, std::span<float> row) const override {
    for (size_t i = 0; i < row.size(); ++i) {
      const float step = step_of(coded.scale, coded.exponents[i / format_.block]);
      row[i] = static_cast<float>(coded.codes[i]) * step;
    }
    return {};
  }

  size_t most_bits() const override { return blocks() * kExponentBits + width_ * format_.bits; }

  void write(const CodedRow& coded, BitWriter& bits) const override {
    for (const uint8_t exponent : coded.exponents) bits.put(exponent, kExponentBits);
    for (const int16_t code : coded.codes)
      bits.put(static_cast<uint32_t>(code + most_ + 1), format_.bits);
  }

  void write(const CodedRow& coded, RansEncoder& encoder) const override {
    for (const uint8_t exponent : coded.exponents) encoder.bits(exponent, kExponentBits);
    for (const int16_t code : coded.codes)
      encoder.symbol(table_.frequencies, static_cast<size_t>(code + most_ + 1));
  }

  bool read(BitReader& bits, CodedRow& coded) const override {
    return read_all(
        coded, [&] { return bits.get(kExponentBits); }, [&] { return bits.get(format_.bits); });
  }

  bool read(RansDecoder& decoder, CodedRow& coded) const override {
    return read_all(
        coded, [&] { return decoder.bits(kExponentBits); },
        [&] { return decoder.symbol(table_.frequencies); });
  }

 private:
  static constexpr uint32_t kOctave = 16;  // in scale codes

  size_t blocks() const { return (width_ + format_.block - 1) / format_.block; }

  template <typename T>
  std::span<T> block_of(std::span<T> row, size_t begin) const {
    return row.subspan(begin, std::min<size_t>(format_.block, row.size() - begin));
  }

  /// Scale code of the least power of two that is not below `largest`; 0 for tiny numbers.
  static uint32_t power_above(float largest) {
    const uint32_t code = scale_code_above(largest);
    return code == 0 ? 0 : (code - 1 + kOctave - 1) / kOctave * kOctave + 1;
  }

  float step_of(uint32_t scale, uint32_t below) const {
    return scale_of(scale) / static_cast<float>(1U << (format_.bits - 1 + below));
  }

  int16_t rounded(float value) const {
    const auto most = static_cast<float>(most_);
    const float limited = std::min(std::max(value, -most), most);
    return static_cast<int16_t>(limited + std::copysign(0.5F, limited));
  }

  template <typename ReadExponent, typename ReadCode>
  bool read_all(CodedRow& coded, const ReadExponent& exponent, const ReadCode& code) const {
    coded.exponents.resize(blocks());
    for (uint8_t& e : coded.exponents) e = static_cast<uint8_t>(exponent());
    bool valid = true;
    for (int16_t& c : coded.codes) {
      c = static_cast<int16_t>(static_cast<int>(code()) - most_ - 1);
      valid = valid && c >= -most_;
    }
    return valid;
  }

  BlockFloat format_;
  size_t width_;
  int most_;
  CodeTable table_;
};

}  // namespace

std::unique_ptr<const RowQuantizer> make_block_quantizer(const BlockFloat& format,
                                                         const RowStatistics& rows) {
  return std::make_unique<BlockQuantizer>(format, rows);
}

}  // namespace isthmus::codec
