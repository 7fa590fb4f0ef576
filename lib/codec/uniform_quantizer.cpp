// Uniform levels half-way between the integers: code k in [-2^(b-1), 2^(b-1)) stands for
// (k + 1/2) step, so one bit is a sign. The scale of a row is its step.
#include <algorithm>
#include <array>
#include <vector>

#include "model.h"
#include "quantizer.h"

namespace isthmus::codec {
namespace {

// Step over standard deviation with the least error for a Gaussian, for 1 to 8 bits (J. Max,
// "Quantizing for Minimum Distortion", 1960, table II; 6 to 8 bits computed in the same way).
constexpr std::array kGaussianSteps = {1.596,  0.9957, 0.5860, 0.3352,
                                       0.1881, 0.1041, 0.0569, 0.0308};
// The errors with those steps, of variance 1.
constexpr std::array kGaussianErrors = {0.3634,   0.1188,   0.03744,   0.01154,
                                        0.003495, 0.001041, 0.0003035, 0.0000869};
constexpr uint32_t kMostBits = 8;
// The stride of the search for a row's best step, in sixteenths of an octave. The error is so flat
// around its least that half of it would gain less than 0.1 %.
constexpr uint32_t kSearchStride = 2;

constexpr size_t kLanes = 8;

/// The nearest code of value / step, as a number from 0 to 2 * half - 1.
inline int32_t level_of(float value, float inverse_step, float half) {
  const float shifted = value * inverse_step + half;
  const float limited = std::min(std::max(shifted, 0.0F), 2 * half - 1);
  return static_cast<int32_t>(limited);
}

double squared_error(std::span<const float> row, float step, uint32_t bits) {
  const auto half = static_cast<float>(1U << (bits - 1));
  const float inverse = 1 / step;
  std::array<float, kLanes> lanes{};
  const auto add = [&](size_t lane, float value) {
    const auto level = static_cast<float>(level_of(value, inverse, half));
    const float error = value * inverse - (level - half + 0.5F);
    lanes[lane] += error * error;
  };
  size_t i = 0;
  for (; i + kLanes <= row.size(); i += kLanes)
    for (size_t lane = 0; lane < kLanes; ++lane) add(lane, row[i + lane]);
  for (; i < row.size(); ++i) add(i % kLanes, row[i]);
  const float sum = ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) +
                    ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]));
  return double{sum} * double{step} * double{step};
}

/// The step with the least squared error, found downhill from a Gaussian's.
uint32_t best_step(std::span<const float> row, uint32_t bits, double rms) {
  const uint32_t start = scale_code(rms * kGaussianSteps[bits - 1]);
  if (start == 0) return 0;
  return walk_downhill(start, 1, kMaxScale, kSearchStride,
                       [&](uint32_t code) { return squared_error(row, scale_of(code), bits); });
}

class UniformQuantizer final : public RowQuantizer {
 public:
  UniformQuantizer(const Quantizer& kind, const RowStatistics& rows)
      : kind_(kind), width_(rows.width) {
    const Distribution distribution(rows.rotated ? Shape::kGaussian : Shape::kStudent4);
    for (uint32_t bits = 1; bits <= kMostBits; ++bits) {
      if (fixed_bits() != 0 && fixed_bits() != bits) continue;
      std::vector<int> classes;
      for (uint32_t shift = 0; shift < 1U << kShiftBits; ++shift)
        classes.push_back(shifted_class(expected_class(bits), shift));
      tables_[bits - 1] =
          std::make_unique<CodeTables>(distribution, Cells::kBetween, bits, classes);
    }
  }

  Status quantize(std::span<float> row, RandomSource* random, CodedRow& coded) const override {
    coded.bits = fixed_bits();
    const double row_energy = energy(row);
    const double rms = std::sqrt(row_energy / static_cast<double>(row.size()));
    if (is_random()) {
      quantize_stochastic(row, *random, coded);
    } else if (const auto* adaptive = std::get_if<AdaptiveBits>(&kind_)) {
      choose_bits(row, double{adaptive->distortion} * row_energy, rms, coded);
    } else if (std::holds_alternative<Sign>(kind_)) {
      double sum = 0;
      for (const float value : row) sum += std::abs(value);
      coded.scale = scale_code(2 * sum / static_cast<double>(row.size()));
      round(row, coded);
    } else {
      coded.scale = best_step(row, coded.bits, rms);
      round(row, coded);
    }
    choose_table(coded);
    return {};
  }

  Status reconstruct(const CodedRow& coded, std::span<float> row) const override {
    const float step = scale_of(coded.scale);
    for (size_t i = 0; i < row.size(); ++i)
      row[i] = (static_cast<float>(coded.codes[i]) + 0.5F) * step;
    return {};
  }

  bool is_random() const override {
    const auto* const uniform = std::get_if<Uniform>(&kind_);
    return uniform != nullptr && uniform->stochastic;
  }

  size_t most_bits() const override {
    return fixed_bits() != 0 ? width_ * fixed_bits() : kWidthBits + width_ * kMostBits;
  }

  size_t packed_bits(const CodedRow& coded) const override {
    return fixed_bits() != 0 ? most_bits() : kWidthBits + width_ * coded.bits;
  }

  void write(const CodedRow& coded, BitWriter& bits) const override {
    if (fixed_bits() == 0) bits.put(coded.bits - 1, kWidthBits);
    const int half = 1 << (coded.bits - 1);
    for (const int16_t code : coded.codes) bits.put(static_cast<uint32_t>(code + half), coded.bits);
  }

