// Every lossless type is read as codes, scales and offsets of one row's group of 32 and written to
// its output's place in the block. How the types lie in a file is told in dequantize.cpp.
#include <isthmus/kernels/pack.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <stdexcept>
#include <string>

#include "stored_blocks.h"

namespace isthmus::kernels {
namespace {

/// One row's part of a group.
struct Group {
  std::array<int, kPackedGroup> codes{};
  std::array<float, 2> scales{};  ///< both halves; the first counts where there is one
  float offset = 0;
};

int signed_byte(const uint8_t* bytes) {
  return static_cast<int>(load<int8_t>(bytes));
}

/// The codes of 16 bytes of nibbles: both of byte i are elements i and i + 16.
void read_nibbles(const uint8_t* bytes, Group& group) {
  for (size_t i = 0; i < 16; ++i) {
    group.codes[i] = bytes[i] & 0x0F;
    group.codes[i + 16] = bytes[i] >> 4;
  }
}

void read_q4_0(const uint8_t* block, size_t /*group*/, Group& out) {
  out.scales[0] = load_f16(block);
  read_nibbles(block + 2, out);
}

void read_q4_1(const uint8_t* block, size_t /*group*/, Group& out) {
  out.scales[0] = load_f16(block);
  out.offset = load_f16(block + 2);
  read_nibbles(block + 4, out);
}

void add_fifth_bits(uint32_t bits, Group& out) {
  for (size_t i = 0; i < kPackedGroup; ++i) out.codes[i] |= static_cast<int>(bits >> i & 1U) << 4;
}

void read_q5_0(const uint8_t* block, size_t /*group*/, Group& out) {
  out.scales[0] = load_f16(block);
  read_nibbles(block + 6, out);
  add_fifth_bits(load<uint32_t>(block + 2), out);
  for (int& code : out.codes) code -= 16;
}

void read_q5_1(const uint8_t* block, size_t /*group*/, Group& out) {
  out.scales[0] = load_f16(block);
  out.offset = load_f16(block + 2);
  read_nibbles(block + 8, out);
  add_fifth_bits(load<uint32_t>(block + 4), out);
}

void read_q8_0(const uint8_t* block, size_t /*group*/, Group& out) {
  out.scales[0] = load_f16(block);
  for (size_t i = 0; i < kPackedGroup; ++i) out.codes[i] = signed_byte(block + 2 + i);
}

void read_q3_k(const uint8_t* block, size_t group, Group& out) {
  const float d = load_f16(block + 108);
  for (unsigned half = 0; half < 2; ++half) {
    out.scales[half] = d * static_cast<float>(read_q3_k_scale(
                               block + 96, static_cast<unsigned>(2 * group + half)));
  }
  const uint8_t* codes = block + 32 + group / 4 * 32;
  for (unsigned i = 0; i < kPackedGroup; ++i) {
    const int borrow = (block[i] >> group & 1U) != 0 ? 0 : 4;
    out.codes[i] = static_cast<int>(codes[i] >> (group % 4 * 2) & 3U) - borrow;
  }
}

void read_k_group(const uint8_t* block, size_t group, const uint8_t* codes, Group& out) {
  const auto [scale, offset] = read_k_scale(block + 4, static_cast<unsigned>(group));
  out.scales[0] = load_f16(block) * static_cast<float>(scale);
  out.offset = -(load_f16(block + 2) * static_cast<float>(offset));
  for (unsigned i = 0; i < kPackedGroup; ++i) {
    out.codes[i] = codes[group / 2 * 32 + i] >> (group % 2 * 4) & 0x0F;
  }
}

void read_q4_k(const uint8_t* block, size_t group, Group& out) {
  read_k_group(block, group, block + 16, out);
}

void read_q5_k(const uint8_t* block, size_t group, Group& out) {
  read_k_group(block, group, block + 48, out);
  for (unsigned i = 0; i < kPackedGroup; ++i) {
    out.codes[i] |= static_cast<int>(block[16 + i] >> group & 1U) << 4;
  }
}

void read_q6_k(const uint8_t* block, size_t group, Group& out) {
  const float d = load_f16(block + 208);
  for (unsigned half = 0; half < 2; ++half) {
    out.scales[half] = d * static_cast<float>(signed_byte(block + 192 + 2 * group + half));
  }
  const uint8_t* lows = block + group / 4 * 64 + group % 2 * 32;
  const uint8_t* highs = block + 128 + group / 4 * 32;
  for (unsigned i = 0; i < kPackedGroup; ++i) {
    const unsigned low = lows[i] >> (group / 2 % 2 * 4) & 0x0FU;
    const unsigned high = highs[i] >> (group % 4 * 2) & 3U;
    out.codes[i] = static_cast<int>(low | high << 4U) - 32;
  }
}

struct Packing {
  DType type;
  PackedFormat format;
  void (*read)(const uint8_t* block, size_t group, Group& out);
};

constexpr PackedFormat kHalvesOfBytes = {.half_groups = true, .float_scales = true};
constexpr std::array kPackings = {
    Packing{DType::kQ4_0, {.nibbles = true}, read_q4_0},
    Packing{DType::kQ4_1, {.nibbles = true, .offsets = true}, read_q4_1},
    Packing{DType::kQ5_0, {}, read_q5_0},
    Packing{DType::kQ5_1, {.offsets = true}, read_q5_1},
    Packing{DType::kQ8_0, {}, read_q8_0},
    Packing{DType::kQ3_K, kHalvesOfBytes, read_q3_k},
    Packing{DType::kQ4_K, {.nibbles = true, .float_scales = true, .offsets = true}, read_q4_k},
    Packing{DType::kQ5_K, {.float_scales = true, .offsets = true}, read_q5_k},
    Packing{DType::kQ6_K, kHalvesOfBytes, read_q6_k},
};

const Packing* find_packing(DType type) {
  const auto* found = std::find_if(kPackings.begin(), kPackings.end(),
                                   [type](const Packing& entry) { return entry.type == type; });
  return found == kPackings.end() ? nullptr : found;
}

/// One output's view of a group of a block: where its numbers lie.
class Place {
 public:
  Place(const PackedFormat& format, std::byte* group, size_t output)
      : format_(format), group_(reinterpret_cast<uint8_t*>(group)), output_(output) {}

