#include <cmath>
#include <vector>

#include "reference.h"
#include "support/catch.h"
#include "variants.h"

namespace isthmus::kernels {
namespace {

/// One head's cache of `capacity` positions in any format.
class Cache {
 public:
  Cache(KvFormat format, size_t head_size, size_t capacity)
      : format_(format),
        head_size_(head_size),
        keys_(bytes(capacity)),
        values_(bytes(capacity)),
        key_scales_(capacity + 16),
        value_scales_(capacity + 16) {}

  KvHead head() {
    KvHead head;
    head.keys = keys_.data();
    head.values = values_.data();
    if (format_ != KvFormat::kF32) {
      head.key_scales = key_scales_.data();
      head.value_scales = value_scales_.data();
    }
    return head;
  }

  void fill(const KernelTable& table, std::span<const float> keys, std::span<const float> values) {
    for (size_t p = 0; p * head_size_ < keys.size(); ++p) {
      table.store_kv(format_, head(), head_size_, p, keys.data() + p * head_size_,
                     values.data() + p * head_size_);
    }
  }

 private:
  [[nodiscard]] size_t bytes(size_t capacity) const {
    return (capacity + 16) * (head_size_ + 16) * sizeof(float);
  }
  KvFormat format_;
  size_t head_size_;
  std::vector<std::byte> keys_;
  std::vector<std::byte> values_;
  std::vector<float> key_scales_;
  std::vector<float> value_scales_;
};

struct Case {
  KvFormat format = KvFormat::kF32;
  size_t head_size = 64;
  size_t heads = 1;
  size_t rows = 1;
  size_t position = 0;
  size_t window = 0;
  float softcap = 0;
  double magnitude = 4;  // of values
};

/// Queries, keys and values of a case, and what comes out, [rows, heads, head_size].
struct Data {
  explicit Data(const Case& c)
      : queries(numbers(9, c.rows * c.heads * c.head_size, 4)),
        keys(numbers(10, (c.position + c.rows) * c.head_size, 4)),
        values(numbers(11, (c.position + c.rows) * c.head_size, c.magnitude)) {}
  std::vector<float> queries;
  std::vector<float> keys;
  std::vector<float> values;
};

/// Rows [first, first + count) of the case in one call.
std::vector<float> attend(const KernelTable& table, const Case& c, const Data& data, size_t first,
                          size_t count) {
  Cache cache(c.format, c.head_size, c.position + c.rows);
  cache.fill(table, data.keys, data.values);
  const size_t width = c.heads * c.head_size;
  std::vector<float> out(count * width);
  std::vector<float> scores(kAttentionTile * (c.position + c.rows + 31));
  Attention a;
  a.format = c.format;
  a.kv = cache.head();
  a.head_size = c.head_size;
  a.queries = data.queries.data() + first * width;
  a.out = out.data();
  a.query_stride = width;
  a.out_stride = width;
  a.rows = count;
  a.heads = c.heads;
  a.position = c.position + first;
  a.window = c.window;
  a.scale = 0.25F;
  a.softcap = c.softcap;
  a.scores = scores.data();
  table.attend(a);
  return out;
}

void check_close_to_mathematics(const Case& c, double tolerance) {
  CAPTURE(static_cast<int>(c.format), c.head_size, c.heads, c.rows, c.position, c.window);
  const Data data(c);
  const auto out =
      same_on_all([&](const KernelTable& table) { return attend(table, c, data, 0, c.rows); });
  for (size_t q = 0; q < c.rows * c.heads; ++q) {
    const size_t end = c.position + q / c.heads + 1;
    const size_t begin = c.window == 0 || end <= c.window ? 0 : end - c.window;
    const auto piece = [&](const std::vector<float>& all) {
      return std::span(all).subspan(begin * c.head_size, (end - begin) * c.head_size);
    };
    const auto exact =
        test::attend_in_double(std::span(data.queries).subspan(q * c.head_size, c.head_size),
                               piece(data.keys), piece(data.values), 0.25, c.softcap);
    for (size_t i = 0; i < c.head_size; ++i) {
      REQUIRE(std::abs(out[q * c.head_size + i] - exact[i]) < tolerance);
    }
  }
}

TEST_CASE("attention comes close to the mathematics at every size", "[kernels][attention]") {
  Case c;
  c.position = GENERATE(0, 1, 2, 14, 15, 16, 40, 300);
  c.head_size = GENERATE(2, 6, 16, 24, 64, 80, 128);
  c.rows = GENERATE(1, 2, 5);
  c.heads = GENERATE(1, 3, 4);
  c.softcap = GENERATE(0.0F, 5.0F);
  check_close_to_mathematics(c, 1e-4);
}

TEST_CASE("a window hides what lies before it", "[kernels][attention]") {
  Case c;
  c.position = GENERATE(0, 3, 20, 100);
  c.window = GENERATE(1, 2, 16, 17, 50);
  c.rows = GENERATE(1, 7);
  c.heads = 2;
  check_close_to_mathematics(c, 1e-4);
}

TEST_CASE("stored halves and bytes cost what their precision says", "[kernels][attention]") {
  Case c;
  c.head_size = GENERATE(24, 64);
  c.position = GENERATE(0, 33);
  c.rows = 2;
  c.heads = 3;
  // Scores are off by some 4 * 4 * 64 / 4 times the rounding, values by the rounding itself.
  c.format = KvFormat::kF16;
  check_close_to_mathematics(c, 0.2);
  c.format = KvFormat::kInt8;
  check_close_to_mathematics(c, 2.5);
}

TEST_CASE("a row's result does not depend on the rows beside it", "[kernels][attention]") {
  Case c;
  c.format = GENERATE(KvFormat::kF32, KvFormat::kF16, KvFormat::kInt8);
  c.heads = GENERATE(1, 3);
  c.window = GENERATE(0, 9);
  c.rows = 11;
  c.position = 21;
  const Data data(c);
  for (const KernelTable* table : available_kernels()) {
    const auto together = attend(*table, c, data, 0, c.rows);
    for (size_t first = 0; first < c.rows; first += 3) {
      const size_t count = std::min<size_t>(3, c.rows - first);
      const auto apart = attend(*table, c, data, first, count);
      const auto same = std::span(together).subspan(first * c.heads * c.head_size, apart.size());
      CAPTURE(table->name, first);
      CHECK(same_bits(apart, same));
    }
  }
}

TEST_CASE("numbers too large for binary16 are stored all the same", "[kernels][attention]") {
  Case c;
  c.format = KvFormat::kF16;
  c.magnitude = 1e6;
  check_close_to_mathematics(c, 1e6 * 0x1p-11);
  c.position = 30;
  const Data data(c);
  for (const float value : attend(*available_kernels().front(), c, data, 0, 1)) {
    CHECK(std::isfinite(value));
  }
}

TEST_CASE("one stored position comes back as it was rounded", "[kernels][attention]") {
  // A single position has weight 1, so what comes out is the stored value.
  Case c;
  c.format = GENERATE(KvFormat::kF32, KvFormat::kF16, KvFormat::kInt8);
  c.head_size = 37;
  c.magnitude = GENERATE(0.0, 1e-30, 1e-5, 1.0, 3e4, 7e4, 1e6, 1e30);
  const double relative = c.format == KvFormat::kF32   ? 0
                          : c.format == KvFormat::kF16 ? 0x1p-11
                                                       : 0.5 / 126;
  const Data data(c);
  const auto out =
      same_on_all([&](const KernelTable& table) { return attend(table, c, data, 0, 1); });
  float top = 0;
  for (const float value : data.values) top = std::max(top, std::abs(value));
  for (size_t i = 0; i < out.size(); ++i) {
    // Binary16 has no numbers below 2^-25, and no scale is made for small ones.
    const double bound = relative * top + (c.format == KvFormat::kF16 ? 0x1p-25 : 0);
    REQUIRE(std::abs(out[i] - data.values[i]) <= bound);
  }
}

TEST_CASE("attention survives scores of a million", "[kernels][attention]") {
  const std::vector<float> keys = {1e3F, 0, -1e3F, 0, 999, 0};
  const std::vector<float> values = {1, 2, 3, 4, 5, 6};
  const std::vector<float> query = {1e3F, 0};
  for (const KernelTable* table : available_kernels()) {
    Cache cache(KvFormat::kF32, 2, 3);
    cache.fill(*table, keys, values);
    std::vector<float> scores(kAttentionTile * 64);
    std::vector<float> out(2);
    Attention a;
    a.kv = cache.head();
    a.head_size = 2;
    a.queries = query.data();
    a.out = out.data();
    a.rows = 1;
    a.heads = 1;
    a.position = 2;
    a.scores = scores.data();
    table->attend(a);
    CHECK(out == std::vector<float>{1, 2});
  }
}

}  // namespace
}  // namespace isthmus::kernels
