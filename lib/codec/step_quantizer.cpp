// Uniform steps in proportion to the row's root mean square, with no limit on how many: the rate is
// what entropy coding makes of it. Code k stands for k steps, or for what the trellis says.
#include <algorithm>
#include <array>
#include <bit>
#include <cstdlib>
#include <vector>

#include "model.h"
#include "quantizer.h"
#include "trellis.h"

namespace isthmus::codec {
namespace {

// Coordinates whose standard deviation is below so many steps are not coded, but taken for 0: their
// codes would be 0 nearly always.
constexpr float kLeastRatio = 0.4F;
constexpr unsigned kEscapeLengthBits = 4;

class StepQuantizer final : public RowQuantizer {
 public:
  StepQuantizer(const Step& step, const RowStatistics& rows)
      : step_(step), bound_(code_bound(step, rows.width)) {
    std::vector<int> wanted;
    for (size_t i = 0; i < rows.width; ++i) {
      const float variance = rows.variance.empty() ? 1.0F : rows.variance[i];
      if (!rows.variance.empty() && !is_worth_coding(step, variance)) continue;
      coded_.push_back(static_cast<uint32_t>(i));
      classes_.push_back(class_of(std::sqrt(variance) / double{step.step}));
      if (std::find(wanted.begin(), wanted.end(), classes_.back()) == wanted.end())
        wanted.push_back(classes_.back());
    }
    for (size_t i = wanted.size(); i-- > 0;) {
      for (uint32_t shift = 0; shift < kWidths; ++shift)
        wanted.push_back(moved_class(wanted[i], shift));
    }
    for (const Shape shape : shapes_for(rows)) {
      const Distribution distribution(shape);
      Sets& sets = tables_.emplace_back(
          Sets{CodeTables(distribution, step.trellis ? Cells::kEven : Cells::kAround, 0, wanted),
               CodeTables(distribution, step.trellis ? Cells::kOdd : Cells::kAround, 0, wanted)});
      std::sort(wanted.begin(), wanted.end());
      wanted.erase(std::unique(wanted.begin(), wanted.end()), wanted.end());
      if (!step.trellis) continue;
      for (const int code_class : wanted)
        fit_trellis_tables(distribution, code_class, sets[0], sets[1]);
    }
  }

  Status quantize(std::span<float> row, RandomSource* /*random*/, CodedRow& coded) const override {
    const double rms = std::sqrt(energy(row) / static_cast<double>(row.size()));
    coded.scale = scale_code(rms);
    coded.codes.assign(coded_.size(), 0);
    const float inverse = coded.scale > 0 ? 1 / (step_.step * scale_of(coded.scale)) : 0;
    for (size_t n = 0; n < coded_.size(); ++n) row[n] = row[coded_[n]] * inverse;
    const std::span<const float> values = row.first(coded_.size());
    choose_shift(values, coded);
    if (!step_.trellis) {
      for (size_t n = 0; n < values.size(); ++n) coded.codes[n] = rounded(values[n]);
      return {};
    }
    std::vector<TrellisTables> tables(values.size());
    for (size_t n = 0; n < tables.size(); ++n)
      tables[n] = {&table(0, n, coded.shift), &table(1, n, coded.shift)};
    trellis_encode(values, tables, bound_, coded.codes);
    return {};
  }

  Status reconstruct(const CodedRow& coded, std::span<float> row) const override {
    const float step = step_.step * scale_of(coded.scale);
    std::fill(row.begin(), row.end(), 0.0F);
    size_t state = 0;
    for (size_t n = 0; n < coded_.size(); ++n) {
      int level = coded.codes[n];
      if (step_.trellis) {
        level = trellis_level(coded.codes[n], kTrellis[state].odd);
        state = kTrellis[state].next[static_cast<size_t>(coded.codes[n] & 1)];
      }
      row[coded_[n]] = static_cast<float>(level) * step;
    }
    return {};
  }

  size_t most_bits() const override { return coded_.size() * code_bits(); }

  void write(const CodedRow& coded, BitWriter& bits) const override {
    for (const int16_t code : coded.codes)
      bits.put(static_cast<uint32_t>(code + bound_), code_bits());
  }

  bool read(BitReader& bits, CodedRow& coded) const override {
    coded.codes.resize(coded_.size());
    int most = -bound_;
    for (int16_t& code : coded.codes) {
      const int value = static_cast<int>(bits.get(code_bits())) - bound_;
      most = std::max(most, value);
      code = static_cast<int16_t>(value);
    }
    return most <= bound_;
  }

  void write(const CodedRow& coded, RansEncoder& encoder) const override {
    encoder.bits(coded.shift, kShiftBits);
    size_t state = 0;
    for (size_t n = 0; n < coded.codes.size(); ++n) {
      write_code(coded.codes[n], table(kTrellis[state].odd, n, coded.shift), encoder);
      state = kTrellis[state].next[static_cast<size_t>(coded.codes[n] & 1)];
    }
  }

  bool read(RansDecoder& decoder, CodedRow& coded) const override {
    coded.codes.resize(coded_.size());
    coded.shift = decoder.bits(kShiftBits);
    size_t state = 0;
    bool valid = true;
    for (size_t n = 0; n < coded.codes.size(); ++n) {
      const int code = read_code(table(kTrellis[state].odd, n, coded.shift), decoder);
      valid = valid && std::abs(code) <= bound_;
      coded.codes[n] = static_cast<int16_t>(code);
      state = kTrellis[state].next[static_cast<size_t>(code & 1)];
    }
    return valid;
  }

