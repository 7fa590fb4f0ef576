// A mechanism in a session: what is charged, when, and what does not leave when the budget is
// spent.
#include <limits>
#include <string>

#include "support/temp_folder.h"
#include "tiny_split.h"

namespace isthmus {
namespace {

using test::InProcessServer;
using test::kPrompt;
using test::load_device;
using test::RecordingProxy;
using test::session_options;
using test::through;
using test::TinyFolder;
using test::value_of;

constexpr double kUnlimited = std::numeric_limits<double>::infinity();

/// A ledger of its own, and sessions that charge it.
class Noised {
 public:
  explicit Noised(double conversation_epsilon = kUnlimited, double period_epsilon = kUnlimited)
      : options_{.file = folder_.path() / "ledger"} {
    options_.conversation.epsilon = conversation_epsilon;
    options_.period.epsilon = period_epsilon;
    ledger_ = value_of(privacy::Ledger::open(options_));
  }

  [[nodiscard]] edge::SessionOptions options(const transport::ServerAddress& address) const {
    edge::SessionOptions options = session_options(address);
    options.codec = value_of(codec::CodecSpec::parse("rotate|clip:max=0.5|binomial:4:mu=20|rans"));
    options.codec_clean = {codec::Format::kF32};
    options.ledger = ledger_;
    return options;
  }
  [[nodiscard]] std::string ledger_text() const {
    std::ifstream file(options_.file);
    return {std::istreambuf_iterator<char>(file), {}};
  }

