// A safetensors file broken by hand for each field of the format and each way to break it, and JSON
// that is none.
#include <isthmus/model/safetensors.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "hf_files.h"
#include "json_object.h"
#include "support/catch.h"
#include "support/gguf_writer.h"

namespace isthmus::model {
namespace {

using nlohmann::json;
using test::little_endian;
using test::safetensors_bytes;
using test::value_of;

constexpr uint64_t kHuge = std::numeric_limits<uint64_t>::max();

// Reads from memory of exactly the file's length, so that AddressSanitizer sees a read behind it.
Result<std::vector<Tensor>> read(const std::string& image) {
  const auto bytes = std::make_unique<std::byte[]>(image.size());
  std::memcpy(bytes.get(), image.data(), image.size());
  auto tensors = safetensors::parse({bytes.get(), image.size()});
  if (tensors) {
    for (Tensor& tensor : *tensors) tensor.data = {};  // the bytes go away
  }
  return tensors;
}

json entry(const json& dtype, const json& shape, const json& offsets) {
  return {{"dtype", dtype}, {"shape", shape}, {"data_offsets", offsets}};
}

// Two tensors, x [2, 3] in F32 and y [4] in F16, and their 32 bytes.
json tiny_header() {
  return {{"x", entry("F32", {2, 3}, {0, 24})}, {"y", entry("F16", {4}, {24, 32})}};
}
const std::string kData(32, '\0');

TEST_CASE("a safetensors file reads with its types and shapes", "[model][safetensors]") {
  const auto tensors = value_of(read(safetensors_bytes(tiny_header(), kData)));
  REQUIRE(tensors.size() == 2);
  CHECK(tensors[0].name == "x");
  CHECK(tensors[0].type == DType::kF32);
  CHECK(tensors[0].shape == std::vector<uint64_t>{2, 3});
  CHECK(tensors[1].type == DType::kF16);
  json header = {{"z", entry("BF16", {16}, {0, 32})}};
  CHECK(value_of(read(safetensors_bytes(header, kData)))[0].type == DType::kBf16);
}

std::span<const std::byte> bytes_of(const std::string& text) {
  return std::as_bytes(std::span(text));
}

TEST_CASE("a safetensors file that we write reads the same", "[model][safetensors]") {
  const std::vector<float> floats = {1, -2.5F, 3e20F, 0, 7, 8};
  const std::vector<uint16_t> halves = {0x3c00, 0xbc00};
  const std::vector<Tensor> tensors = {
      {.name = "b \"x\"",
       .type = DType::kF32,
       .shape = {2, 3},
       .data = std::as_bytes(std::span(floats))},
      {.name = "a", .type = DType::kF16, .shape = {2}, .data = std::as_bytes(std::span(halves))}};
  const std::map<std::string, std::string> metadata = {{"key", "a\nvalue"}, {"", "\u00e9"}};
  const auto file = safetensors::write(tensors, metadata);
  CHECK(value_of(safetensors::metadata(file)) == metadata);
  const auto back = value_of(safetensors::parse(file));
  REQUIRE(back.size() == 2);
  for (const Tensor& tensor : back) {
    const Tensor& original = tensors[tensor.name == "a" ? 1 : 0];
    CHECK(tensor.name == original.name);
    CHECK(tensor.type == original.type);
    CHECK(tensor.shape == original.shape);
    CHECK(std::ranges::equal(tensor.data, original.data));
  }
  std::vector<Tensor> wrong = tensors;
  wrong[0].shape = {2, 2};
  CHECK_THROWS_AS(safetensors::write(wrong, {}), std::invalid_argument);
  wrong = tensors;
  wrong[0].type = DType::kBf16;
  CHECK_THROWS_AS(safetensors::write(wrong, {}), std::invalid_argument);
}

TEST_CASE("safetensors metadata are texts or an error", "[model][safetensors][broken]") {
  const auto metadata = [](const json& header) {
    return safetensors::metadata(bytes_of(safetensors_bytes(header, kData)));
  };
  CHECK(value_of(metadata(tiny_header())).empty());
  json header = tiny_header();
  header["__metadata__"] = {{"key", 3}};
  CHECK_FAILS_WITH(metadata(header), ErrorCode::kCorrupt);
  header["__metadata__"] = {{"key", nullptr}};
  CHECK_FAILS_WITH(metadata(header), ErrorCode::kNotFound);
  header["__metadata__"] = {"key"};
  CHECK_FAILS_WITH(metadata(header), ErrorCode::kCorrupt);
}

TEST_CASE("a safetensors file cut short anywhere is refused", "[model][safetensors][broken]") {
  const std::string image = safetensors_bytes(tiny_header(), kData);
  for (size_t length = 0; length < image.size(); ++length) {
    CAPTURE(length);
    const auto result = read(image.substr(0, length));
    CHECK_FAILS_WITH(result, ErrorCode::kTruncated);
  }
}

TEST_CASE("a broken safetensors header is refused", "[model][safetensors][broken]") {
  const auto with_text = [](const std::string& text) {
    return read(little_endian<uint64_t>(text.size()) + text + kData);
  };
  CHECK_FAILS_WITH(read(little_endian(kHuge) + "{}"), ErrorCode::kTooLarge);
  CHECK_FAILS_WITH(read(little_endian<uint64_t>(100'000'001) + "{}"), ErrorCode::kTooLarge);
  CHECK_FAILS_WITH(read(little_endian<uint64_t>(3) + "{}"), ErrorCode::kTruncated);
  CHECK_FAILS_WITH(read(little_endian<uint64_t>(0)), ErrorCode::kCorrupt);
  CHECK_FAILS_WITH(with_text("[]"), ErrorCode::kCorrupt);
  CHECK_FAILS_WITH(with_text("{\"x\":"), ErrorCode::kCorrupt);
  CHECK_FAILS_WITH(with_text("{\"\xff\":1}"), ErrorCode::kCorrupt);
  const std::string x = "\"x\":" + entry("F32", {2}, {0, 8}).dump();
  CHECK(with_text("{" + x + "}"));
  CHECK_FAILS_WITH(with_text("{" + x + "," + x + "}"), ErrorCode::kCorrupt);
  CHECK(with_text("{}"));
}

TEST_CASE("a broken safetensors entry is refused by name", "[model][safetensors][broken]") {
  struct Case {
    json x;
    ErrorCode code;
  };
  const json half = std::numeric_limits<uint32_t>::max();
  for (const Case& broken : std::vector<Case>{
           {3, ErrorCode::kCorrupt},
           {json::object(), ErrorCode::kNotFound},
           {entry(3, {2, 3}, {0, 24}), ErrorCode::kCorrupt},
           {entry("I64", {3}, {0, 24}), ErrorCode::kUnsupported},
           {entry("F32", 6, {0, 24}), ErrorCode::kCorrupt},
           {entry("F32", nullptr, {0, 24}), ErrorCode::kCorrupt},
           {entry("F32", json::array(), {0, 4}), ErrorCode::kCorrupt},
           {entry("F32", {1, 1, 1, 2, 3}, {0, 24}), ErrorCode::kCorrupt},
           {entry("F32", {0, 3}, {0, 0}), ErrorCode::kCorrupt},
           {entry("F32", {-2, 3}, {0, 24}), ErrorCode::kCorrupt},
           {entry("F32", {2.5, 3}, {0, 24}), ErrorCode::kCorrupt},
           {entry("F32", {kHuge, 3}, {0, 24}), ErrorCode::kCorrupt},
           {entry("F32", {half, half, half}, {0, 24}), ErrorCode::kCorrupt},
           {entry("F32", {2, 3}, nullptr), ErrorCode::kCorrupt},
           {entry("F32", {2, 3}, json::array({0})), ErrorCode::kCorrupt},
           {entry("F32", {2, 3}, {0, 24, 48}), ErrorCode::kCorrupt},
           {entry("F32", {2, 3}, {-24, 0}), ErrorCode::kCorrupt},
           {entry("F32", {2, 3}, {24, 0}), ErrorCode::kCorrupt},
           {entry("F32", {2, 3}, {0, 20}), ErrorCode::kCorrupt},
           {entry("F32", {2, 3}, {0, 28}), ErrorCode::kCorrupt},
           {entry("F32", {2, 3}, {16, 40}), ErrorCode::kTruncated},
           {entry("F32", {2, 3}, {kHuge - 24, kHuge}), ErrorCode::kTruncated},
           {entry("F32", {2, 3}, {8, 32}), ErrorCode::kCorrupt},
       }) {
    CAPTURE(broken.x.dump());
    json header = tiny_header();
    header["x"] = broken.x;
    CHECK_FAILS_WITH(read(safetensors_bytes(header, kData)), broken.code);
  }
}

TEST_CASE("only JSON objects of bounded size parse", "[model][json][broken]") {
  const auto parse = [](std::string_view text) {
    return parse_json(std::as_bytes(std::span(text)), "some.json");
  };
  CHECK(parse("{\"a\": {\"a\": 1}, \"b\": [{\"a\": 2}]}"));
  for (const std::string_view text : {"", "3", "[1]", "nul", "{", "{\"a\":1,}", "{\"a\":1} x",
                                      "{\"a\":1,\"a\":2}", "{\"a\":\"\xc3\"}", "{'a':1}"}) {
    CAPTURE(text);
    CHECK_FAILS_WITH(parse(text), ErrorCode::kCorrupt);
  }
  const std::string deep = "{\"a\":" + std::string(200'000, '[') + std::string(200'000, ']') + "}";
  CHECK(parse(deep));  // nesting takes no stack
  CHECK_FAILS_WITH(parse(std::string(kMaxJsonBytes + 1, ' ')), ErrorCode::kTooLarge);
}

}  // namespace
}  // namespace isthmus::model