  void put(const Group& from) {
    put_scale(0, from.scales[0]);
    if (format_.half_groups) put_scale(1, from.scales[1]);
    if (format_.offsets) put_scale(scale_rows() - 1, from.offset);
    for (size_t i = 0; i < kPackedGroup; ++i) put_code(i, static_cast<unsigned>(from.codes[i]));
  }

  [[nodiscard]] Group get() const {
    Group group;
    group.scales[0] = scale(0);
    if (format_.half_groups) group.scales[1] = scale(1);
    if (format_.offsets) group.offset = scale(scale_rows() - 1);
    for (size_t i = 0; i < kPackedGroup; ++i) group.codes[i] = code(i);
    return group;
  }

 private:
  [[nodiscard]] size_t scale_rows() const {
    return (format_.half_groups ? 2U : 1U) + (format_.offsets ? 1U : 0U);
  }
  [[nodiscard]] uint8_t* scale_at(size_t row) const {
    return group_ + row * format_.scale_bytes() + output_ * (format_.float_scales ? 4 : 2);
  }
  void put_scale(size_t row, float value) {
    const uint16_t half = f16_from_float(value);
    if (format_.float_scales) {
      std::memcpy(scale_at(row), &value, sizeof value);
    } else {
      std::memcpy(scale_at(row), &half, sizeof half);
    }
  }
  [[nodiscard]] float scale(size_t row) const {
    return format_.float_scales ? load<float>(scale_at(row)) : load_f16(scale_at(row));
  }

  [[nodiscard]] uint8_t* code_at(size_t i) const {
    const size_t quad = format_.nibbles ? i % 16 / 4 : i / 4;
    return group_ + scale_rows() * format_.scale_bytes() + quad * 64 + output_ * 4 + i % 4;
  }
  void put_code(size_t i, unsigned code) {
    uint8_t& byte = *code_at(i);
    if (!format_.nibbles) {
      byte = static_cast<uint8_t>(code);
    } else {
      byte = static_cast<uint8_t>(i < 16 ? code : byte | code << 4U);
    }
  }
  [[nodiscard]] int code(size_t i) const {
    const uint8_t byte = *code_at(i);
    if (!format_.nibbles) return static_cast<int8_t>(byte);
    const int nibble = i < 16 ? byte & 0x0F : byte >> 4;
    return format_.offsets ? nibble : nibble - 8;
  }