  void write(const CodedRow& coded, RansEncoder& encoder) const override {
    if (fixed_bits() == 0) encoder.bits(coded.bits - 1, kWidthBits);
    encoder.bits(coded.shift, kShiftBits);
    const CodeTable& table = table_of(coded.bits, coded.shift);
    for (const int16_t code : coded.codes) encoder.symbol(table.frequencies, table.symbol(code));
  }

  bool read(BitReader& bits, CodedRow& coded) const override {
    coded.bits = fixed_bits() != 0 ? fixed_bits() : bits.get(kWidthBits) + 1;
    const int half = 1 << (coded.bits - 1);
    for (int16_t& code : coded.codes)
      code = static_cast<int16_t>(static_cast<int>(bits.get(coded.bits)) - half);
    return true;
  }

  bool read(RansDecoder& decoder, CodedRow& coded) const override {
    coded.bits = fixed_bits() != 0 ? fixed_bits() : decoder.bits(kWidthBits) + 1;
    const CodeTable& table = table_of(coded.bits, decoder.bits(kShiftBits));
    for (int16_t& code : coded.codes)
      code =
          static_cast<int16_t>(static_cast<int>(decoder.symbol(table.frequencies)) + table.first);
    return true;
  }

 private:
  static constexpr unsigned kWidthBits = 3;

  /// 0: chosen for each row.
  uint32_t fixed_bits() const {
    if (const auto* uniform = std::get_if<Uniform>(&kind_)) return uniform->bits;
    return std::holds_alternative<Sign>(kind_) ? 1 : 0;
  }

  static int expected_class(uint32_t bits) { return class_of(1 / kGaussianSteps[bits - 1]); }

  const CodeTable& table_of(uint32_t bits, uint32_t shift) const {
    return (*tables_[bits - 1])[shifted_class(expected_class(bits), shift)];
  }

  static void round(std::span<const float> row, CodedRow& coded) {
    const auto half = static_cast<float>(1U << (coded.bits - 1));
    const float inverse = coded.scale > 0 ? 1 / scale_of(coded.scale) : 0;
    const auto offset = static_cast<int32_t>(half);
    for (size_t i = 0; i < row.size(); ++i)
      coded.codes[i] = static_cast<int16_t>(level_of(row[i], inverse, half) - offset);
  }

  /// To one of the two levels around each number, so that the mean is the number. The levels reach
  /// over the whole row.
  static void quantize_stochastic(std::span<const float> row, RandomSource& random,
                                  CodedRow& coded) {
    const auto top = static_cast<float>((1U << coded.bits) - 1);
    coded.scale = scale_code_above(2 * double{largest_of(row)} / double{top} * (1 + 0x1p-20));
    const float step = scale_of(coded.scale);
    std::vector<uint32_t> draws(row.size());
    random.fill(std::as_writable_bytes(std::span(draws)));
    const int half = 1 << (coded.bits - 1);
    for (size_t i = 0; i < row.size(); ++i) {
      const float place = coded.scale > 0 ? row[i] / step + top / 2 : top / 2;  // in [0, top]
      const auto lower = static_cast<int>(std::min(place, top - 1));
      const float above = place - static_cast<float>(lower);
      const bool up = static_cast<float>(draws[i] >> 8) * 0x1p-24F < above;
      coded.codes[i] = static_cast<int16_t>(lower + (up ? 1 : 0) - half);
    }
  }

  void choose_bits(std::span<const float> row, double allowed, double rms, CodedRow& coded) const {
    // From what a Gaussian would need, down while the bound holds or up until it does.
    const auto try_bits = [&](uint32_t bits) {
      const uint32_t scale = best_step(row, bits, rms);
      const bool holds =
          scale == 0 || bits == kMostBits || squared_error(row, scale_of(scale), bits) <= allowed;
      if (holds) {
        coded.bits = bits;
        coded.scale = scale;
      }
      return holds;
    };
    uint32_t bits = 1;
    while (bits < kMostBits &&
           kGaussianErrors[bits - 1] * rms * rms * static_cast<double>(row.size()) > allowed)
      ++bits;
    if (try_bits(bits)) {
      while (bits > 1 && try_bits(bits - 1)) --bits;
    } else {
      while (!try_bits(++bits)) {
      }
    }
    round(row, coded);
  }

  void choose_table(CodedRow& coded) const {
    std::array<uint32_t, 1U << kMostBits> counts{};
    const int half = 1 << (coded.bits - 1);
    for (const int16_t code : coded.codes) ++counts[static_cast<size_t>(code + half)];
    coded.shift = walk_downhill(8, 0, (1U << kShiftBits) - 1, 1, [&](uint32_t shift) {
      const CodeTable& table = table_of(coded.bits, shift);
      double cost = 0;
      for (size_t symbol = 0; symbol < table.frequencies.size(); ++symbol)
        cost += counts[symbol] * double{table.frequencies.cost(symbol)};
      return cost;
    });
  }

  Quantizer kind_;
  size_t width_;
  std::array<std::unique_ptr<const CodeTables>, kMostBits> tables_;
};

}  // namespace

std::unique_ptr<const RowQuantizer> make_uniform_quantizer(const Quantizer& quantizer,
                                                           const RowStatistics& rows) {
  return std::make_unique<UniformQuantizer>(quantizer, rows);
}

}  // namespace isthmus::codec
