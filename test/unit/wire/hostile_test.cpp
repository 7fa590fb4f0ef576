// Envelopes that a peer got wrong, by accident or on purpose.
#include "samples.h"
#include "support/catch.h"

namespace isthmus::wire {
namespace {

using test::value_of;

/// Writes Protocol Buffers fields, so that each can be written wrong.
class Fields {
 public:
  Fields& varint(uint32_t number, uint64_t value) {
    put_varint(number << 3U);
    put_varint(value);
    return *this;
  }
  Fields& fixed32(uint32_t number, uint32_t value) { return fixed(number, 5, value, 4); }
  Fields& fixed64(uint32_t number, uint64_t value) { return fixed(number, 1, value, 8); }
  Fields& bytes(uint32_t number, const std::string& value) {
    put_varint(number << 3U | 2U);
    put_varint(value.size());
    text_ += value;
    return *this;
  }
  Fields& inner(uint32_t number, const Fields& value) { return bytes(number, value.text_); }

  [[nodiscard]] std::vector<std::byte> envelope() const {
    std::vector<std::byte> bytes;
    for (const char c : text_) bytes.push_back(static_cast<std::byte>(c));
    return bytes;
  }

 private:
  void put_varint(uint64_t value) {
    for (; value >= 0x80; value >>= 7U) text_ += static_cast<char>(value | 0x80U);
    text_ += static_cast<char>(value);
  }
  Fields& fixed(uint32_t number, uint32_t type, uint64_t value, int size) {
    put_varint(number << 3U | type);
    for (int i = 0; i < size; ++i, value >>= 8U) text_ += static_cast<char>(value);
    return *this;
  }
  std::string text_;
};

constexpr uint32_t kNan = 0x7fc00000;
constexpr uint32_t kInfinity = 0x7f800000;
constexpr uint32_t kMinusInfinity = 0xff800000;
constexpr uint32_t kHalf = 0x3f000000;
constexpr uint64_t kTooWide = 1ULL << 32U;  // a varint of which 32 bits are zero

const std::string kLongText(kMaxTextBytes + 1, 'x');
const std::string kNotUtf8 = "ok \xed\xa0\x80";  // a surrogate

// Field numbers below are those of wire.proto. Where a field is written twice, the later one
// counts.

struct Case {
  const char* what;
  std::vector<std::byte> bytes;
};

std::vector<std::byte> envelope(uint32_t number, const Fields& body) {
  return Fields().varint(1, 5).inner(number, body).envelope();
}

Fields open_fields() {
  return Fields()
      .varint(1, kProtocolVersion)
      .inner(2, Fields()
                    .bytes(1, "llama")
                    .varint(2, 30)
                    .varint(3, 576)
                    .varint(4, 49152)
                    .bytes(5, std::string(32, 'f')))
      .varint(3, 4)
      .varint(4, 20)
      .bytes(5, "f16")
      .bytes(6, "f32")
      .varint(7, 1)
      .varint(8, 100)
      .fixed64(9, kSession);
}
/// A repeated message field is merged into the first one, so this changes one field of the model.
Fields open_model(const Fields& change) {
  return open_fields().inner(2, change);
}

Fields step_fields() {
  return Fields()
      .fixed64(1, kSession)
      .varint(2, 1)
      .varint(3, 10)
      .varint(4, 2)
      .inner(7, Fields().fixed32(1, kHalf).fixed32(3, kHalf).fixed32(4, kHalf).fixed32(5, kHalf));
}
Fields step_sampling(uint32_t field, uint32_t bits) {
  return step_fields().inner(7, Fields().fixed32(field, bits));
}

Fields opened_fields() {
  return Fields().fixed64(1, kSession).varint(2, 100).varint(3, 10).bytes(4, "cpu").bytes(5, "x");
}
Fields result_fields() {
  return Fields().fixed64(1, kSession).varint(2, 1).varint(4, 6);
}

constexpr uint32_t kOpen = 2, kStep = 3, kTruncate = 4, kOpened = 7, kStepResult = 8,
                   kTruncated = 9, kFailure = 13;

TEST_CASE("the cases below are valid before they are broken", "[wire][hostile]") {
  CHECK(decode(envelope(kOpen, open_fields())).has_value());
  CHECK(decode(envelope(kStep, step_fields())).has_value());
  CHECK(decode(envelope(kOpened, opened_fields())).has_value());
  CHECK(decode(envelope(kStepResult, result_fields())).has_value());
}

TEST_CASE("a field outside its range is refused", "[wire][hostile]") {
  const auto [what, bytes] = GENERATE(values<Case>({
      {"no body", Fields().varint(1, 5).envelope()},
      {"a body of a later version", envelope(99, Fields())},

      {"open without a version 1 model",
       envelope(kOpen, Fields().varint(1, 1).varint(7, 1).varint(8, 1))},
      {"architecture empty", envelope(kOpen, open_model(Fields().bytes(1, "")))},
      {"architecture long", envelope(kOpen, open_model(Fields().bytes(1, kLongText)))},
      {"architecture not utf-8", envelope(kOpen, open_model(Fields().bytes(1, kNotUtf8)))},
      {"no layers", envelope(kOpen, open_model(Fields().varint(2, 0)))},
      {"layers wrap to none", envelope(kOpen, open_model(Fields().varint(2, kTooWide)))},
      {"fewer layers than the tail", envelope(kOpen, open_model(Fields().varint(2, 19)))},
      {"no hidden size", envelope(kOpen, open_model(Fields().varint(3, 0)))},
      {"no vocabulary", envelope(kOpen, open_model(Fields().varint(4, 0)))},
      {"vocabulary of 2^31", envelope(kOpen, open_model(Fields().varint(4, 1ULL << 31U)))},
      {"no fingerprint", envelope(kOpen, open_model(Fields().bytes(5, "")))},
      {"half a fingerprint", envelope(kOpen, open_model(Fields().bytes(5, std::string(16, 'f'))))},
      {"fingerprint long", envelope(kOpen, open_model(Fields().bytes(5, std::string(33, 'f'))))},
      {"cut past the tail", envelope(kOpen, open_fields().varint(3, 21))},
      {"tail before the cut", envelope(kOpen, open_fields().varint(4, 3))},
      {"tail past the layers", envelope(kOpen, open_fields().varint(4, 31))},
      {"codec_up long", envelope(kOpen, open_fields().bytes(5, kLongText))},
      {"codec_up not utf-8", envelope(kOpen, open_fields().bytes(5, kNotUtf8))},
      {"codec_down long", envelope(kOpen, open_fields().bytes(6, kLongText))},
      {"codec_down not utf-8", envelope(kOpen, open_fields().bytes(6, kNotUtf8))},
      {"codec_clean long", envelope(kOpen, open_fields().bytes(10, kLongText))},
      {"codec_clean not utf-8", envelope(kOpen, open_fields().bytes(10, kNotUtf8))},
      {"reply mode unspecified", envelope(kOpen, open_fields().varint(7, 0))},
      {"reply mode unknown", envelope(kOpen, open_fields().varint(7, 3))},
      {"reply mode negative", envelope(kOpen, open_fields().varint(7, UINT64_MAX))},
      {"no tokens", envelope(kOpen, open_fields().varint(8, 0))},
      {"no session", envelope(kOpen, open_fields().fixed64(9, 0))},
      {"codec_up with a line break", envelope(kOpen, open_fields().bytes(5, "f16\nforged"))},
      {"codec_up with an escape", envelope(kOpen, open_fields().bytes(5, "\x1b[31m"))},

      {"step sequence 0", envelope(kStep, step_fields().varint(2, 0))},
      {"step without tokens", envelope(kStep, step_fields().varint(4, 0))},
      {"positions overflow", envelope(kStep, step_fields().varint(3, UINT32_MAX - 1))},
      {"tokens overflow", envelope(kStep, step_fields().varint(4, UINT32_MAX))},
      {"empty step", envelope(kStep, Fields())},

      {"truncate sequence 0", envelope(kTruncate, Fields().fixed64(1, 1))},
      {"opened no tokens", envelope(kOpened, opened_fields().varint(2, 0))},
      {"opened no step tokens", envelope(kOpened, opened_fields().varint(3, 0))},
      {"device long", envelope(kOpened, opened_fields().bytes(4, kLongText))},
      {"device not utf-8", envelope(kOpened, opened_fields().bytes(4, kNotUtf8))},
      {"precision long", envelope(kOpened, opened_fields().bytes(5, kLongText))},
      {"precision not utf-8", envelope(kOpened, opened_fields().bytes(5, kNotUtf8))},
      {"result sequence 0", envelope(kStepResult, result_fields().varint(2, 0))},
      {"token -2", envelope(kStepResult, result_fields().varint(4, 3))},
      {"token -2^31", envelope(kStepResult, result_fields().varint(4, UINT32_MAX))},
      {"truncated sequence 0", envelope(kTruncated, Fields().fixed64(1, 1))},
      {"failure without a code", envelope(kFailure, Fields().bytes(2, "why"))},
      {"failure message long", envelope(kFailure, Fields().varint(1, 400).bytes(2, kLongText))},
      {"failure message not utf-8", envelope(kFailure, Fields().varint(1, 400).bytes(2, kNotUtf8))},
  }));
  CAPTURE(what);
  CHECK_FAILS_WITH(decode(bytes), ErrorCode::kCorrupt);
}

TEST_CASE("a sampling option that is not finite is refused", "[wire][hostile]") {
  const auto field = GENERATE(1U, 3U, 4U, 5U);
  const auto bits = GENERATE(as<uint32_t>(), kNan, kInfinity, kMinusInfinity);
  CAPTURE(field, bits);
  CHECK_FAILS_WITH(decode(envelope(kStep, step_sampling(field, bits))), ErrorCode::kNotFinite);
}

TEST_CASE("an envelope above the size limit is refused unparsed", "[wire][hostile]") {
  // Valid but for its length: an unknown field fills it up.
  const auto filled = [](size_t size) {
    Fields fields = Fields().inner(6, Fields());  // ping
    return fields.bytes(99, std::string(size - 6, 'x')).envelope();
  };
  CHECK(filled(kMaxEnvelopeBytes).size() == kMaxEnvelopeBytes);
  CHECK(decode(filled(kMaxEnvelopeBytes)).has_value());
  CHECK_FAILS_WITH(decode(filled(kMaxEnvelopeBytes + 1)), ErrorCode::kTooLarge);
  CHECK_FAILS_WITH(decode(std::vector<std::byte>(100'000'000)), ErrorCode::kTooLarge);
}

/// Decodes a copy of exactly this length, so that AddressSanitizer sees a read behind the end.
Result<Envelope> decode_exactly(std::vector<std::byte> bytes) {
  bytes.shrink_to_fit();
  return decode(bytes);
}

TEST_CASE("a message cut short at any byte is refused, or is another valid message",
          "[wire][hostile]") {
  for (const Sample& sample : samples()) {
    const auto whole = from_hex(sample.hex);
    for (size_t length = 0; length < whole.size(); ++length) {
      CAPTURE(sample.name, length);
      const auto result =
          decode_exactly({whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(length)});
      // The body is the last field and has a length, so nothing shorter can be whole.
      REQUIRE_FALSE(result.has_value());
      CHECK(result.error().code == ErrorCode::kCorrupt);
    }
  }
}

TEST_CASE("a message with any byte changed is refused or has every field in range",
          "[wire][hostile]") {
  size_t accepted = 0;
  for (const Sample& sample : samples()) {
    auto bytes = from_hex(sample.hex);
    for (size_t at = 0; at < bytes.size(); ++at) {
      const std::byte before = bytes[at];
      for (int value = 0; value < 256; ++value) {
        bytes[at] = static_cast<std::byte>(value);
        const auto result = decode_exactly(bytes);
        if (!result) continue;
        ++accepted;
        // What is accepted can be said again, so all of it is in range.
        REQUIRE(value_of(decode(encode(*result))) == *result);
      }
      bytes[at] = before;
    }
  }
  CHECK(accepted > samples().size());
}

TEST_CASE("nested and endless structures are refused", "[wire][hostile]") {
  // Groups opened and never closed, 2,000 deep.
  CHECK_FAILS_WITH(decode(std::vector<std::byte>(2000, std::byte{0x0b})), ErrorCode::kCorrupt);
  // A length that promises 2^63 bytes.
  CHECK_FAILS_WITH(decode(from_hex("12ffffffffffffffff7f")), ErrorCode::kCorrupt);
  // A varint that never ends.
  CHECK_FAILS_WITH(decode(std::vector<std::byte>(100, std::byte{0xff})), ErrorCode::kCorrupt);
  CHECK_FAILS_WITH(decode({}), ErrorCode::kCorrupt);
}

}  // namespace
}  // namespace isthmus::wire