  const PackedFormat& format_;
  uint8_t* group_;
  size_t output_;
};

Status check_block(const PackedFormat& format, size_t rows, size_t inputs, size_t bytes) {
  if (rows >= 1 && rows <= kPackedOutputs && inputs >= 1 && bytes == block_bytes(format, inputs)) {
    return {};
  }
  return fail(ErrorCode::kInvalidArgument,
              "kernels: a block of " + std::to_string(bytes) + " bytes does not hold " +
                  std::to_string(rows) + " rows of " + std::to_string(inputs) + " packed weights");
}

/// Codes and least-squares scale and offset of one group of floats.
class Rounder {
 public:
  explicit Rounder(int32_t bits) : lowest_(bits == 4 ? 0 : -128), levels_(bits == 4 ? 15 : 255) {}

  /// `weights` may be shorter than a group; what is missing gets a code that stands for no weight.
  [[nodiscard]] Group round(std::span<const float> weights) const {
    const auto [low, high] = std::minmax_element(weights.begin(), weights.end());
    Group best;
    double best_error = std::numeric_limits<double>::infinity();
    for (int step = 0; step < kRanges; ++step) {
      const float cut = (*high - *low) * 0.5F * kRangeStep * static_cast<float>(step);
      Group group;
      set_range(*low + cut, *high - cut, group);
      choose_codes(weights, group);
      regress(weights, group);
      choose_codes(weights, group);
      const double error = squared_error(weights, group);
      if (error < best_error) {
        best_error = error;
        best = group;
      }
    }
    return best;
  }

 private:
  // Ranges of 100 %, 96 % ... 56 %: below that nothing was ever chosen for trained weights.
  static constexpr int kRanges = 12;
  static constexpr float kRangeStep = 0.04F;

  static constexpr double kLargest = 65504;  // of binary16

  static float as_stored(double value) {
    const double limited = std::clamp(value, -kLargest, kLargest);
    return float_from_f16(f16_from_float(static_cast<float>(limited)));
  }

  void set_range(float low, float high, Group& group) const {
    group.scales[0] = as_stored((high - low) / static_cast<float>(levels_));
    group.offset = as_stored(low - static_cast<float>(lowest_) * group.scales[0]);
  }

  void choose_codes(std::span<const float> weights, Group& group) const {
    const float factor = group.scales[0] == 0 ? 0 : 1 / group.scales[0];
    for (size_t i = 0; i < weights.size(); ++i) {
      const auto code = static_cast<int>(std::nearbyint((weights[i] - group.offset) * factor));
      group.codes[i] = std::clamp(code, lowest_, lowest_ + levels_);
    }
  }

  /// The line through (code, weight).
  static void regress(std::span<const float> weights, Group& group) {
    const auto n = static_cast<double>(weights.size());
    double x = 0;
    double y = 0;
    double xx = 0;
    double xy = 0;
    for (size_t i = 0; i < weights.size(); ++i) {
      x += group.codes[i];
      y += weights[i];
      xx += static_cast<double>(group.codes[i]) * group.codes[i];
      xy += static_cast<double>(group.codes[i]) * weights[i];
    }
    const double spread = n * xx - x * x;
    const double scale = spread == 0 ? 0 : (n * xy - x * y) / spread;
    group.scales[0] = as_stored(scale);
    group.offset = as_stored((y - group.scales[0] * x) / n);
  }

  static double squared_error(std::span<const float> weights, const Group& group) {
    double sum = 0;
    for (size_t i = 0; i < weights.size(); ++i) {
      const double error = group.scales[0] * static_cast<float>(group.codes[i]) + group.offset -
                           static_cast<double>(weights[i]);
      sum += error * error;
    }
    return sum;
  }

