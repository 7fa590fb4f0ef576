// A server that does not run what it says is found out; one that does is not accused.
#include <string>

#include "tiny_split.h"

namespace isthmus {
namespace {

using test::InProcessServer;
using test::kPrompt;
using test::load_device;
using test::session_options;
using test::TinyFolder;
using test::value_of;

/// A session in which every answer is checked, and `turns` turns of it.
edge::VerifyReport converse_checked(edge::Device& device, edge::SessionOptions options,
                                    int turns = 2, float temperature = 0.8F) {
  edge::Session session = value_of(device.open_session(options));
  for (int turn = 0; turn < turns; ++turn) {
    edge::GenerateOptions generate{.max_tokens = 12};
    generate.sampling = {.temperature = temperature, .repetition_penalty = 1.3F, .seed = 5};
    value_of(session.say(turn == 0 ? kPrompt : "and on", generate));
  }
  return session.verification();
}

edge::SessionOptions checked(const transport::ServerAddress& address,
                             const std::string& against = {}) {
  edge::SessionOptions options = session_options(address);
  options.verify = {.share = 1, .server = against};
  return options;
}

TEST_CASE("an honest server's answers are those of the device and of another server",
          "[integration][verify]") {
  const TinyFolder model;
  const InProcessServer server(model.path());
  const InProcessServer other(model.path());
  const auto tail = GENERATE(std::optional<int32_t>(), 3, 4);
  const bool here = GENERATE(true, false);
  const bool raw = GENERATE(true, false);
  CAPTURE(tail.value_or(-1), here, raw);
  edge::Device device = load_device(model.path(), 1, tail);
  edge::SessionOptions options = checked(server.address(), here ? "" : other.address().to_string());
  options.codec = raw ? codec::CodecSpec{codec::Format::kF32} : edge::default_codec();
  const edge::VerifyReport report = converse_checked(device, options);
  CHECK(report.problem.empty());
  CHECK(report.compared >= 2 * 12);
  CHECK(report.other_tokens == 0);
  CHECK(report.wrong_rows == 0);
  CHECK(report.worst_row_error == 0);  // these engines do not even round differently
  CHECK_FALSE(report.is_suspicious());
}

TEST_CASE("a server that lies about its weights is found out", "[integration][verify]") {
  const TinyFolder model;
  const TinyFolder altered;
  altered.scale("model.layers.2.mlp.down_proj.weight", -3);
  const InProcessServer honest(model.path());
  const InProcessServer liar(altered.path(), {}, /*encrypted=*/true, honest.fingerprint());
  const auto tail = GENERATE(std::optional<int32_t>(), 3);
  const bool here = GENERATE(true, false);
  CAPTURE(tail.value_or(-1), here);
  edge::Device device = load_device(model.path(), 1, tail);
  const edge::VerifyReport report =
      converse_checked(device, checked(liar.address(), here ? "" : honest.address().to_string()));
  CHECK(report.problem.empty());
  CHECK(report.is_suspicious());
  CHECK((tail ? report.wrong_rows : report.other_tokens) > 3);
}

TEST_CASE("what a coarse codec does to rows is not held against an engine that rounds otherwise",
          "[integration][verify]") {
  const TinyFolder model;
  const bool lies = GENERATE(false, true);
  const bool here = GENERATE(true, false);
  const std::string codec = GENERATE("f32", "int4", "int2", "sign", "split:8|trellis:0.5|rans");
  CAPTURE(lies, here, codec);
  const TinyFolder other;
  other.scale("model.layers.2.mlp.down_proj.weight", lies ? -3.0F : 1.03F);  // or another rounding
  const InProcessServer honest(model.path());
  const InProcessServer server(other.path(), {}, /*encrypted=*/true, honest.fingerprint());
  edge::Device device = load_device(model.path(), 1, 3);
  edge::SessionOptions options =
      checked(server.address(), here ? "" : honest.address().to_string());
  options.codec_down = value_of(codec::CodecSpec::parse(codec));
  const edge::VerifyReport report = converse_checked(device, options);
  CHECK(report.problem.empty());
  CHECK(report.is_suspicious() == lies);
}

TEST_CASE("a share of the answers is compared, whatever becomes of the turns",
          "[integration][verify]") {
  const TinyFolder model;
  const InProcessServer server(model.path());
  edge::Device device = load_device(model.path(), 2);
  edge::SessionOptions options = checked(server.address());
  options.verify.share = 0.5;
  edge::Session session = value_of(device.open_session(options));
  uint64_t answers = 0;
  for (int turn = 0; turn < 4; ++turn) {
    // A turn that is taken back half way leaves nothing to compare.
    bool stop = turn == 2;
    const auto reply =
        value_of(session.say("again", {.max_tokens = 12}, [&](std::string_view) { return !stop; }));
    answers += reply.token_ids.size();
  }
  const edge::VerifyReport report = session.verification();
  CHECK(report.problem.empty());
  CHECK(report.compared > 0);  // none of 37 answers: once in 10^11
  CHECK(report.compared < answers);
  CHECK(report.other_tokens == 0);
}

TEST_CASE("noised rows are checked with the bytes that went up, and charged for both servers",
          "[integration][verify][privacy]") {
  const TinyFolder model;
  const test::TempFolder folder;
  const InProcessServer server(model.path());
  const InProcessServer other(model.path());
  edge::Device device = load_device(model.path(), GENERATE(0, 1));
  edge::SessionOptions options = checked(server.address(), other.address().to_string());
  options.codec = value_of(codec::CodecSpec::parse("rotate|clip:max=0.5|binomial:4:mu=20|rans"));
  options.ledger =
      value_of(privacy::Ledger::open(privacy::LedgerOptions{.file = folder.path() / "ledger"}));
  const edge::VerifyReport report = converse_checked(device, options);
  CHECK(report.problem.empty());
  CHECK(report.compared >= 2 * 12);
  CHECK(report.other_tokens == 0);
  std::ifstream file(folder.path() / "ledger");
  const std::string ledger(std::istreambuf_iterator<char>(file), {});
  CHECK(ledger.find(server.address().public_key) != std::string::npos);
  CHECK(ledger.find(other.address().public_key) != std::string::npos);
}

TEST_CASE("who cannot check says so", "[integration][verify]") {
  const TinyFolder model;
  const InProcessServer server(model.path());
  edge::Device device = load_device(model.path(), 1);
  SECTION("a server that grants less") {
    server::ServerOptions limits;
    limits.max_tokens = 100;
    const InProcessServer small(model.path(), limits);
    CHECK_FAILS_WITH(device.open_session(checked(server.address(), small.address().to_string())),
                     ErrorCode::kServerFull);
  }
  SECTION("a server that takes less at once") {
    server::ServerOptions limits;
    limits.max_step_tokens = 100;
    const InProcessServer narrow(model.path(), limits);
    CHECK_FAILS_WITH(device.open_session(checked(server.address(), narrow.address().to_string())),
                     ErrorCode::kServerFull);
  }
  SECTION("the server itself, or one that may take over") {
    const InProcessServer other(model.path());
    edge::SessionOptions options = checked(server.address(), server.address().to_string());
    CHECK_FAILS_WITH(device.open_session(options), ErrorCode::kInvalidArgument);
    options.verify.server = other.address().to_string();
    CHECK(device.open_session(options).has_value());
    options.fallback_servers = {other.address().to_string()};
    CHECK_FAILS_WITH(device.open_session(options), ErrorCode::kInvalidArgument);
  }
  SECTION("answers that are rounded at random") {
    edge::Device with_tail = load_device(model.path(), 1, 3);
    edge::SessionOptions options = checked(server.address());
    options.codec_down = value_of(codec::CodecSpec::parse("sint4"));
    CHECK_FAILS_WITH(with_tail.open_session(options), ErrorCode::kUnsupported);
    CHECK(device.open_session(options).has_value());  // tokens come back: nothing is rounded
  }
  SECTION("a server that goes away") {
    auto other = std::make_unique<InProcessServer>(model.path());
    edge::SessionOptions options = checked(server.address(), other->address().to_string());
    options.reconnect_timeout = std::chrono::milliseconds(100);
    edge::Session session = value_of(device.open_session(options));
    other.reset();
    const edge::Reply reply = value_of(session.say("hello", {.max_tokens = 5}));
    CHECK(reply.token_ids.size() == 5);  // the reply is nobody else's business
    CHECK_FALSE(session.verification().problem.empty());
    CHECK(session.verification().compared == 0);
  }
  SECTION("options that mean nothing") {
    edge::SessionOptions options = session_options(server.address());
    options.verify.share = GENERATE(-0.1, 1.1, std::numeric_limits<double>::quiet_NaN());
    CHECK_FAILS_WITH(device.open_session(options), ErrorCode::kInvalidArgument);
    options.verify.share = 1;
    options.verify.token_tolerance = GENERATE(0.0, 1.0);
    CHECK_FAILS_WITH(device.open_session(options), ErrorCode::kInvalidArgument);
    options.verify = {.share = 1, .row_tolerance = -1};
    CHECK_FAILS_WITH(device.open_session(options), ErrorCode::kInvalidArgument);
  }
}

TEST_CASE("chance is not held against a server, and little excuses much", "[edge][verify]") {
  struct Row {
    uint64_t compared;
    uint64_t other;
    bool suspicious;
  };
  // P(X >= other) for X ~ B(compared, 0.05) against 1e-4, by hand for the small ones.
  const Row rows[] = {{0, 0, false},   {1, 1, false},    {2, 2, false},  {3, 3, false},  // 1.25e-4
                      {4, 4, true},    {5, 4, true},                                     // 3.0e-5
                      {100, 5, false}, {100, 14, false}, {100, 16, true}};
  for (const Row& row : rows) {
    CAPTURE(row.compared, row.other);
    edge::VerifyReport report;
    report.compared = row.compared;
    report.other_tokens = row.other;
    report.token_tolerance = 0.05;
    CHECK(report.is_suspicious() == row.suspicious);
  }
}

}  // namespace
}  // namespace isthmus
