// Attention over a cache, and writing to it. Part of every variant, see lanes.h. The including
// source defines ISTHMUS_SCORE_BLOCKS and ISTHMUS_MIX_GROUPS: how many blocks of 16 positions, and
// of 16 coordinates, fit in registers for a tile of queries.
#pragma once

#include "elementwise.h"

namespace isthmus::kernels::ISTHMUS_ISA {
namespace {

/// Stored numbers as 16 lanes.
inline Lanes load_stored(const float* from) {
  return load(from);
}
inline Lanes load_stored(const uint16_t* from) {
  Lanes lanes;
  ISTHMUS_UNROLL
  for (size_t p = 0; p < kParts; ++p) lanes.part[p] = load_half(from + p * kVectorLanes);
  return lanes;
}
inline Lanes load_stored(const int8_t* from) {
  Lanes lanes;
  ISTHMUS_UNROLL
  for (size_t p = 0; p < kParts; ++p) lanes.part[p] = load_bytes(from + p * kVectorLanes);
  return lanes;
}

/// Numbers that a stored value takes.
inline size_t value_width(size_t head_size) {
  return (head_size + kLanes - 1) / kLanes * kLanes;
}

/// Queries [first, first + Count) of all rows and heads, in that order. They look at positions
/// [begin, end) together and each at its own [own_begin, own_end).
template <size_t Count>
struct QueryTile {
  const float* query[Count];
  float* out[Count];
  float* scores[Count];  // of position begin and up
  size_t own_begin[Count];
  size_t own_end[Count];
  size_t begin = 0;  // a multiple of 16
  size_t end = 0;
};

template <size_t Count>
inline QueryTile<Count> make_tile(const Attention& a, size_t first) {
  QueryTile<Count> tile;
  for (size_t q = 0; q < Count; ++q) {
    const size_t row = (first + q) / a.heads;
    const size_t head = (first + q) % a.heads;
    tile.query[q] = a.queries + row * a.query_stride + head * a.head_size;
    tile.out[q] = a.out + row * a.out_stride + head * a.head_size;
    tile.own_end[q] = a.position + row + 1;
    tile.own_begin[q] =
        a.window == 0 || tile.own_end[q] <= a.window ? 0 : tile.own_end[q] - a.window;
  }
  tile.begin = tile.own_begin[0] / kLanes * kLanes;
  tile.end = tile.own_end[Count - 1];
  const size_t room = a.position + a.rows + 31;
  for (size_t q = 0; q < Count; ++q) tile.scores[q] = a.scores + q * room;
  return tile;
}

/// What a tile reads, in this order: its keys, its values, and the same of the head that comes
/// next. Much of it may be less than what is fetched ahead, so that goes on from one to the other.
template <typename T>
class ReadingOrder {
 public:
  ReadingOrder(const Attention& a, size_t begin, size_t end) {
    const size_t width = value_width(a.head_size);
    const size_t blocks = (end - begin + kLanes - 1) / kLanes;
    bytes_[0] = blocks * kLanes * a.head_size * sizeof(T);
    bytes_[1] = (end - begin) * width * sizeof(T);
    const KvHead& next = a.next.keys != nullptr ? a.next : a.kv;
    from_[0] = static_cast<const char*>(a.kv.keys) + begin * a.head_size * sizeof(T);
    from_[1] = static_cast<const char*>(a.kv.values) + begin * width * sizeof(T);
    from_[2] = static_cast<const char*>(next.keys) + begin * a.head_size * sizeof(T);
    from_[3] = static_cast<const char*>(next.values) + begin * width * sizeof(T);
  }

  /// What is read kAhead bytes after byte `at` of the keys, or of the values.
  [[nodiscard]] const char* after_key(size_t at) const { return place(at + kAhead, 0); }
  [[nodiscard]] const char* after_value(size_t at) const { return place(at + kAhead, 1); }

 private:
  [[nodiscard]] const char* place(size_t at, size_t table) const {
    while (table < 3 && at >= bytes_[table % 2]) at -= bytes_[table++ % 2];
    return from_[table] + at;
  }