  int lowest_;
  int levels_;
};

}  // namespace

std::optional<PackedFormat> lossless_format(DType type) {
  const Packing* packing = find_packing(type);
  if (packing == nullptr) return std::nullopt;
  return packing->format;
}

PackedFormat rounded_format(int32_t bits) {
  if (bits == 4) return {.nibbles = true, .offsets = true};
  if (bits == 8) return {.offsets = true};
  throw std::invalid_argument("kernels: no packed format of " + std::to_string(bits) + " bits");
}

size_t group_count(size_t inputs) {
  return (inputs + kPackedGroup - 1) / kPackedGroup;
}

size_t block_bytes(const PackedFormat& format, size_t inputs) {
  return group_count(inputs) * format.group_bytes();
}

Status pack_block(DType type, std::span<const std::byte> rows, size_t inputs,
                  std::span<std::byte> block) {
  const Packing* packing = find_packing(type);
  const DTypeInfo* info = dtype_info(type);
  if (packing == nullptr || inputs == 0 || inputs % info->block_elements != 0) {
    return fail(ErrorCode::kInvalidArgument,
                "kernels: rows of " + std::to_string(inputs) + " weights of type " +
                    std::to_string(static_cast<uint32_t>(type)) + " cannot be packed");
  }
  const size_t row_bytes = inputs / info->block_elements * info->block_bytes;
  const size_t count = rows.size() / row_bytes;
  ISTHMUS_TRY(
      check_block(packing->format, rows.size() % row_bytes == 0 ? count : 0, inputs, block.size()));
  if (count < kPackedOutputs) std::fill(block.begin(), block.end(), std::byte{0});

  const size_t groups_per_source = info->block_elements / kPackedGroup;
  for (size_t n = 0; n < count; ++n) {
    const auto* row = reinterpret_cast<const uint8_t*>(rows.data()) + n * row_bytes;
    for (size_t g = 0; g < group_count(inputs); ++g) {
      Group group;
      packing->read(row + g / groups_per_source * info->block_bytes, g % groups_per_source, group);
      if (!std::isfinite(group.scales[0]) || !std::isfinite(group.scales[1]) ||
          !std::isfinite(group.offset)) {
        return fail(ErrorCode::kNotFinite, "kernels: a scale of the weights is not finite");
      }
      Place(packing->format, block.data() + g * packing->format.group_bytes(), n).put(group);
    }
  }
  return {};
}

Status round_block(MatrixView<const float> rows, int32_t bits, std::span<std::byte> block) {
  const PackedFormat format = rounded_format(bits);
  ISTHMUS_TRY(check_block(format, rows.rows(), rows.cols(), block.size()));
  for (const float weight : rows.values()) {
    if (!(std::abs(weight) <= 65504)) {
      return fail(ErrorCode::kNotFinite,
                  "kernels: weight " + std::to_string(weight) + " is not finite in binary16");
    }
  }
  std::fill(block.begin(), block.end(), std::byte{0});
  const Rounder rounder(bits);
  for (size_t n = 0; n < rows.rows(); ++n) {
    for (size_t g = 0; g < group_count(rows.cols()); ++g) {
      const size_t first = g * kPackedGroup;
      const auto weights = rows.row(n).subspan(first, std::min(kPackedGroup, rows.cols() - first));
      Place(format, block.data() + g * format.group_bytes(), n).put(rounder.round(weights));
    }
  }
  return {};
}

Status unpack_block(const PackedFormat& format, std::span<const std::byte> block,
                    MatrixView<float> rows) {
  ISTHMUS_TRY(check_block(format, rows.rows(), rows.cols(), block.size()));
  // A Place reads and writes; here it only reads.
  auto* bytes = const_cast<std::byte*>(block.data());
  for (size_t n = 0; n < rows.rows(); ++n) {
    for (size_t i = 0; i < rows.cols(); ++i) {
      const size_t g = i / kPackedGroup;
      const Group group = Place(format, bytes + g * format.group_bytes(), n).get();
      const size_t half = format.half_groups ? i % kPackedGroup / 16 : 0;
      const auto code = static_cast<float>(group.codes[i % kPackedGroup]);
      const float scaled = group.scales[half] * code;
      rows.row(n)[i] = format.offsets ? scaled + group.offset : scaled;
    }
  }
  return {};
}

}  // namespace isthmus::kernels