 private:
  /// No coordinate is larger than the row's norm, which is sqrt(width) times its root mean square;
  /// 1.06 is for the rounding of the scale and of calibrated matrices.
  static int code_bound(const Step& step, size_t width) {
    const double steps = 1.06 * std::sqrt(static_cast<double>(width)) / double{step.step};
    return static_cast<int>(step.trellis ? steps / 2 : steps) + 2;
  }

  unsigned code_bits() const { return static_cast<unsigned>(std::bit_width(2U * bound_)); }

  int16_t rounded(float value) const {
    const auto most = static_cast<float>(bound_);
    const float limited = std::min(std::max(value, -most), most);
    return static_cast<int16_t>(limited + std::copysign(0.5F, limited));
  }

  // A row's shift names its width relative to the expected one, in quarters of an octave, and one
  // of two shapes.
  static constexpr uint32_t kWidths = 1U << (kShiftBits - 1);
  static constexpr uint32_t kExpectedWidth = 5;

  static int moved_class(int expected, uint32_t shift) {
    return std::clamp(
        expected + static_cast<int>(shift % kWidths) - static_cast<int>(kExpectedWidth), 0,
        kClassCount - 1);
  }

  /// Rotated rows are Gaussian but for what rotating could not flatten. A row as it is, and the
  /// components of a calibrated transform, have the tails of Student's t with about 3 to 8 degrees
  /// of freedom (measured on SmolLM2's boundaries; taking the better of two shapes for each row
  /// saves 0.02 bits over one).
  static std::array<Shape, 2> shapes_for(const RowStatistics& rows) {
    if (rows.rotated) return {Shape::kGaussian, Shape::kStudent8};
    return {Shape::kStudent8, Shape::kStudent3};
  }

  const CodeTable& table(size_t set, size_t n, uint32_t shift) const {
    return tables_[shift / kWidths][set][moved_class(classes_[n], shift)];
  }

  /// The tables that make rounded values cheapest; the trellis' own codes are known only later.
  void choose_shift(std::span<const float> values, CodedRow& coded) const {
    const float to_codes = step_.trellis ? 0.5F : 1.0F;
    std::vector<int16_t> codes(values.size());
    for (size_t n = 0; n < values.size(); ++n) codes[n] = rounded(values[n] * to_codes);
    const auto cost = [&](uint32_t shift) {
      float sum = 0;
      for (size_t n = 0; n < codes.size();) {
        // Neighbours share a class more often than not.
        size_t end = n + 1;
        while (end < codes.size() && classes_[end] == classes_[n]) ++end;
        sum += cost_of(std::span(codes).subspan(n, end - n), table(0, n, shift));
        n = end;
      }
      return sum;
    };
    const uint32_t first = walk_downhill(kExpectedWidth, 0, kWidths - 1, 1, cost);
    const uint32_t second = walk_downhill(kWidths + first, kWidths, 2 * kWidths - 1, 1, cost);
    coded.shift = cost(second) < cost(first) ? second : first;
  }

  /// In four sums, which do not wait for each other.
  static float cost_of(std::span<const int16_t> codes, const CodeTable& table) {
    std::array<float, 4> sums{};
    size_t n = 0;
    for (; n + 4 <= codes.size(); n += 4)
      for (size_t lane = 0; lane < 4; ++lane) sums[lane] += table.cost(codes[n + lane]);
    for (; n < codes.size(); ++n) sums[0] += table.cost(codes[n]);
    return (sums[0] + sums[2]) + (sums[1] + sums[3]);
  }

  static void write_code(int code, const CodeTable& table, RansEncoder& encoder) {
    if (!table.escapes(code)) {
      encoder.symbol(table.frequencies, table.symbol(code));
      if (table.low_bits > 0)
        encoder.bits(static_cast<uint32_t>(code) & ((1U << table.low_bits) - 1), table.low_bits);
      return;
    }
    // The sign in the lowest bit, then the number's own width.
    encoder.symbol(table.frequencies, static_cast<size_t>(table.last - table.first + 1));
    const auto number = static_cast<uint32_t>(code < 0 ? -2 * code - 1 : 2 * code);
    const auto width = static_cast<unsigned>(std::bit_width(number));
    encoder.bits(width - 1, kEscapeLengthBits);
    if (width > 1) encoder.bits(number - (1U << (width - 1)), width - 1);
  }

  static int read_code(const CodeTable& table, RansDecoder& decoder) {
    const int high = static_cast<int>(decoder.symbol(table.frequencies)) + table.first;
    if (high <= table.last) {
      if (table.low_bits == 0) return high;
      return high * (1 << table.low_bits) + static_cast<int>(decoder.bits(table.low_bits));
    }
    const unsigned width = decoder.bits(kEscapeLengthBits) + 1;
    const uint32_t number = (1U << (width - 1)) + (width > 1 ? decoder.bits(width - 1) : 0);
    return number % 2 != 0 ? -static_cast<int>(number / 2) - 1 : static_cast<int>(number / 2);
  }

  Step step_;
  int bound_;
  std::vector<uint32_t> coded_;            // coordinates
  std::vector<int> classes_;               // expected, of each coded coordinate
  using Sets = std::array<CodeTables, 2>;  // even and odd; twice the same without a trellis
  std::vector<Sets> tables_;               // of both shapes
};

}  // namespace

bool is_worth_coding(const Step& step, float variance) {
  return std::sqrt(variance) >= kLeastRatio * step.step;
}

std::unique_ptr<const RowQuantizer> make_step_quantizer(const Step& step,
                                                        const RowStatistics& rows) {
  return std::make_unique<StepQuantizer>(step, rows);
}

}  // namespace isthmus::codec
