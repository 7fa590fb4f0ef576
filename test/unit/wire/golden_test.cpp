// The bytes of protocol version 1, and that messages survive them.
#include <cmath>
#include <limits>
#include <random>
#include <type_traits>

#include "samples.h"
#include "support/catch.h"

namespace isthmus::wire {
namespace {

using test::value_of;

TEST_CASE("every message has the bytes of protocol version 1", "[wire][golden]") {
  const auto all = samples();
  CHECK(all.size() == std::variant_size_v<Body>);
  for (size_t i = 0; i < all.size(); ++i) {
    CAPTURE(all[i].name);
    CHECK(all[i].envelope.body.index() == i);  // so that none is forgotten
    CHECK(encode(all[i].envelope) == from_hex(all[i].hex));
    CHECK(value_of(decode(from_hex(all[i].hex))) == all[i].envelope);
  }
}

TEST_CASE("an all-default request id and session are legal", "[wire][golden]") {
  CHECK(encode({0, Close{}}) == from_hex("2a00"));
  CHECK(value_of(decode(from_hex("2a00"))) == Envelope{0, Close{}});
}

TEST_CASE("a server that says nothing of steps in flight takes one at a time", "[wire][golden]") {
  const auto opened = [](std::string_view hex) {
    return std::get<Opened>(value_of(decode(from_hex(hex))).body).max_in_flight;
  };
  CHECK(opened("3a0410011801") == 1);
  CHECK(opened("3a06100118013000") == 1);
  CHECK(opened("3a06100118013008") == 8);
}

TEST_CASE("default sampling costs nothing and is not mistaken for zeros", "[wire][golden]") {
  const Envelope plain{1, Step{.session = 1, .sequence = 1, .token_count = 1, .sampling = {}}};
  Envelope zeros = plain;
  std::get<Step>(zeros.body).sampling = {0, 0, 0, 0, 0, 0};
  CHECK(encode(plain).size() < encode(zeros).size());
  CHECK(value_of(decode(encode(plain))) == plain);
  CHECK(value_of(decode(encode(zeros))) == zeros);
}

TEST_CASE("fields of a later version are skipped", "[wire][golden]") {
  const auto unknown = from_hex("f8ffff0f01");  // field 33554431, a varint
  for (const Sample& sample : samples()) {
    CAPTURE(sample.name);
    auto bytes = from_hex(sample.hex);
    bytes.insert(bytes.end(), unknown.begin(), unknown.end());
    CHECK(value_of(decode(bytes)) == sample.envelope);
  }
}

TEST_CASE("of an open with another version only the version is read", "[wire][golden]") {
  // version 2, and nothing that version 1 asks for
  CHECK(value_of(decode(from_hex("08011202"
                                 "0802"))) == Envelope{1, Open{.version = 2}});
  CHECK(value_of(decode(encode({1, Open{.version = 9}}))) == Envelope{1, Open{.version = 9}});
}

/// Values from every corner of the documented ranges.
class RandomMessages {
 public:
  explicit RandomMessages(uint32_t seed) : random_(seed) {}

  Envelope next(size_t kind) {
    Envelope envelope{u64(), samples()[kind].envelope.body};
    std::visit([this](auto& body) { fill(body); }, envelope.body);
    return envelope;
  }

 private:
  uint64_t u64() {
    const uint64_t corners[] = {0, 1, 127, 128, 1U << 14U, UINT32_MAX, UINT64_MAX};
    return random_() % 2 == 0 ? corners[random_() % std::size(corners)] : random_();
  }
  uint32_t u32() { return static_cast<uint32_t>(u64()); }
  uint32_t positive() { return std::max(1U, u32()); }
  uint64_t sequence() { return std::max<uint64_t>(1, u64()); }
  uint32_t below(uint32_t most) { return static_cast<uint32_t>(random_() % (uint64_t{most} + 1)); }
  float number() {
    const float corners[] = {0,
                             -0.0F,
                             1,
                             std::numeric_limits<float>::denorm_min(),
                             std::numeric_limits<float>::max(),
                             std::numeric_limits<float>::lowest()};
    return corners[random_() % std::size(corners)];
  }
  std::string text() {
    const std::string pieces[] = {
        "", "x", "\xc3\xa9", "\xf0\x9f\x8f\x9d", "z", std::string(1000, 'y')};
    std::string text;
    for (int i = 0; i < 3; ++i) text += pieces[random_() % std::size(pieces)];
    return text.size() > kMaxTextBytes ? "too long" : text;
  }

