// Decoders against bytes from anyone. The fuzz target `codec` does the same without end.
#include "samples.h"

namespace isthmus::codec {
namespace {

using test::all_specs;
using test::boundary_like;
using test::make_codec;
using test::SeededRandom;
using test::value_of;

/// The first `length` bytes, with zeros behind them if there are fewer. Memory of its own, so that
/// the sanitizers see a read past the end.
std::vector<std::byte> resized(std::span<const std::byte> bytes, size_t length) {
  std::vector<std::byte> result(length);
  std::copy_n(bytes.begin(), std::min(length, bytes.size()), result.begin());
  return result;
}

TEST_CASE("a message cut short at any byte is refused", "[codec][hostile]") {
  const auto spec = GENERATE(from_range(all_specs()));
  CAPTURE(spec);
  SeededRandom random(5);
  const BoundaryCodec codec = make_codec(spec, 96, &random);
  const auto bytes = value_of(codec.encode(boundary_like(3, 96, 4).view()));
  Matrix back(3, 96);
  for (size_t length = 0; length < bytes.size(); ++length) {
    const auto cut = resized(bytes, length);
    CAPTURE(length);
    CHECK_FAILS_WITH(codec.decode_into(cut, back.view()), ErrorCode::kCorrupt);
  }
}

TEST_CASE("a message with more behind it is refused", "[codec][hostile]") {
  const auto spec = GENERATE(from_range(all_specs()));
  CAPTURE(spec);
  SeededRandom random(5);
  const BoundaryCodec codec = make_codec(spec, 96, &random);
  const auto bytes = value_of(codec.encode(boundary_like(3, 96, 4).view()));
  Matrix back(3, 96);
  for (const size_t more : {1, 2, 32, 64, 100'000}) {
    const auto longer = resized(bytes, bytes.size() + more);
    CHECK_FAILS_WITH(codec.decode_into(longer, back.view()), ErrorCode::kCorrupt);
  }
}

TEST_CASE("a message for another number of rows is refused", "[codec][hostile]") {
  const auto spec = GENERATE(from_range(all_specs()));
  CAPTURE(spec);
  SeededRandom random(5);
  const BoundaryCodec codec = make_codec(spec, 96, &random);
  const auto bytes = value_of(codec.encode(boundary_like(3, 96, 4).view()));
  for (const size_t rows : {0, 2, 5, 50}) {
    Matrix back(rows, 96);
    CHECK_FAILS_WITH(codec.decode_into(bytes, back.view()), ErrorCode::kCorrupt);
  }
}

TEST_CASE("mutated messages are refused or decode to finite numbers", "[codec][hostile]") {
  const auto spec = GENERATE(from_range(all_specs()));
  CAPTURE(spec);
  SeededRandom noise(5);
  const BoundaryCodec codec = make_codec(spec, 24, &noise);
  const auto bytes = value_of(codec.encode(boundary_like(2, 24, 4).view()));
  std::mt19937_64 random(9);
  Matrix back(2, 24);
  for (int i = 0; i < 3000; ++i) {
    auto mutated = bytes;
    for (uint64_t n = 1 + random() % 4; n > 0; --n)
      mutated[random() % mutated.size()] = static_cast<std::byte>(random());
    if (random() % 4 == 0) mutated = resized(mutated, random() % (2 * bytes.size()));
    if (!codec.decode_into(mutated, back.view())) continue;
    for (const float value : back.view().values()) REQUIRE(std::isfinite(value));
  }
}

TEST_CASE("padding that is not zero is refused", "[codec][hostile]") {
  const auto* const spec = GENERATE("f16|pad:64", "int3|pad:64", "int3|rans|pad:64");
  const BoundaryCodec codec = make_codec(spec, 24, nullptr);
  auto bytes = value_of(codec.encode(boundary_like(1, 24, 4).view()));
  bytes.back() = std::byte{1};
  Matrix back(1, 24);
  CHECK_FAILS_WITH(codec.decode_into(bytes, back.view()), ErrorCode::kCorrupt);
}

TEST_CASE("the unused bits of the last byte must be zero", "[codec][hostile]") {
  const BoundaryCodec codec = make_codec("int1", 7, nullptr);  // 12 + 7 bits
  auto bytes = value_of(codec.encode(boundary_like(1, 7, 4).view()));
  Matrix back(1, 7);
  CHECK(codec.decode_into(bytes, back.view()).has_value());
  bytes.back() |= std::byte{0x80};
  CHECK_FAILS_WITH(codec.decode_into(bytes, back.view()), ErrorCode::kCorrupt);
}

TEST_CASE("a first byte that names no way of coding is refused", "[codec][hostile]") {
  const BoundaryCodec codec = make_codec("int4|rans", 24, nullptr);
  auto bytes = value_of(codec.encode(boundary_like(1, 24, 4).view()));
  Matrix back(1, 24);
  for (const int first : {1, 5, 255}) {
    bytes[0] = static_cast<std::byte>(first);
    CHECK_FAILS_WITH(codec.decode_into(bytes, back.view()), ErrorCode::kCorrupt);
  }
}

TEST_CASE("outliers out of order, out of the row or not finite are refused", "[codec][hostile]") {
  // split:2, width 8: exponent 8 bits, then twice position 3 bits and value 16 bits.
  const BoundaryCodec codec = make_codec("split:2|int1", 8, nullptr);
  const auto message = [&](uint32_t first, uint32_t second, uint32_t value) {
    std::vector<uint32_t> fields = {126, first, value, second, 0x3c00, 1601, 0};
    const std::vector<unsigned> widths = {8, 3, 16, 3, 16, 12, 8};
    uint64_t low = 0;
    uint64_t high = 0;
    unsigned at = 0;
    for (size_t i = 0; i < fields.size(); ++i) {
      low |= at < 64 ? uint64_t{fields[i]} << at : 0;
      if (at + widths[i] > 64) high |= at < 64 ? fields[i] >> (64 - at) : fields[i] << (at - 64);
      at += widths[i];
    }
    std::vector<std::byte> bytes;
    for (unsigned i = 0; i < (at + 7) / 8; ++i)
      bytes.push_back(static_cast<std::byte>(i < 8 ? low >> 8 * i : high >> 8 * (i - 8)));
    return bytes;
  };
  Matrix back(1, 8);
  REQUIRE(codec.decode_into(message(1, 6, 0x4000), back.view()).has_value());
  CHECK(back.row(0)[6] - back.row(0)[0] == 1);  // 1 on top of what the sign gives
  CHECK(back.row(0)[1] - back.row(0)[0] == 2);
  CHECK_FAILS_WITH(codec.decode_into(message(6, 1, 0x4000), back.view()), ErrorCode::kCorrupt);
  CHECK_FAILS_WITH(codec.decode_into(message(3, 3, 0x4000), back.view()), ErrorCode::kCorrupt);
  CHECK_FAILS_WITH(codec.decode_into(message(1, 6, 0x7c00), back.view()), ErrorCode::kCorrupt);
  CHECK_FAILS_WITH(codec.decode_into(message(1, 6, 0xfe00), back.view()), ErrorCode::kCorrupt);
}

}  // namespace
}  // namespace isthmus::codec
