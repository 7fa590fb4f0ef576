#include "rans.h"

#include <cmath>
#include <numeric>
#include <random>

#include "bits.h"
#include "model.h"
#include "support/catch.h"
#include "trellis.h"

namespace isthmus::codec {
namespace {

std::vector<double> random_weights(std::mt19937& random, size_t size) {
  std::vector<double> weights(size);
  for (double& w : weights) w = std::exp(-static_cast<double>(random() % 12));
  return weights;
}

TEST_CASE("frequencies are positive and sum to 4096", "[codec][rans]") {
  std::mt19937 random(1);
  for (const size_t size : {1, 2, 3, 17, 120, 256}) {
    std::vector<double> weights = random_weights(random, size);
    if (size > 2) weights[size / 2] = 0;
    const FrequencyTable table(weights);
    uint32_t sum = 0;
    for (size_t s = 0; s < size; ++s) {
      REQUIRE(table[s].frequency > 0);
      REQUIRE(table[s].start == sum);
      REQUIRE(table.at(sum) == s);
      REQUIRE(table.cost(s) == Approx(12 - std::log2(table[s].frequency)).margin(1e-4));
      sum += table[s].frequency;
    }
    CHECK(sum == 4096);
  }
}

TEST_CASE("rANS gives back symbols, bits and what is carried", "[codec][rans]") {
  std::mt19937 random(GENERATE(range(0U, 20U)));
  std::vector<FrequencyTable> tables;
  for (const size_t size : {1, 2, 5, 256}) tables.emplace_back(random_weights(random, size));
  struct Item {
    const FrequencyTable* table;  // null: bits
    uint32_t value;
    unsigned count;
  };
  std::vector<Item> items;
  RansEncoder encoder(0);
  for (size_t i = random() % 3000; i > 0; --i) {
    const FrequencyTable& table = tables[random() % tables.size()];
    const auto count = static_cast<unsigned>(random() % 16);
    const Item item =
        random() % 3 == 0
            ? Item{nullptr, static_cast<uint32_t>(random()) & ((1U << count) - 1), count}
            : Item{&table, table.at(random() % 4096), 0};
    if (item.table != nullptr) {
      encoder.symbol(table, item.value);
    } else {
      encoder.bits(item.value, item.count);
    }
    items.push_back(item);
  }
  const uint32_t carried = random() % (1U << 15);
  std::vector<std::byte> bytes;
  const unsigned state_bytes = encoder.finish(carried, bytes);
  RansDecoder decoder(bytes, state_bytes);
  for (const Item& item : items) {
    const uint32_t read =
        item.table != nullptr ? decoder.symbol(*item.table) : decoder.bits(item.count);
    REQUIRE(read == item.value);
  }
  CHECK(decoder.carried() == carried);
  CHECK(decoder.position() == bytes.size());
  CHECK_FALSE(decoder.overrun());
}

TEST_CASE("rANS comes within 0.1 % and 4 bytes of the entropy", "[codec][rans]") {
  std::mt19937 random(7);
  const FrequencyTable table(random_weights(random, 30));
  RansEncoder encoder(0);
  double bits = 0;
  for (int i = 0; i < 20'000; ++i) {
    const unsigned symbol = table.at(random() % 4096);
    bits += 12 - std::log2(table[symbol].frequency);
    encoder.symbol(table, symbol);
  }
  std::vector<std::byte> bytes;
  (void)encoder.finish(0, bytes);
  CHECK(static_cast<double>(bytes.size()) * 8 <= bits * 1.001 + 32);
  CHECK(static_cast<double>(bytes.size()) * 8 >= bits * 0.999 - 16);
}

TEST_CASE("rANS states that no encoder writes are noticed", "[codec][rans]") {
  const auto overrun = [](std::vector<uint8_t> bytes, unsigned state_bytes) {
    return RansDecoder(std::as_bytes(std::span(bytes)), state_bytes).overrun();
  };
  CHECK(overrun({}, 2));
  CHECK(overrun({0xff, 0xff}, 3));
  CHECK(overrun({0xff, 0x7f}, 2));  // below 2^15
  CHECK_FALSE(overrun({0x00, 0x80}, 2));
  CHECK_FALSE(overrun({0xff, 0xff, 0xff, 0x7f}, 4));
  CHECK(overrun({0, 0, 0, 0x80}, 4));  // 2^31
}

TEST_CASE("packed numbers come back", "[codec][bits]") {
  std::mt19937 random(3);
  std::vector<std::pair<uint32_t, unsigned>> items;
  std::vector<std::byte> bytes;
  BitWriter writer(bytes);
  size_t total = 0;
  for (int i = 0; i < 1000; ++i) {
    const auto count = static_cast<unsigned>(random() % 33);
    const auto value = static_cast<uint32_t>(random() & ((uint64_t{1} << count) - 1));
    items.emplace_back(value, count);
    writer.put(value, count);
    total += count;
  }
  writer.finish();
  CHECK(bytes.size() == (total + 7) / 8);
  BitReader reader(bytes);
  for (const auto& [value, count] : items) REQUIRE(reader.get(count) == value);
  CHECK_FALSE(reader.overrun());
  CHECK(reader.rest_is_zero());
  CHECK(reader.get(32) == 0);
  CHECK(reader.overrun());
}

TEST_CASE("code tables give every code a place or an escape", "[codec][model]") {
  for (const Shape shape :
       {Shape::kGaussian, Shape::kStudent8, Shape::kStudent4, Shape::kStudent3}) {
    const Distribution distribution(shape);
    for (const Cells cells : {Cells::kAround, Cells::kEven, Cells::kOdd}) {
      for (int code_class = 0; code_class < kClassCount; ++code_class) {
        const CodeTable table(distribution, cells, code_class, 0);
        CAPTURE(code_class, static_cast<int>(cells));
        REQUIRE(table.frequencies.size() == static_cast<size_t>(table.last - table.first + 2));
        REQUIRE_FALSE(table.escapes(0));
        if (cells == Cells::kAround) REQUIRE(table.cost(0) <= table.cost(1));
        for (const int code : {-30'000, -700, -1, 0, 1, 2, 90, 30'000}) {
          if (table.escapes(code)) continue;
          REQUIRE(table.symbol(code) < table.frequencies.size() - 1);
        }
      }
    }
  }
}

TEST_CASE("distributions have variance 1 and quantiles that fit", "[codec][model]") {
  const auto shape = GENERATE(Shape::kGaussian, Shape::kStudent8, Shape::kStudent4);
  const Distribution distribution(shape);
  double variance = 0;
  constexpr int kPieces = 200'000;
  for (int i = 0; i < kPieces; ++i) {
    const double p = 0.5 * (i + 0.5) / kPieces;
    const double x = distribution.quantile(p);
    REQUIRE(distribution.below(x) == Approx(p).margin(1e-9));
    variance += x * x / kPieces;
  }
  // The heavier the tails, the more lies beyond the grid.
  CHECK(variance == Approx(1).margin(shape == Shape::kStudent4 ? 0.02 : 0.001));
  CHECK(distribution.below(1000) == 0.5);
}

TEST_CASE("code tables agree with the entropy of a rounded Gaussian", "[codec][model]") {
  // A step of the standard deviation: entropy 2.1048 bits.
  const CodeTable table(Distribution(Shape::kGaussian), Cells::kAround, class_of(1.0), 0);
  std::mt19937 random(5);
  std::normal_distribution<double> normal;
  double bits = 0;
  constexpr int kDraws = 200'000;
  for (int i = 0; i < kDraws; ++i)
    bits += double{table.cost(static_cast<int>(std::lround(normal(random))))};
  CHECK(bits / kDraws == Approx(2.1048).margin(0.01));
}

TEST_CASE("the trellis beats rounding by 0.13 bits and its tables fit", "[codec][trellis]") {
  // Rate-distortion theory: a Gaussian's error at rate R is at least 2^(-2R); rounding with
  // entropy coding is 0.255 bits above that.
  const double ratio = GENERATE(1.0, 1.5, 2.0, 4.0);
  const Distribution gaussian(Shape::kGaussian);
  const std::array wanted = {class_of(ratio)};
  CodeTables even_tables(gaussian, Cells::kEven, 0, wanted);
  CodeTables odd_tables(gaussian, Cells::kOdd, 0, wanted);
  fit_trellis_tables(gaussian, wanted[0], even_tables, odd_tables);
  const CodeTable& even = even_tables[wanted[0]];
  const CodeTable& odd = odd_tables[wanted[0]];
  std::mt19937 random(11);
  std::normal_distribution<double> normal;
  std::vector<float> values(50'000);
  for (float& v : values) v = static_cast<float>(ratio * normal(random));
  const std::vector<TrellisTables> tables(values.size(), TrellisTables{&even, &odd});
  std::vector<int16_t> codes(values.size());
  trellis_encode(values, tables, 1000, codes);
  double bits = 0;
  double error = 0;
  size_t state = 0;
  for (size_t i = 0; i < codes.size(); ++i) {
    bits += double{(kTrellis[state].odd != 0 ? odd : even).cost(codes[i])};
    const double off = trellis_level(codes[i], kTrellis[state].odd) - double{values[i]};
    error += off * off;
    state = kTrellis[state].next[static_cast<size_t>(codes[i] & 1)];
  }
  const double rate = bits / static_cast<double>(codes.size());
  const double least = 0.5 * std::log2(ratio * ratio * static_cast<double>(codes.size()) / error);
  CAPTURE(rate, least);
  CHECK(rate - least < 0.13);
  CHECK(rate - least > 0.08);  // below that the tables would not be probabilities
}

TEST_CASE("each parity leads from every trellis state to another", "[codec][trellis]") {
  std::array<int, kTrellisStates> reached{};
  for (const TrellisState& state : kTrellis) {
    CHECK(state.next[0] != state.next[1]);
    for (const uint8_t next : state.next) ++reached[next];
  }
  for (const int ways : reached) CHECK(ways == 2);
}

}  // namespace
}  // namespace isthmus::codec
