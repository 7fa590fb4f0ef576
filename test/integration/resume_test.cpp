// A server that goes away in the middle of a reply: another one finishes it, token for token.
#include <functional>
#include <optional>
#include <string>
#include <utility>

#include "tiny_split.h"

namespace isthmus {
namespace {

using test::converse;
using test::converse_locally;
using test::InProcessServer;
using test::kPrompt;
using test::load_device;
using test::RecordingProxy;
using test::session_options;
using test::through;
using test::TinyFolder;
using test::value_of;

edge::SessionOptions resuming(const transport::ServerAddress& first,
                              const std::vector<transport::ServerAddress>& others = {}) {
  edge::SessionOptions options = session_options(first);
  for (const transport::ServerAddress& address : others)
    options.fallback_servers.push_back(address.to_string());
  options.reconnect_timeout = std::chrono::milliseconds(100);
  options.resume_timeout = std::chrono::seconds(20);
  return options;
}

edge::GenerateOptions sampled(int32_t max_tokens) {
  edge::GenerateOptions options{.max_tokens = max_tokens};
  options.sampling = {.temperature = 0.8F, .repetition_penalty = 1.3F, .seed = 5};
  return options;
}

/// Listens to replies, and disturbs at the `n`-th piece of text.
edge::OnText at_piece(int n, std::function<void()> disturb) {
  return [n, disturb = std::move(disturb), pieces = 0](std::string_view) mutable {
    if (++pieces == n) disturb();
    return true;
  };
}

/// Does it when whoever waits for a connection has waited long enough.
std::thread later(std::function<void()> mend) {
  return std::thread([mend = std::move(mend)] {
    std::this_thread::sleep_for(std::chrono::milliseconds(1500));
    mend();
  });
}

TEST_CASE("a reply goes on with the same tokens on another server", "[integration][resume]") {
  const TinyFolder model;
  const std::optional<int32_t> tail = GENERATE(std::optional<int32_t>(), 3);
  edge::Device device = load_device(model.path(), 1, tail);
  const InProcessServer second(model.path());

  const auto two_turns = [&](edge::Session& session, const edge::OnText& on_text) {
    std::vector<int32_t> ids;
    for (const std::string& prompt : {kPrompt, std::string("and on")}) {
      const edge::Reply reply = value_of(session.say(prompt, sampled(12), on_text));
      ids.insert(ids.end(), reply.token_ids.begin(), reply.token_ids.end());
    }
    return ids;
  };
  edge::Session undisturbed = value_of(device.open_session(session_options(second.address())));
  const std::vector<int32_t> expected = two_turns(undisturbed, {});

  for (const int lost_after : {0, 1, 7, 13, 20}) {
    CAPTURE(lost_after);
    auto first = std::make_unique<InProcessServer>(model.path());
    edge::Session session =
        value_of(device.open_session(resuming(first->address(), {second.address()})));
    const auto ids = two_turns(session, at_piece(lost_after + 1, [&] { first.reset(); }));
    CHECK(ids == expected);
  }
}

TEST_CASE("servers that hang, or stay full, do not keep the session from one that is well",
          "[integration][resume]") {
  const TinyFolder model;
  edge::Device device = load_device(model.path(), 1);
  auto first = std::make_unique<InProcessServer>(model.path());
  const InProcessServer healthy(model.path());
  server::ServerOptions limits;
  limits.quotas.max_sessions = 1;
  limits.wait_when_full = true;
  InProcessServer other(model.path(), limits);
  edge::SessionOptions options = resuming(first->address(), {other.address(), healthy.address()});
  options.resume_timeout = std::chrono::seconds(3);
  std::optional<edge::Session> occupant;
  std::function<void()> disturb;
  SECTION("the server itself hangs") {
    options.request_timeout = std::chrono::seconds(4);  // what it takes to notice
    options.fallback_servers.erase(options.fallback_servers.begin());
    disturb = [&] { first->hang(); };
  }
  SECTION("another one hangs at once") {
    other.hang();
    disturb = [&] { first.reset(); };
  }
  SECTION("another one hangs in the middle of the replay") {
    other.hang(2);
    disturb = [&] { first.reset(); };
  }
  SECTION("another one tells it to come back, over and over") {
    occupant = value_of(device.open_session(session_options(other.address())));
    disturb = [&] { first.reset(); };
  }
  edge::Session session = value_of(device.open_session(options));
  const edge::Reply reply = value_of(session.say("some words", sampled(12), at_piece(5, disturb)));
  CHECK(reply.resumes == 1);
  CHECK(healthy.resumed() == 1);
}

TEST_CASE("a session that could not be resumed is resumed when a server is well again",
          "[integration][resume]") {
  const TinyFolder model;
  const std::vector<int32_t> whole = converse_locally(model.path(), 0.7F);
  edge::Device device = load_device(model.path(), 1);
  auto first = std::make_unique<InProcessServer>(model.path());
  InProcessServer second(model.path());
  edge::SessionOptions options = resuming(first->address(), {second.address()});
  options.resume_timeout = std::chrono::milliseconds(600);
  edge::Session session = value_of(device.open_session(options));
  second.hang(3);  // half of it replayed
  CHECK_FAILS_WITH(session.say("some words", sampled(12), at_piece(6, [&] { first.reset(); })),
                   ErrorCode::kServerLost);
  CHECK(second.resumed() == 1);
  second.go_on();
  CHECK(converse(session, 0.7F) == whole);
}

TEST_CASE("a turn that nobody could finish is not what the next server has to repeat",
          "[integration][resume]") {
  const TinyFolder model;
  const TinyFolder other(nlohmann::json{{"rms_norm_eps", 0.5}});  // chooses other tokens
  edge::Device device = load_device(model.path(), 1);
  auto first = std::make_unique<InProcessServer>(model.path());
  const InProcessServer second(other.path(), {}, /*encrypted=*/true, first->fingerprint());
  edge::SessionOptions options = resuming(first->address(), {second.address()});
  options.resume_timeout = std::chrono::milliseconds(600);
  edge::Session session = value_of(device.open_session(options));
  CHECK_FAILS_WITH(session.say("some words", sampled(40), at_piece(8, [&] { first.reset(); })),
                   ErrorCode::kServerLost);
  CHECK(value_of(session.say("some words", sampled(12))).resumes == 1);
}

TEST_CASE("a connection that is back leaves a slow server the time that it was given",
          "[integration][resume]") {
  const TinyFolder model;
  InProcessServer server(model.path());
  RecordingProxy proxy(server.address().port);
  edge::Device device = load_device(model.path(), 1);
  edge::SessionOptions options = session_options(through(proxy, server.address()));
  options.reconnect_timeout = std::chrono::milliseconds(400);
  edge::Session session = value_of(device.open_session(options));
  std::thread helper;
  auto reply = session.say("some words", sampled(12), at_piece(4, [&] {
                             server.hang();
                             proxy.cut();
                             helper = later([&] { server.go_on(); });
                           }));
  helper.join();
  CHECK(value_of(std::move(reply)).token_ids.size() == 12);
  CHECK(proxy.connections_accepted() >= 2);
}

TEST_CASE("a session that a broken connection left behind does not stand in its successor's way",
          "[integration][resume]") {
  const TinyFolder model;
  server::ServerOptions limits;
  limits.quotas.max_sessions = 1;
  const InProcessServer server(model.path(), limits);
  RecordingProxy proxy(server.address().port);
  edge::Device device = load_device(model.path(), 1);
  edge::SessionOptions options = resuming(through(proxy, server.address()));
  options.connect_timeout = std::chrono::milliseconds(300);
  edge::Session session = value_of(device.open_session(options));
  std::thread helper;
  auto reply = session.say("some words", sampled(12), at_piece(4, [&] {
                             proxy.hold(true);
                             proxy.cut();
                             helper = later([&] { proxy.hold(false); });
                           }));
  helper.join();
  CHECK(value_of(std::move(reply)).resumes == 1);
}

TEST_CASE("how much a server takes at once matters only where it is less than what is sent",
          "[integration][resume]") {
  const TinyFolder model;
  edge::Device device = load_device(model.path(), 1);
  const auto taking = [&](uint32_t rows) {
    server::ServerOptions limits;
    limits.max_step_tokens = static_cast<int32_t>(rows);
    return std::make_unique<InProcessServer>(model.path(), limits);
  };
  const auto [first_takes, second_takes, third_takes, resumes] =
      GENERATE(table<uint32_t, uint32_t, uint32_t, uint64_t>(
          {{256, 128, 256, 2}, {64, 256, 64, 2}, {128, 64, 256, 1}}));
  CAPTURE(first_takes, second_takes, third_takes);
  auto first = taking(first_takes);
  auto second = taking(second_takes);
  const auto third = taking(third_takes);
  edge::Session session = value_of(
      device.open_session(resuming(first->address(), {second->address(), third->address()})));
  const edge::OnText lose_first = at_piece(5, [&] { first.reset(); });
  const edge::OnText lose_second = at_piece(8, [&] { second.reset(); });
  const edge::Reply reply = value_of(session.say(kPrompt, sampled(12), [&](std::string_view text) {
    return lose_first(text) && lose_second(text);
  }));
  CHECK(reply.resumes == resumes);
}

TEST_CASE("a tunnel that has lost its server is left for another one", "[integration][resume]") {
  const TinyFolder model;
  edge::Device device = load_device(model.path(), 1);
  auto first = std::make_unique<InProcessServer>(model.path());
  const InProcessServer second(model.path());
  const RecordingProxy tunnel(first->address().port);
  edge::SessionOptions options = resuming(through(tunnel, first->address()), {second.address()});
  options.reconnect_timeout = std::chrono::seconds(20);
  edge::Session session = value_of(device.open_session(options));
  const edge::Reply reply =
      value_of(session.say("some words", sampled(12), at_piece(5, [&] { first.reset(); })));
  CHECK(reply.resumes == 1);
}

TEST_CASE("a server that has forgotten the session gets it told again", "[integration][resume]") {
  const TinyFolder model;
  server::ServerOptions limits;
  limits.idle_timeout = std::chrono::seconds(1);
  const InProcessServer server(model.path(), limits);
  edge::Device device = load_device(model.path(), 2);
  edge::Session session = value_of(device.open_session(resuming(server.address())));
  CHECK(value_of(session.say("one", sampled(4))).resumes == 0);
  CHECK(server.resumed() == 0);
  std::this_thread::sleep_for(std::chrono::milliseconds(1500));
  CHECK(value_of(session.say("two", sampled(4))).resumes == 1);
  CHECK(server.resumed() == 1);
}

TEST_CASE("a step that was cut off half way is not lost with its server", "[integration][resume]") {
  const TinyFolder model;
  const std::vector<int32_t> whole = converse_locally(model.path(), 0.7F);
  const InProcessServer first(model.path());
  const InProcessServer second(model.path());
  edge::Device device = load_device(model.path(), 2);
  for (const size_t bytes : {1, 200, 1000, 5000, 20000}) {
    CAPTURE(bytes);
    auto proxy = std::make_unique<RecordingProxy>(first.address().port);
    edge::Session session = value_of(
        device.open_session(resuming(through(*proxy, first.address()), {second.address()})));
    std::thread saboteur([&] {
      proxy->cut_after(RecordingProxy::Direction::kUp, bytes);
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
      proxy.reset();  // and nobody listens there any more
    });
    CHECK(converse(session, 0.7F) == whole);
    saboteur.join();
  }
}

TEST_CASE("what replays is what was sent: noised rows are neither drawn nor charged again",
          "[integration][resume][privacy]") {
  const TinyFolder model;
  const test::TempFolder folder;
  const privacy::LedgerOptions ledger{.file = folder.path() / "ledger"};
  auto first = std::make_unique<InProcessServer>(model.path());
  const InProcessServer second(model.path());
  edge::Device device = load_device(model.path(), 1);
  edge::SessionOptions options = resuming(first->address(), {second.address()});
  options.codec = value_of(codec::CodecSpec::parse("rotate|clip:max=0.5|binomial:4:mu=20|rans"));
  options.ledger = value_of(privacy::Ledger::open(ledger));
  edge::Session session = value_of(device.open_session(options));
  // The second server must choose the very tokens that the first one chose, or resuming fails: so
  // it got the very same rows.
  const edge::Reply reply =
      value_of(session.say("some words", sampled(12), at_piece(6, [&] { first.reset(); })));
  CHECK(reply.resumes == 1);
  CHECK(reply.released_rows == reply.prompt_token_ids.size() + reply.token_ids.size() - 1);
  CHECK(value_of(session.privacy())->spent.conversation_rows == reply.released_rows);
}

TEST_CASE("a session that cannot be resumed says why and keeps what was made",
          "[integration][resume]") {
  const TinyFolder model;
  edge::Device device = load_device(model.path(), 1);
  auto server = std::make_unique<InProcessServer>(model.path());
  edge::SessionOptions options = resuming(server->address());
  SECTION("nobody takes over in time") {
    options.resume_timeout = std::chrono::milliseconds(300);
    options.connect_timeout = std::chrono::milliseconds(200);
  }
  SECTION("its rows were more than it may keep") {
    options.history_bytes = 1000;
  }
  edge::Session session = value_of(device.open_session(options));
  CHECK_FAILS_WITH(session.say("some words", sampled(12), at_piece(5, [&] { server.reset(); })),
                   ErrorCode::kServerLost);
  CHECK(session.unfinished().token_ids.size() >= 5);
}

TEST_CASE("a session keeps its size on a server that would grant more", "[integration][resume]") {
  const TinyFolder model;
  edge::Device device = load_device(model.path(), 1);
  server::ServerOptions limits;
  limits.max_tokens = 60;
  auto small = std::make_unique<InProcessServer>(model.path(), limits);
  const InProcessServer large(model.path());
  edge::Session session =
      value_of(device.open_session(resuming(small->address(), {large.address()})));
  const edge::Reply reply =
      value_of(session.say("some words", sampled(1000), at_piece(5, [&] { small.reset(); })));
  CHECK(reply.resumes == 1);
  CHECK(reply.finish_reason == edge::FinishReason::kContextFull);
  CHECK(session.length() == 60);
  CHECK(session.capacity() == 60);
}

TEST_CASE("a server that chooses other tokens does not take over", "[integration][resume]") {
  const TinyFolder model;
  const TinyFolder other(nlohmann::json{{"rms_norm_eps", 0.5}});  // the same shape
  edge::Device device = load_device(model.path(), 1);
  auto first = std::make_unique<InProcessServer>(model.path());
  const InProcessServer wrong(other.path());
  edge::SessionOptions options = resuming(first->address(), {wrong.address()});
  options.resume_timeout = std::chrono::milliseconds(500);
  options.connect_timeout = std::chrono::milliseconds(200);
  edge::Session session = value_of(device.open_session(options));
  const auto reply = session.say("some words", sampled(40), at_piece(8, [&] { first.reset(); }));
  REQUIRE_FALSE(reply.has_value());
  CHECK(reply.error().code == ErrorCode::kServerLost);
  CHECK(reply.error().message.find("no other session could take over") != std::string::npos);
}

TEST_CASE("a server that grants less than the session has does not take it over",
          "[integration][resume]") {
  const TinyFolder model;
  edge::Device device = load_device(model.path(), 1);
  auto first = std::make_unique<InProcessServer>(model.path());
  server::ServerOptions limits;
  limits.max_tokens = 60;
  const InProcessServer small(model.path(), limits);
  edge::SessionOptions options = resuming(first->address(), {small.address()});
  options.resume_timeout = std::chrono::milliseconds(500);
  options.connect_timeout = std::chrono::milliseconds(200);
  edge::Session session = value_of(device.open_session(options));
  first.reset();
  CHECK_FAILS_WITH(session.say("some words"), ErrorCode::kServerLost);
}

}  // namespace
}  // namespace isthmus