  size_t bytes_[2];  // of keys, of values
  const char* from_[4];
};

/// Scores of 16 * Blocks positions from `position` up: one sum per position, coordinate by
/// coordinate. What lies behind a query's own positions is rubbish that nobody reads.
template <size_t Blocks, typename T, size_t Count>
inline void score_blocks(const Attention& a, const QueryTile<Count>& tile,
                         const ReadingOrder<T>& order, size_t position) {
  Lanes sums[Count][Blocks] = {};
  const T* keys = static_cast<const T*>(a.kv.keys) + position * a.head_size;
  const char* ahead = order.after_key((position - tile.begin) * a.head_size * sizeof(T));
  for (size_t i = 0; i < a.head_size; ++i) {
    Lanes key[Blocks];
    __builtin_prefetch(ahead + i * Blocks * kLanes * sizeof(T));
    ISTHMUS_UNROLL
    for (size_t b = 0; b < Blocks; ++b) {
      key[b] = load_stored(keys + (b * a.head_size + i) * kLanes);
    }
    ISTHMUS_UNROLL
    for (size_t q = 0; q < Count; ++q) {
      const Lanes coordinate = broadcast(tile.query[q][i]);
      ISTHMUS_UNROLL
      for (size_t b = 0; b < Blocks; ++b) add_product(sums[q][b], coordinate, key[b]);
    }
  }
  const Lanes scale = broadcast(a.scale);
  ISTHMUS_UNROLL
  for (size_t b = 0; b < Blocks; ++b) {
    const size_t p = position + b * kLanes;
    Lanes factor = scale;
    if (a.kv.key_scales != nullptr) factor = multiply(scale, load(a.kv.key_scales + p));
    ISTHMUS_UNROLL
    for (size_t q = 0; q < Count; ++q) {
      store(multiply(sums[q][b], factor), tile.scores[q] + (p - tile.begin));
    }
  }
}

float exponentiate(float* scores, size_t count) {
  size_t whole = 0;
  Vector top = scores[0] - Vector{};
  for (; whole + kVectorLanes <= count; whole += kVectorLanes) {
    Vector next;
    __builtin_memcpy(&next, scores + whole, sizeof next);
    top = larger(next, top);
  }
  float largest = largest_lane(top);
  for (size_t p = whole; p < count; ++p) largest = scores[p] > largest ? scores[p] : largest;
  for (size_t p = 0; p < count; ++p) scores[p] = exp(scores[p] - largest);
  Lanes sum = {};
  const Lanes one = broadcast(1);
  size_t p = 0;
  for (; p + kLanes <= count; p += kLanes) add_product(sum, load(scores + p), one);
  if (p < count) add_product(sum, load_first(scores + p, count - p), one);
  return reduce(sum);
}

/// Turns the scores of a query's own positions into weights of stored values and the others of the
/// tile into zeros, which change no sum. \returns the sum of the weights before values' scales.
template <size_t Count>
inline float weigh(const Attention& a, const QueryTile<Count>& tile, size_t q) {
  const size_t begin = tile.own_begin[q];
  const size_t count = tile.own_end[q] - begin;
  float* own = tile.scores[q] + (begin - tile.begin);
  if (a.softcap > 0) softcap(own, a.softcap, count);
  const float total = exponentiate(own, count);
  if (a.kv.value_scales != nullptr) {
    for (size_t p = 0; p < count; ++p) own[p] *= a.kv.value_scales[begin + p];
  }
  for (float* s = tile.scores[q]; s < own; ++s) *s = 0;
  for (float* s = own + count; s < tile.scores[q] + (tile.end - tile.begin); ++s) *s = 0;
  return total;
}

/// out[i] = (sum over p of weight p * value p[i]) / total for 16 * Groups coordinates, positions in
/// order.
template <size_t Groups, typename T, size_t Count>
inline void mix_groups(const Attention& a, const QueryTile<Count>& tile,
                       const ReadingOrder<T>& order, const float (&totals)[Count], size_t first) {
  const size_t stride = value_width(a.head_size);
  const T* values = static_cast<const T*>(a.kv.values) + tile.begin * stride + first;
  Lanes sums[Count][Groups] = {};
  for (size_t p = 0; p < tile.end - tile.begin; ++p, values += stride) {
    Lanes value[Groups];
    const char* ahead = order.after_value((p * stride + first) * sizeof(T));
    for (size_t line = 0; line < Groups * kLanes * sizeof(T); line += 64) {
      __builtin_prefetch(ahead + line);
    }
    ISTHMUS_UNROLL
    for (size_t g = 0; g < Groups; ++g) value[g] = load_stored(values + g * kLanes);
    ISTHMUS_UNROLL
    for (size_t q = 0; q < Count; ++q) {
      const Lanes weight = broadcast(tile.scores[q][p]);
      ISTHMUS_UNROLL
      for (size_t g = 0; g < Groups; ++g) add_product(sums[q][g], weight, value[g]);
    }
  }
  for (size_t q = 0; q < Count; ++q) {
    for (size_t g = 0; g < Groups; ++g) {
      for (Vector& part : sums[q][g].part) part /= totals[q];
      const size_t i = first + g * kLanes;
      if (i + kLanes <= a.head_size) {
        store(sums[q][g], tile.out[q] + i);
      } else {
        __builtin_memcpy(tile.out[q] + i, &sums[q][g], (a.head_size - i) * sizeof(float));
      }
    }
  }
}

template <typename T, size_t Count>
inline void attend_tile(const Attention& a, size_t first) {
  const QueryTile<Count> tile = make_tile<Count>(a, first);
  const ReadingOrder<T> order(a, tile.begin, tile.end);
  constexpr size_t kBlocks = ISTHMUS_SCORE_BLOCKS;
  size_t p = tile.begin;
  for (; p + (kBlocks - 1) * kLanes < tile.end; p += kBlocks * kLanes) {
    score_blocks<kBlocks, T>(a, tile, order, p);
  }
  for (; p < tile.end; p += kLanes) score_blocks<1, T>(a, tile, order, p);
  float totals[Count];
  for (size_t q = 0; q < Count; ++q) totals[q] = weigh(a, tile, q);
  constexpr size_t kGroups = ISTHMUS_MIX_GROUPS;
  size_t i = 0;
  for (; i + (kGroups - 1) * kLanes < a.head_size; i += kGroups * kLanes) {
    mix_groups<kGroups, T>(a, tile, order, totals, i);
  }
  for (; i < a.head_size; i += kLanes) mix_groups<1, T>(a, tile, order, totals, i);
}

template <typename T>
void attend_stored(const Attention& a) {
  const size_t queries = a.rows * a.heads;
  static_assert(kAttentionTile == 4);
  size_t q = 0;
  for (; q + 4 <= queries; q += 4) attend_tile<T, 4>(a, q);
  if (queries - q == 3) attend_tile<T, 3>(a, q);
  if (queries - q == 2) attend_tile<T, 2>(a, q);
  if (queries - q == 1) attend_tile<T, 1>(a, q);
}

void attend(const Attention& a) {
  switch (a.format) {
    case KvFormat::kF32:
      return attend_stored<float>(a);
    case KvFormat::kF16:
      return attend_stored<uint16_t>(a);
    case KvFormat::kInt8:
      return attend_stored<int8_t>(a);
  }
}

inline float largest_magnitude(const float* x, size_t size) {
  float largest = 0;
  for (size_t i = 0; i < size; ++i) {
    const float magnitude = x[i] < 0 ? -x[i] : x[i];
    largest = magnitude > largest ? magnitude : largest;
  }
  return largest;
}

/// What `x` is divided by before it is stored.
inline float stored_scale(KvFormat format, const float* x, size_t size) {
  const float largest = largest_magnitude(x, size);
  if (format == KvFormat::kInt8) return largest < kSmallest ? 0 : largest / 127;
  if (largest < 0x1p15F) return 1;
  // The power of two that brings the largest number into [2^14, 2^15).
  const uint32_t exponent = __builtin_bit_cast(uint32_t, largest) >> 23U;
  return __builtin_bit_cast(float, (exponent - 14) << 23U);
}

inline void convert(float value, float* to) {
  *to = value;
}
inline void convert(float value, uint16_t* to) {
  *to = half_bits(value);
}
inline void convert(float value, int8_t* to) {
  *to = rounded_byte(value);
}

template <typename T>
void store_as(KvFormat format, const KvHead& head, size_t head_size, size_t position,
              const float* key, const float* value) {
  float key_factor = 1;
  float value_factor = 1;
  if (format != KvFormat::kF32) {
    const float key_scale = stored_scale(format, key, head_size);
    const float value_scale = stored_scale(format, value, head_size);
    head.key_scales[position] = key_scale;
    head.value_scales[position] = value_scale;
    key_factor = key_scale == 0 ? 0 : 1 / key_scale;
    value_factor = value_scale == 0 ? 0 : 1 / value_scale;
  }
  T* keys = static_cast<T*>(head.keys) + position / kLanes * kLanes * head_size + position % kLanes;
  for (size_t i = 0; i < head_size; ++i) convert(key[i] * key_factor, keys + i * kLanes);
  const size_t stride = value_width(head_size);
  T* values = static_cast<T*>(head.values) + position * stride;
  for (size_t i = 0; i < head_size; ++i) convert(value[i] * value_factor, values + i);
  for (size_t i = head_size; i < stride; ++i) convert(0, values + i);
}

void store_kv(KvFormat format, const KvHead& head, size_t head_size, size_t position,
              const float* key, const float* value) {
  switch (format) {
    case KvFormat::kF32:
      return store_as<float>(format, head, head_size, position, key, value);
    case KvFormat::kF16:
      return store_as<uint16_t>(format, head, head_size, position, key, value);
    case KvFormat::kInt8:
      return store_as<int8_t>(format, head, head_size, position, key, value);
  }
}

}  // namespace
}  // namespace isthmus::kernels::ISTHMUS_ISA
