// The kernels of the exact path, written once with vector extensions and compiled once per
// instruction set. The including source defines ISTHMUS_ISA (its namespace), ISTHMUS_VECTOR_BYTES
// (16, 32 or 64: the width of a register), and ISTHMUS_TILE_OUTPUTS by ISTHMUS_TILE_ROWS (how many
// sums fit in registers). It is built with flags that not every machine can run, so this header
// includes nothing that has inline functions, and everything in it is private to its source.
#include <isthmus/kernels/kernel_table.h>

#include <stddef.h>
#include <stdint.h>

// Unrolls a loop over registers at once. Left to itself GCC 12 unrolls late, when the registers
// have already become an array in memory: a third of the speed.
#ifdef __clang__
#define ISTHMUS_UNROLL _Pragma("unroll")
#else
#define ISTHMUS_UNROLL _Pragma("GCC unroll 16")
#endif

namespace isthmus::kernels::ISTHMUS_ISA {
namespace {

constexpr size_t kLanes = 16;
constexpr size_t kVectorLanes = ISTHMUS_VECTOR_BYTES / sizeof(float);
constexpr size_t kParts = kLanes / kVectorLanes;

using Vector = float __attribute__((vector_size(ISTHMUS_VECTOR_BYTES)));
using Quad = float __attribute__((vector_size(16)));

/// The 16 lanes of one sum.
struct Lanes {
  Vector part[kParts];
};

/// Register by register: as one copy of 64 bytes it would pass through memory.
inline Lanes load(const float* from) {
  Lanes lanes;
  ISTHMUS_UNROLL
  for (size_t p = 0; p < kParts; ++p) {
    __builtin_memcpy(&lanes.part[p], from + p * kVectorLanes, sizeof(Vector));
  }
  return lanes;
}

/// The first `count` < 16 lanes; zeros behind them, which change no sum: a lane starts at +0, and
/// so never becomes -0.
inline Lanes load_first(const float* from, size_t count) {
  Lanes lanes = {};
  __builtin_memcpy(&lanes, from, count * sizeof(float));
  return lanes;
}

inline void store(const Lanes& lanes, float* to) {
  __builtin_memcpy(to, &lanes, sizeof lanes);
}

inline Lanes broadcast(float value) {
  Lanes lanes;
  for (Vector& part : lanes.part) part = value - Vector{};
  return lanes;
}

inline void add_product(Lanes& sum, const Lanes& a, const Lanes& b) {
  ISTHMUS_UNROLL
  for (size_t p = 0; p < kParts; ++p) sum.part[p] += a.part[p] * b.part[p];
}

/// Lane j takes lane j + 8, then j + 4; the first four lanes are left.
inline Quad fold(const Lanes& lanes) {
#if ISTHMUS_VECTOR_BYTES == 64
  const Vector v = lanes.part[0];
  const auto half = __builtin_shufflevector(v, v, 0, 1, 2, 3, 4, 5, 6, 7) +
                    __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15);
  return __builtin_shufflevector(half, half, 0, 1, 2, 3) +
         __builtin_shufflevector(half, half, 4, 5, 6, 7);
#elif ISTHMUS_VECTOR_BYTES == 32
  const Vector half = lanes.part[0] + lanes.part[1];
  return __builtin_shufflevector(half, half, 0, 1, 2, 3) +
         __builtin_shufflevector(half, half, 4, 5, 6, 7);
#else
  return (lanes.part[0] + lanes.part[2]) + (lanes.part[1] + lanes.part[3]);
#endif
}

inline float reduce(const Lanes& lanes) {
  const Quad quad = fold(lanes);
  return (quad[0] + quad[2]) + (quad[1] + quad[3]);
}

/// sums[r][o] = row r of `x` . row o of `weights`, for a tile of rows and outputs. Rows lie
/// `stride` floats apart.
template <size_t Rows, size_t Outputs>
inline void dot_tile(const float* x, size_t x_stride, const float* weights, size_t weight_stride,
                     size_t inner, float (&sums)[Rows][Outputs]) {
  Lanes lanes[Rows][Outputs] = {};
  size_t i = 0;
  for (; i + kLanes <= inner; i += kLanes) {
    Lanes w[Outputs];
    ISTHMUS_UNROLL
    for (size_t o = 0; o < Outputs; ++o) w[o] = load(weights + o * weight_stride + i);
    ISTHMUS_UNROLL
    for (size_t r = 0; r < Rows; ++r) {
      const Lanes row = load(x + r * x_stride + i);
      ISTHMUS_UNROLL
      for (size_t o = 0; o < Outputs; ++o) add_product(lanes[r][o], row, w[o]);
    }
  }
  if (const size_t rest = inner - i; rest > 0) {
    ISTHMUS_UNROLL
    for (size_t o = 0; o < Outputs; ++o) {
      const Lanes w = load_first(weights + o * weight_stride + i, rest);
      ISTHMUS_UNROLL
      for (size_t r = 0; r < Rows; ++r) {
        add_product(lanes[r][o], load_first(x + r * x_stride + i, rest), w);
      }
    }
  }
  ISTHMUS_UNROLL
  for (size_t r = 0; r < Rows; ++r) {
    ISTHMUS_UNROLL
    for (size_t o = 0; o < Outputs; ++o) sums[r][o] = reduce(lanes[r][o]);
  }
}

template <size_t Rows, size_t Outputs>
inline void product_tile(const Product& p, size_t row, size_t output) {
  float sums[Rows][Outputs];
  dot_tile<Rows, Outputs>(p.x + row * p.inner, p.inner, p.weights + output * p.inner, p.inner,
                          p.inner, sums);
  for (size_t r = 0; r < Rows; ++r) {
    float* y = p.y + (row + r) * p.outputs + output;
    for (size_t o = 0; o < Outputs; ++o) {
      y[o] = p.bias == nullptr ? sums[r][o] : sums[r][o] + p.bias[output + o];
    }
  }
}

/// All rows against outputs [output, output + Outputs).
template <size_t Outputs>
inline void product_rows(const Product& p, size_t output) {
  size_t row = 0;
  for (; row + ISTHMUS_TILE_ROWS <= p.rows; row += ISTHMUS_TILE_ROWS) {
    product_tile<ISTHMUS_TILE_ROWS, Outputs>(p, row, output);
  }
  for (; row < p.rows; ++row) product_tile<1, Outputs>(p, row, output);
}

/// A tile's weight rows stay in the first cache while all rows pass by, so that the weights are
/// read from memory once for a whole prompt.
void product(const Product& p) {
  size_t output = p.first_output;
  for (; output + ISTHMUS_TILE_OUTPUTS <= p.end_output; output += ISTHMUS_TILE_OUTPUTS) {
    product_rows<ISTHMUS_TILE_OUTPUTS>(p, output);
  }
  for (; output < p.end_output; ++output) product_rows<1>(p, output);
}

/// e^x for x in [-87, 88], clamped to it, within 2 units in the last place.
inline float exp(float x) {
  constexpr float kRound = 0x1.8p23F;  // adding it rounds to an integer, see portable_math.cpp
  x = x < -87.0F ? -87.0F : x;
  x = x > 88.0F ? 88.0F : x;
  const float shifted = x * 0x1.715476p+0F + kRound;
  const float n = shifted - kRound;
  // ln 2 in two parts; the first has 15 bits, so that its product with n is exact.
  const float r = (x - n * 0x1.62e4p-1F) - n * 0x1.7f7d1cp-20F;
  // Taylor series; on |r| <= ln(2) / 2 the next term is below 2^-27.
  float sum = 1.0F / 5040;
  sum = sum * r + 1.0F / 720;
  sum = sum * r + 1.0F / 120;
  sum = sum * r + 1.0F / 24;
  sum = sum * r + 1.0F / 6;
  sum = sum * r + 0.5F;
  sum = sum * r + 1.0F;
  sum = sum * r + 1.0F;
  const uint32_t exponent = __builtin_bit_cast(uint32_t, shifted) + 127;
  return sum * __builtin_bit_cast(float, exponent << 23);
}

inline float tanh(float x) {
  const float small = exp(-2 * (x < 0 ? -x : x));
  const float magnitude = (1 - small) / (1 + small);
  return x < 0 ? -magnitude : magnitude;
}

void silu_gate(const float* gate, const float* up, size_t size, float* y) {
  for (size_t i = 0; i < size; ++i) y[i] = gate[i] / (1 + exp(-gate[i])) * up[i];
}

/// 0.5 x (1 + tanh(u)) is x / (1 + e^(-2u)), which loses nothing where tanh is near -1.
void gelu_gate(const float* gate, const float* up, size_t size, float* y) {
  constexpr float kTwiceRootTwoOverPi = 1.5957691216F;
  for (size_t i = 0; i < size; ++i) {
    const float x = gate[i];
    const float twice_u = kTwiceRootTwoOverPi * (x + 0.044715F * x * x * x);
    y[i] = x / (1 + exp(-twice_u)) * up[i];
  }
}

void softcap(float* x, float cap, size_t size) {
  for (size_t i = 0; i < size; ++i) x[i] = cap * tanh(x[i] / cap);
}

void rms_norm(const float* x, const float* weight, float epsilon, size_t size, float* y) {
  float squares[1][1];
  dot_tile<1, 1>(x, 0, x, 0, size, squares);
  const float scale = 1 / __builtin_sqrtf(squares[0][0] / static_cast<float>(size) + epsilon);
  for (size_t i = 0; i < size; ++i) y[i] = x[i] * scale * weight[i];
}

void score(const Attention& a) {
  constexpr size_t kTile = ISTHMUS_TILE_OUTPUTS;
  size_t p = 0;
  for (; p + kTile <= a.count; p += kTile) {
    float sums[1][kTile];
    dot_tile<1, kTile>(a.query, 0, a.keys + p * a.stride, a.stride, a.head_size, sums);
    for (size_t o = 0; o < kTile; ++o) a.scores[p + o] = sums[0][o] * a.scale;
  }
  for (; p < a.count; ++p) {
    float sum[1][1];
    dot_tile<1, 1>(a.query, 0, a.keys + p * a.stride, a.stride, a.head_size, sum);
    a.scores[p] = sum[0][0] * a.scale;
  }
}

/// Turns scores into e^(score - largest) and returns their sum.
float exponentiate(float* scores, size_t count) {
  float largest = scores[0];
  for (size_t p = 1; p < count; ++p) largest = scores[p] > largest ? scores[p] : largest;
  for (size_t p = 0; p < count; ++p) scores[p] = exp(scores[p] - largest);
  Lanes sum = {};
  const Lanes one = broadcast(1);
  size_t p = 0;
  for (; p + kLanes <= count; p += kLanes) add_product(sum, load(scores + p), one);
  if (p < count) add_product(sum, load_first(scores + p, count - p), one);
  return reduce(sum);
}

/// out[i] = (sum over p of weight p * value p[i]) / total for 16 * Groups coordinates, positions in
/// order.
template <size_t Groups>
inline void mix_group(const Attention& a, float total, size_t first) {
  Lanes sums[Groups] = {};
  for (size_t p = 0; p < a.count; ++p) {
    const Lanes weight = broadcast(a.scores[p]);
    const float* value = a.values + p * a.stride + first;
    for (size_t g = 0; g < Groups; ++g) add_product(sums[g], weight, load(value + g * kLanes));
  }
  for (size_t g = 0; g < Groups; ++g) {
    for (Vector& part : sums[g].part) part /= total;
    store(sums[g], a.out + first + g * kLanes);
  }
}

void mix(const Attention& a, float total) {
  size_t i = 0;
  for (; i + 4 * kLanes <= a.head_size; i += 4 * kLanes) mix_group<4>(a, total, i);
  for (; i + kLanes <= a.head_size; i += kLanes) mix_group<1>(a, total, i);
  for (; i < a.head_size; ++i) {
    float sum = 0;
    for (size_t p = 0; p < a.count; ++p) sum += a.scores[p] * a.values[p * a.stride + i];
    a.out[i] = sum / total;
  }
}

void attend(const Attention& a) {
  score(a);
  if (a.softcap > 0) softcap(a.scores, a.softcap, a.count);
  const float total = exponentiate(a.scores, a.count);
  mix(a, total);
}

constexpr KernelTable make_table(const char* name) {
  return {name, product, attend, rms_norm, silu_gate, gelu_gate, softcap};
}

}  // namespace
}  // namespace isthmus::kernels::ISTHMUS_ISA