  void fill(Open& m) {
    m.model = {text(), positive(), positive(), 1 + below(INT32_MAX - 1)};
    for (std::byte& byte : m.model.fingerprint) byte = static_cast<std::byte>(random_());
    if (m.model.architecture.empty()) m.model.architecture = "llama";
    m.tail = below(m.model.layer_count);
    m.cut = below(m.tail);
    m.codec_up = text();
    m.codec_down = text();
    m.codec_clean = text();
    m.reply_mode = random_() % 2 == 0 ? ReplyMode::kToken : ReplyMode::kHidden;
    m.max_tokens = positive();
    m.session = sequence();
    m.resumes = random_() % 2 == 0;
  }
  void fill(Step& m) {
    m.token_count = positive();
    m = {.session = u64(),
         .sequence = sequence(),
         .position = below(UINT32_MAX - m.token_count),
         .token_count = m.token_count,
         .wants_reply = random_() % 2 == 0,
         .reply_start = u32(),
         .sampling = {number(), static_cast<int32_t>(u32()), number(), number(), number(), u64()},
         .clean = random_() % 2 == 0};
  }
  void fill(Truncate& m) { m = {u64(), sequence(), u32()}; }
  void fill(Close& m) { m = {u64()}; }
  void fill(Ping& m) { m = {static_cast<PingReply>(random_() % 3)}; }
  void fill(Opened& m) { m = {u64(), positive(), positive(), text(), text(), positive()}; }
  void fill(StepResult& m) {
    m = {u64(), sequence(), u32(), static_cast<int32_t>(below(INT32_MAX)) - (random_() % 2 == 0),
         u64(), u64(),      u64()};
  }
  void fill(Truncated& m) { m = {u64(), sequence(), u32()}; }
  void fill(Closed& m) { m = {u64()}; }
  void fill(Pong&) {}
  void fill(Busy& m) { m = {u32()}; }
  void fill(Failure& m) {
    const ErrorCode codes[] = {ErrorCode::kInvalidArgument, ErrorCode::kServerFull,
                               ErrorCode::kDeviceFailed, ErrorCode::kInternal};
    m = {codes[random_() % std::size(codes)], text()};
  }

  std::mt19937_64 random_;
};

TEST_CASE("messages survive encoding and decoding, and stay within the limit", "[wire][property]") {
  RandomMessages messages(20240501);
  for (int round = 0; round < 300; ++round) {
    for (size_t kind = 0; kind < std::variant_size_v<Body>; ++kind) {
      const Envelope envelope = messages.next(kind);
      const auto bytes = encode(envelope);
      CAPTURE(round, samples()[kind].name);
      REQUIRE(bytes.size() <= kMaxEnvelopeBytes);
      REQUIRE(value_of(decode(bytes)) == envelope);
    }
  }
}

TEST_CASE("the longest legal texts fit an envelope", "[wire][property]") {
  const std::string longest(kMaxTextBytes, 'a');
  Envelope envelope = samples()[0].envelope;
  Open& open = std::get<Open>(envelope.body);
  open.model.architecture = open.codec_up = open.codec_down = open.codec_clean = longest;
  CHECK(value_of(decode(encode(envelope))) == envelope);
}

TEST_CASE("text that cannot travel is a mistake of the caller", "[wire][encode]") {
  const std::string bad = GENERATE(std::string(kMaxTextBytes + 1, 'a'), std::string("\xff"),
                                   std::string("cut short \xc3"));
  Open open = std::get<Open>(samples()[0].envelope.body);
  open.codec_up = bad;
  CHECK_THROWS_AS(encode({1, open}), std::invalid_argument);
  CHECK_THROWS_AS(encode({1, Opened{1, 1, 1, bad, ""}}), std::invalid_argument);
  CHECK_THROWS_AS(encode({1, Opened{1, 1, 1, "", bad}}), std::invalid_argument);
}

TEST_CASE("a failure's message is made to fit", "[wire][encode]") {
  const auto sent = [](const std::string& message) {
    const Envelope envelope = value_of(decode(encode({1, Failure{ErrorCode::kIo, message}})));
    return std::get<Failure>(envelope.body).message;
  };
  CHECK(sent("h\xc3\xa9llo") == "h\xc3\xa9llo");
  CHECK(sent("a\xff\xc3") == "a??");
  CHECK(sent(std::string(2000, 'x')) == std::string(kMaxTextBytes, 'x'));
  // 1023 bytes and a character of two: it stays out whole.
  CHECK(sent(std::string(1023, 'x') + "\xc3\xa9") == std::string(1023, 'x'));
  CHECK(sent(std::string(1022, 'x') + "\xc3\xa9z") == std::string(1022, 'x') + "\xc3\xa9");
}

TEST_CASE("a failure code unknown here is an internal error, not a broken message",
          "[wire][decode]") {
  const auto code = [](std::string_view varint) {
    const size_t size = varint.size() / 2;
    auto bytes = from_hex("6a0008");  // failure { code: ... }
    bytes[1] = static_cast<std::byte>(1 + size);
    const auto number = from_hex(varint);
    bytes.insert(bytes.end(), number.begin(), number.end());
    return std::get<Failure>(value_of(decode(bytes)).body).code;
  };
  CHECK(code("f403") == ErrorCode::kTimeout);     // 500
  CHECK(code("01") == ErrorCode::kInternal);      // no such code
  CHECK(code("f48304") == ErrorCode::kInternal);  // 65536 + 500
  CHECK(code("ffffffff0f") == ErrorCode::kInternal);
}

}  // namespace
}  // namespace isthmus::wire
