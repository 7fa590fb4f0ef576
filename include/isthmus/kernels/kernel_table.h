// The functions of one instruction set.
//
// Every variant gives the same bits, whatever the machine. A sum of float products is kept in 16
// float lanes: element i is added to lane i % 16 in the order of i, each product rounded before it
// is added (no fused multiply-add), and at the end lane j takes lane j + 8, then j + 4, j + 2 and
// j + 1. Products of bytes are exact integers until a group of 32 is complete. Elementary functions
// are built from basic operations alone, not from libm. So neither the tile that an output happens
// to be computed in nor the width of a register shows in the result.
//
// The sources of the variants include this header, so it holds no inline functions: a linker would
// keep one copy, maybe the one with instructions that this machine lacks.
#pragma once

#include <isthmus/kernels/packed_format.h>
#include <cstddef>
#include <cstdint>

namespace isthmus::kernels {

/// y[t, n] = sum over i of x[t, i] * weights[n, i], plus bias[n]; the columns
/// [first_output, end_output) of y are written.
struct Product {
  const float* x = nullptr;        ///< [rows, inner]
  const float* weights = nullptr;  ///< [outputs, inner]
  const float* bias = nullptr;     ///< [outputs], or null for none
  float* y = nullptr;              ///< [rows, outputs], rows `y_stride` apart
  size_t y_stride = 0;
  size_t rows = 0;
  size_t inner = 0;
  size_t first_output = 0;
  size_t end_output = 0;
};

/// One byte of each activation. A row's `inner` is a multiple of 32, with zeros behind its last
/// number. The sums save the products work.
struct CodePlane {
  int8_t* codes = nullptr;       ///< [rows, inner], in [-127, 127]
  int32_t* half_sums = nullptr;  ///< [rows, inner / 16]: sums of 16 codes
};
inline constexpr int32_t kCoarseStep = 254;

/// Activations in one byte or two: number i is code(i) * scales[i / 32], where the code is that of
/// `coarse` alone or, with `fine`, kCoarseStep times that of `coarse` plus that of `fine`.
struct QuantizedRows {
  CodePlane coarse;
  CodePlane fine;           ///< null pointers when there is one byte
  float* scales = nullptr;  ///< [rows, inner / 32]
  float* sums = nullptr;    ///< [rows, inner / 32]: scale times the sum of the group's codes
};

/// As `Product`, of bytes and packed weights. A group of 32 (two of 16) gives one integer (two),
/// converted to float and multiplied by the weights' scale, then by the activations'; the weights'
/// offset times the group's sum is added; groups are added up in order.
struct PackedProduct {
  QuantizedRows x;
  size_t rows = 0;
  size_t groups = 0;  ///< of 32: inner / 32
  PackedFormat format;
  const std::byte* blocks = nullptr;  ///< of 16 outputs, see packed_format.h
  const float* bias = nullptr;        ///< [outputs], or null for none
  float* y = nullptr;                 ///< [rows, outputs], rows `y_stride` apart
  size_t y_stride = 0;
  size_t outputs = 0;
  size_t first_block = 0;  ///< the outputs of blocks [first_block, end_block) are written
  size_t end_block = 0;
};

/// How keys and values are stored.
enum class KvFormat : uint8_t {
  kF32,
  kF16,   ///< binary16 times a power of two per position, 1 unless a number is too large for it
  kInt8,  ///< bytes times a scale per position
};

/// Keys and values of one head. Keys of 16 positions lie together, coordinate by coordinate, so
/// that a vector holds one coordinate of 16 positions.
struct KvHead {
  void* keys = nullptr;           ///< [capacity / 16, head_size, 16]
  void* values = nullptr;         ///< [capacity, head_size rounded up to 16]
  float* key_scales = nullptr;    ///< [capacity]; null for kF32
  float* value_scales = nullptr;  ///< [capacity]; null for kF32
};

/// The query heads that share one key/value head, for consecutive positions of one sequence. Each
/// sees the positions up to its own, the last `window` of them when that is not 0:
/// out = sum over p of softmax(softcap(scale * query . key p)) * value p.
struct Attention {
  KvFormat format = KvFormat::kF32;
  KvHead kv;
  KvHead next;  ///< looked at after this one, and as long: fetched ahead; may be empty
  size_t head_size = 0;
  const float* queries = nullptr;  ///< [rows, heads, head_size], rows `query_stride` apart
  float* out = nullptr;            ///< [rows, heads, head_size], rows `out_stride` apart
  size_t query_stride = 0;
  size_t out_stride = 0;
  size_t rows = 0;
  size_t heads = 0;
  size_t position = 0;  ///< of the first row
  size_t window = 0;
  float scale = 1;
  float softcap = 0;        ///< c tanh(x / c) on the scaled scores; 0: none
  float* scores = nullptr;  ///< scratch, kAttentionTile * (position + rows + 31) floats
};
inline constexpr size_t kAttentionTile = 4;

/// Pointers need no alignment; outputs do not overlap inputs unless said. No function checks,
/// allocates or throws.
struct KernelTable {
  const char* name;

  void (*product)(const Product& product);
  /// Bytes of `size` numbers; `row` points at one row. The scale is the largest magnitude of a
  /// group / 127, with fine codes / (127 * 254); below 2^-100 the group is zero. A group
  /// with a number that is not finite gets scale and sum NaN.
  void (*quantize)(const float* x, size_t size, const QuantizedRows& row);
  void (*packed_product)(const PackedProduct& product);
  /// Writes one position of one head. `key` and `value` are [head_size] and finite.
  void (*store_kv)(KvFormat format, const KvHead& head, size_t head_size, size_t position,
                   const float* key, const float* value);
  void (*attend)(const Attention& attention);
  /// Rotates the pairs (x, y) of a head of 2 * pairs by the angles whose cosines, then sines, are
  /// given. A pair is (2i, 2i + 1) when `adjacent`, (i, i + pairs) otherwise.
  void (*rotate)(float* head, size_t pairs, bool adjacent, const float* cos_sin);
  /// y = x / sqrt(mean(x^2) + epsilon) * weight, all [size]; y may be x.
  void (*rms_norm)(const float* x, const float* weight, float epsilon, size_t size, float* y);
  /// y = silu(gate) * up, all [size].
  void (*silu_gate)(const float* gate, const float* up, size_t size, float* y);
  /// y = gelu(gate) * up with GELU's tanh approximation, all [size].
  void (*gelu_gate)(const float* gate, const float* up, size_t size, float* y);
  /// x = cap tanh(x / cap), [size], in place.
  void (*softcap)(float* x, float cap, size_t size);
  /// x = e^(x - largest), [size] above 0, in place; e^-87 where that is smaller. \returns their
  /// sum.
  float (*exponentiate)(float* x, size_t size);
};

}  // namespace isthmus::kernels