 private:
  test::TempFolder folder_;
  privacy::LedgerOptions options_;
  std::shared_ptr<privacy::Ledger> ledger_;
};

uint64_t told_rows(const edge::Session& session) {
  return value_of(session.privacy()).value().spent.conversation_rows;
}

TEST_CASE("behind layers every row that goes up is charged", "[integration][privacy]") {
  const TinyFolder model;
  const InProcessServer server(model.path());
  const Noised noised;
  edge::Device device = load_device(model.path(), 2, GENERATE(std::optional<int32_t>(), 3));
  edge::Session session = value_of(device.open_session(noised.options(server.address())));
  uint64_t expected = 0;
  for (int turn = 0; turn < 2; ++turn) {
    const edge::Reply reply = value_of(session.say("some words", {.max_tokens = 5}));
    // The last token of a reply goes up with the next turn.
    const uint64_t rows = reply.prompt_token_ids.size() + reply.token_ids.size() - 1;
    CHECK(reply.released_rows == rows);
    expected += rows;
  }
  CHECK(told_rows(session) == expected);
  const edge::PrivacyReport report = *value_of(session.privacy());
  CHECK(report.spent.conversation_epsilon > 0);
  CHECK(report.statement.prompt_rows == expected);
}

TEST_CASE("an account is one model's with one server's, whatever the model's shape",
          "[integration][privacy]") {
  const TinyFolder model;
  const TinyFolder other;  // of the same shape
  other.scale("model.layers.0.mlp.down_proj.weight", 2);
  const InProcessServer server(model.path());
  const InProcessServer other_server(other.path());
  const Noised noised;
  for (const auto& [path, at] :
       {std::pair(model.path(), &server), std::pair(other.path(), &other_server)}) {
    edge::Device device = load_device(path, 1);
    edge::Session session = value_of(device.open_session(noised.options(at->address())));
    value_of(session.say("some words", {.max_tokens = 1}));
    const std::string account =
        value_of(device.fingerprint()).to_string().append(" ").append(at->address().public_key);
    CHECK(noised.ledger_text().find(account) != std::string::npos);
  }
  CHECK(server.fingerprint() != other_server.fingerprint());
}

TEST_CASE("at cut 0 the tokens that the server chose go up clean and free",
          "[integration][privacy]") {
  const TinyFolder model;
  const InProcessServer server(model.path());
  const Noised noised;
  edge::Device device = load_device(model.path(), 0, GENERATE(std::optional<int32_t>(), 3));
  edge::Session session = value_of(device.open_session(noised.options(server.address())));
  edge::GenerateOptions options{.max_tokens = 6};
  options.sampling.repetition_penalty = 1.3F;  // reads the reply's own ids, not the prompt's
  const edge::Reply reply = value_of(session.say("some words", options));
  CHECK(reply.token_ids.size() == 6);
  CHECK(reply.released_rows == reply.prompt_token_ids.size());
  CHECK(told_rows(session) == reply.prompt_token_ids.size());
}

TEST_CASE("a prompt that the budget does not cover is an error, and none of it is sent",
          "[integration][privacy]") {
  const TinyFolder model;
  const InProcessServer server(model.path(), {}, /*encrypted=*/false);
  RecordingProxy proxy(server.address().port);
  edge::Device device = load_device(model.path(), 1);
  // Enough for the short prompt, not for the long one.
  const edge::SessionOptions probe = Noised().options(server.address());
  const auto codec = value_of(codec::BoundaryCodec::make(probe.codec, 48));
  const Noised noised(codec.mechanism()->epsilon(60, 1e-5));
  edge::Session session =
      value_of(device.open_session(noised.options(through(proxy, server.address()))));

  const edge::Reply reply = value_of(session.say("short", {.max_tokens = 3}));
  CHECK(reply.released_rows == 7);
  const size_t sent = proxy.recorded(RecordingProxy::Direction::kUp).size();
  CHECK_FAILS_WITH(session.say(kPrompt), ErrorCode::kBudgetSpent);
  // A ping of the transport may have gone up; a row takes 24 bytes before entropy coding.
  CHECK(proxy.recorded(RecordingProxy::Direction::kUp).size() < sent + 20);
  CHECK(told_rows(session) == 7);
  CHECK(session.say("again", {.max_tokens = 3}).has_value());
}

TEST_CASE("a reply ends with a typed error where the budget does, and keeps what was made",
          "[integration][privacy]") {
  const TinyFolder model;
  const InProcessServer server(model.path());
  edge::Device device = load_device(model.path(), 1);
  const edge::SessionOptions probe = Noised().options(server.address());
  const auto codec = value_of(codec::BoundaryCodec::make(probe.codec, 48));
  const Noised noised(codec.mechanism()->epsilon(9, 1e-5));
  edge::Session session = value_of(device.open_session(noised.options(server.address())));
  CHECK_FAILS_WITH(session.say("short", {.max_tokens = 20}), ErrorCode::kBudgetSpent);
  CHECK(session.unfinished().token_ids.size() == 5);  // 5 rows of the prompt, 4 of the reply
  CHECK(session.unfinished().released_rows == 9);
  CHECK(session.unfinished().steps == 5);
  CHECK(session.unfinished().boundary_bytes_up > 0);
  CHECK(told_rows(session) == 9);
}

TEST_CASE("repeating a step over a broken connection charges nothing", "[integration][privacy]") {
  const TinyFolder model;
  const InProcessServer server(model.path());
  const Noised noised;
  RecordingProxy proxy(server.address().port);
  edge::Device device = load_device(model.path(), 2);
  edge::Session session =
      value_of(device.open_session(noised.options(through(proxy, server.address()))));
  proxy.cut_after(RecordingProxy::Direction::kDown, 300);
  const edge::Reply reply = value_of(session.say("some words", {.max_tokens = 8}));
  CHECK(proxy.connections_accepted() >= 2);
  CHECK(told_rows(session) == reply.prompt_token_ids.size() + 7);
}

TEST_CASE("mechanisms are refused where nothing accounts for them", "[integration][privacy]") {
  const TinyFolder model;
  const InProcessServer server(model.path());
  const Noised noised;
  edge::Device device = load_device(model.path(), 1);
  edge::SessionOptions options = noised.options(server.address());
  SECTION("no ledger") {
    options.ledger = nullptr;
    CHECK_FAILS_WITH(device.open_session(options), ErrorCode::kInvalidArgument);
  }
  SECTION("on the way down") {
    options.codec_down = options.codec;
    CHECK_FAILS_WITH(device.open_session(options), ErrorCode::kUnsupported);
  }
  SECTION("for clean rows") {
    options.codec_clean = options.codec;
    CHECK_FAILS_WITH(device.open_session(options), ErrorCode::kUnsupported);
  }
}

TEST_CASE("what is not drawn is not paid for", "[integration][privacy]") {
  const TinyFolder model;
  server::ServerOptions limits;
  limits.max_step_tokens = 8;
  limits.max_in_flight = 1;
  const InProcessServer first(model.path(), limits);
  const InProcessServer second(model.path(), limits);
  edge::Device device = load_device(model.path(), 1);
  const edge::SessionOptions probe = Noised().options(first.address());
  const auto codec = value_of(codec::BoundaryCodec::make(probe.codec, 48));
  const Noised noised(kUnlimited, codec.mechanism()->epsilon(30, 1e-5));
  SECTION("because another server's budget is spent") {
    edge::Session other = value_of(device.open_session(noised.options(second.address())));
    value_of(other.say("some more words", {.max_tokens = 1}));
    edge::SessionOptions options = noised.options(first.address());
    options.fallback_servers = {second.address().to_string()};
    edge::Session session = value_of(device.open_session(options));
    for (int i = 0; i < 5; ++i) {
      const auto refused = session.say("a prompt of 22 letters", {.max_tokens = 1});
      REQUIRE_FALSE(refused.has_value());
      CHECK(refused.error().code == ErrorCode::kBudgetSpent);
      CHECK(refused.error().message.find(second.address().public_key) != std::string::npos);
    }
    CHECK(told_rows(session) == 0);
    CHECK(session.unfinished().released_rows == 0);
  }
  SECTION("because the prompt is cancelled") {
    edge::Session session = value_of(device.open_session(noised.options(first.address())));
    const edge::Reply reply = value_of(session.say("a prompt of 22 letters", {.max_tokens = 1},
                                                   [](std::string_view) { return false; }));
    CHECK(reply.token_ids.empty());
    CHECK(reply.released_rows == 8);
    CHECK(told_rows(session) == 8);
    CHECK(session.say("a prompt of 22 letters", {.max_tokens = 1}).has_value());
  }
  SECTION("because the server is lost in the middle of it, and while it is away") {
    auto lost = std::make_unique<InProcessServer>(model.path(), limits);
    edge::SessionOptions options = noised.options(lost->address());
    options.reconnect_timeout = std::chrono::milliseconds(100);
    options.resume_timeout = std::chrono::milliseconds(300);
    edge::Session session = value_of(device.open_session(options));
    CHECK_FAILS_WITH(session.say("a prompt of 22 letters", {.max_tokens = 1},
                                 [&](std::string_view) {
                                   lost.reset();
                                   return true;
                                 }),
                     ErrorCode::kServerLost);
    CHECK(session.unfinished().released_rows == 16);  // the second step was drawn, not the third
    CHECK(told_rows(session) == 16);
    for (int i = 0; i < 3; ++i)
      CHECK_FAILS_WITH(session.say("a prompt of 22 letters"), ErrorCode::kServerLost);
    CHECK(told_rows(session) == 16);
  }
}

TEST_CASE("every server of the list is charged for what any of them is told",
          "[integration][privacy]") {
  const TinyFolder model;
  const InProcessServer first(model.path());
  const InProcessServer second(model.path());
  const Noised noised;
  edge::Device device = load_device(model.path(), 1);
  edge::SessionOptions options = noised.options(first.address());
  options.fallback_servers = {second.address().to_string()};
  value_of(value_of(device.open_session(options)).say("hello", {.max_tokens = 1}));
  // The second server's account remembers, though it was told nothing yet.
  const edge::Session other = value_of(device.open_session(noised.options(second.address())));
  CHECK(value_of(other.privacy())->spent.total_epsilon > 0);
  CHECK(told_rows(other) == 0);
}

}  // namespace
}  // namespace isthmus
