// Device and server over real sockets, with tiny models: the split changes no token, whatever
// happens to the connection.
#include <isthmus/wire/messages.h>

#include <algorithm>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "support/recording_proxy.h"
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

TEST_CASE("every cut and tail gives the unsplit model's tokens, greedy and sampled",
          "[integration][split]") {
  const auto overrides = GENERATE(
      nlohmann::json::object(),
      nlohmann::json{
          {"architectures", {"Qwen3ForCausalLM"}}, {"model_type", "qwen3"}, {"head_dim", 12}},
      nlohmann::json{{"architectures", {"MistralForCausalLM"}},
                     {"model_type", "mistral"},
                     {"sliding_window", 20}});
  CAPTURE(overrides);
  const TinyFolder model(overrides);
  server::ServerOptions limits;
  limits.max_step_tokens = 50;  // the prompt needs four steps
  const InProcessServer server(model.path(), limits);
  for (const float temperature : {0.0F, 0.9F}) {
    const std::vector<int32_t> whole = converse_locally(model.path(), temperature);
    for (int32_t cut = 0; cut <= 4; ++cut) {
      for (int32_t tail = cut; tail <= 5; ++tail) {
        CAPTURE(temperature, cut, tail);
        edge::Device device =
            load_device(model.path(), cut, tail == 5 ? std::optional<int32_t>() : tail);
        edge::Session session = value_of(device.open_session(session_options(server.address())));
        REQUIRE(converse(session, temperature) == whole);
      }
    }
  }
}

TEST_CASE("coded boundaries give the same tokens however the prompt is cut into steps",
          "[integration][codec]") {
  const TinyFolder model(nlohmann::json::object());
  std::vector<std::vector<int32_t>> replies;
  for (const int32_t step : {50, 7}) {
    server::ServerOptions limits;
    limits.max_step_tokens = step;
    const InProcessServer server(model.path(), limits);
    edge::Device device = load_device(model.path(), 1, 2);
    edge::SessionOptions options = session_options(server.address());
    options.codec = value_of(codec::CodecSpec::parse("split:2|rotate|int6|rans"));
    options.codec_down = value_of(codec::CodecSpec::parse("split:x8|trellis:0.05|rans|pad:64"));
    edge::Session session = value_of(device.open_session(options));
    replies.push_back(converse(session, 0.9F));
  }
  CHECK(replies[0] == replies[1]);
}

TEST_CASE("clients with different cuts at the same time get the tokens each gets alone",
          "[integration][split]") {
  const TinyFolder model;
  const InProcessServer server(model.path());
  const std::vector<int32_t> whole = converse_locally(model.path(), 0.7F);
  std::vector<std::vector<int32_t>> results(6);
  std::vector<std::thread> clients;
  for (size_t i = 0; i < results.size(); ++i) {
    clients.emplace_back([&, i] {
      auto device = edge::Device::load(
          {.model = model.path(), .cut = static_cast<int32_t>(i % 5), .threads = 1});
      if (!device) return;
      auto session = device->open_session(session_options(server.address()));
      if (!session) return;
      for (const std::string& prompt : {kPrompt, std::string("again")}) {
        edge::GenerateOptions options{.max_tokens = 10};
        options.sampling = {.temperature = 0.7F, .repetition_penalty = 1.3F, .seed = 5};
        const auto reply = session->say(prompt, options);
        if (reply)
          results[i].insert(results[i].end(), reply->token_ids.begin(), reply->token_ids.end());
      }
    });
  }
  for (std::thread& client : clients) client.join();
  for (const auto& result : results) CHECK(result == whole);
}

TEST_CASE("a connection that breaks at any byte of an answer changes no token",
          "[integration][lost]") {
  const TinyFolder model;
  const InProcessServer server(model.path());
  const std::vector<int32_t> whole = converse_locally(model.path(), 0);
  edge::Device device = load_device(model.path(), 2);
  for (const size_t bytes : {1, 40, 90, 150, 400, 700}) {
    for (const auto direction :
         {RecordingProxy::Direction::kUp, RecordingProxy::Direction::kDown}) {
      CAPTURE(bytes, static_cast<int>(direction));
      RecordingProxy proxy(server.address().port);
      edge::Session session =
          value_of(device.open_session(session_options(through(proxy, server.address()))));
      proxy.cut_after(direction, bytes);
      REQUIRE(converse(session, 0) == whole);
      CHECK(proxy.connections_accepted() >= 2);
    }
  }
}

TEST_CASE("a silent server is a timeout; the turn is taken back and can be said again",
          "[integration][lost]") {
  const TinyFolder model;
  const InProcessServer server(model.path());
  RecordingProxy proxy(server.address().port);
  edge::Device device = load_device(model.path(), 1, 3);
  edge::SessionOptions options = session_options(through(proxy, server.address()));
  options.request_timeout = std::chrono::milliseconds(300);
  edge::Session session = value_of(device.open_session(options));
  proxy.hold(true);
  CHECK_FAILS_WITH(session.say(kPrompt), ErrorCode::kTimeout);
  proxy.hold(false);
  CHECK(converse(session, 0) == converse_locally(model.path(), 0));
}

TEST_CASE("a server that is gone is a typed error", "[integration][lost]") {
  const TinyFolder model;
  edge::Device device = load_device(model.path(), 1);
  auto server = std::make_unique<InProcessServer>(model.path());
  edge::SessionOptions options = session_options(server->address());
  options.reconnect_timeout = std::chrono::milliseconds(300);
  edge::Session session = value_of(device.open_session(options));
  server.reset();
  CHECK_FAILS_WITH(session.say("hello"), ErrorCode::kServerLost);
  CHECK_FAILS_WITH(device.open_session(options), ErrorCode::kServerLost);
}

TEST_CASE("refusals reach the caller by code", "[integration][errors]") {
  const TinyFolder model;
  server::ServerOptions limits;
  limits.quotas.max_sessions = 1;
  limits.max_tokens = 60;
  const InProcessServer server(model.path(), limits);
  const edge::SessionOptions options = session_options(server.address());

  SECTION("another model") {
    const TinyFolder other(nlohmann::json{{"num_hidden_layers", 3}});
    edge::Device device = load_device(other.path(), 1);
    CHECK_FAILS_WITH(device.open_session(options), ErrorCode::kModelMismatch);
  }
  SECTION("other weights of the same shapes, with both fingerprints") {
    const TinyFolder other;
    other.scale("model.layers.3.mlp.down_proj.weight", 1.001F);
    edge::Device device = load_device(other.path(), 1);
    const auto session = device.open_session(options);
    CHECK_FAILS_WITH(session, ErrorCode::kModelMismatch);
    const std::string& message = session.error().message;
    CHECK(message.find(value_of(device.fingerprint()).to_string()) != std::string::npos);
    CHECK(message.find(server.fingerprint().to_string()) != std::string::npos);
    CHECK(server.fingerprint() != value_of(device.fingerprint()));
  }
  SECTION("no free session") {
    edge::Device device = load_device(model.path(), 1);
    const edge::Session session = value_of(device.open_session(options));
    CHECK_FAILS_WITH(device.open_session(options), ErrorCode::kServerFull);
  }
  SECTION("a prompt longer than the session was granted, then one that fits") {
    edge::Device device = load_device(model.path(), 1);
    edge::Session session = value_of(device.open_session(options));
    CHECK(session.capacity() == 60);
    CHECK_FAILS_WITH(session.say(kPrompt), ErrorCode::kContextFull);
    const edge::Reply reply = value_of(session.say("short", {.max_tokens = 1000}));
    CHECK(reply.finish_reason == edge::FinishReason::kContextFull);
    CHECK(session.length() == 60);
  }
  SECTION("another server's key") {
    edge::SessionOptions wrong = options;
    transport::ServerAddress address = server.address();
    address.public_key = transport::generate_keys().public_key;
    wrong.server = address.to_string();
    edge::Device device = load_device(model.path(), 1);
    CHECK_FAILS_WITH(device.open_session(wrong), ErrorCode::kKeyRefused);
  }
  SECTION("no key where one is needed") {
    edge::SessionOptions plain = options;
    transport::ServerAddress address = server.address();
    address.public_key.clear();
    plain.server = address.to_string();
    edge::Device device = load_device(model.path(), 1);
    CHECK_FAILS_WITH(device.open_session(plain), ErrorCode::kInvalidArgument);
  }
}

/// A server that opens any session and answers every other request as `lie` says; with what is no
/// answer when it says nothing.
class LyingServer {
 public:
  using Lie = std::function<std::optional<wire::Body>(const wire::Body& request)>;

  explicit LyingServer(Lie lie) : lie_(std::move(lie)) {
    transport::ListenerOptions options;
    options.keys = transport::generate_keys();
    options.allow_any_client = true;
    transport::Listener listener = value_of(transport::Listener::bind(options));
    address_ = listener.address();
    thread_ = std::thread([this, bound = std::move(listener)]() mutable {
      while (!stop_) {
        const auto incoming = bound.receive(std::chrono::milliseconds(20));
        if (!incoming || !*incoming) continue;
        const auto request = wire::decode((*incoming)->message.envelope);
        if (!request) continue;
        const std::optional<wire::Body> body = answer(request->body);
        const std::vector<std::byte> garbage(40, std::byte{0xff});
        (void)bound.send((*incoming)->from,
                         {body ? wire::encode({request->request_id, *body}) : garbage, {}});
      }
    });
  }
  ~LyingServer() {
    stop_ = true;
    thread_.join();
  }
  LyingServer(const LyingServer&) = delete;
  LyingServer& operator=(const LyingServer&) = delete;
  [[nodiscard]] const transport::ServerAddress& address() const { return address_; }

 private:
  std::optional<wire::Body> answer(const wire::Body& request) const {
    if (const auto* open = std::get_if<wire::Open>(&request)) {
      return wire::Opened{
          .session = open->session, .max_tokens = open->max_tokens, .max_step_tokens = 64};
    }
    return lie_(request);
  }

  Lie lie_;
  transport::ServerAddress address_;
  std::atomic<bool> stop_ = false;
  std::thread thread_;
};

/// What a server says that has carried out what it was asked.
std::optional<wire::Body> truth(const wire::Body& request) {
  if (const auto* step = std::get_if<wire::Step>(&request)) {
    return wire::StepResult{.session = step->session,
                            .sequence = step->sequence,
                            .length = step->position + step->token_count,
                            .token = 7};
  }
  if (const auto* cut = std::get_if<wire::Truncate>(&request))
    return wire::Truncated{cut->session, cut->sequence, cut->length};
  return wire::Closed{};
}

TEST_CASE("a step that failed for a while is asked for again", "[integration][lost]") {
  // None of these says anything about the step itself.
  const std::optional<wire::Body> trouble =
      GENERATE(std::optional<wire::Body>(), wire::Failure{ErrorCode::kTimeout, "not in time"},
               wire::Failure{ErrorCode::kDraining, "about to stop"});
  const ErrorCode code = trouble ? std::get<wire::Failure>(*trouble).code : ErrorCode::kCorrupt;
  CAPTURE(code);
  std::atomic<int> steps = 0;
  const LyingServer server([&](const wire::Body& request) {
    return std::holds_alternative<wire::Step>(request) && steps++ == 0 ? trouble : truth(request);
  });
  const TinyFolder model;
  edge::Device device = load_device(model.path(), 1);
  edge::SessionOptions options = session_options(server.address());
  options.request_timeout = std::chrono::seconds(5);
  edge::Session session = value_of(device.open_session(options));
  CHECK_FAILS_WITH(session.say("hello"), code);
  CHECK(value_of(session.say("hello", {.max_tokens = 3})).token_ids == std::vector<int32_t>(3, 7));
}

TEST_CASE("a server that opens every session and keeps none is given up in time",
          "[integration][resume]") {
  const LyingServer server([](const wire::Body& request) -> std::optional<wire::Body> {
    if (!std::holds_alternative<wire::Step>(request)) return truth(request);
    return wire::Failure{ErrorCode::kUnknownSession, "forgotten"};
  });
  const TinyFolder model;
  edge::Device device = load_device(model.path(), 1);
  edge::SessionOptions options = session_options(server.address());
  options.resume_timeout = std::chrono::milliseconds(300);
  edge::Session session = value_of(device.open_session(options));
  CHECK_FAILS_WITH(session.say("hello"), ErrorCode::kUnknownSession);
}

TEST_CASE("an answer that is not the request's is refused, whatever is wrong with it",
          "[integration][hostile]") {
  using Change = std::function<wire::Body(wire::StepResult)>;
  const Change change = GENERATE(
      Change([](wire::StepResult r) { return ++r.session, r; }),
      Change([](wire::StepResult r) { return r.sequence += 40, r; }),
      Change([](wire::StepResult r) { return r.length = 0x80000000U, r; }),
      Change([](wire::StepResult r) { return --r.length, r; }),
      Change([](wire::StepResult r) { return r.token = 256, r; }),
      Change([](wire::StepResult r) { return r.token = -1, r; }),
      Change([](wire::StepResult) { return wire::Pong{}; }), Change([](wire::StepResult r) {
        return wire::Truncated{r.session, r.sequence, r.length};
      }));
  const TinyFolder model;
  const LyingServer server([&](const wire::Body& request) -> std::optional<wire::Body> {
    if (!std::holds_alternative<wire::Step>(request))
      return wire::Failure{ErrorCode::kUnknownSession, "closed"};
    return change(std::get<wire::StepResult>(*truth(request)));
  });
  edge::Device device = load_device(model.path(), 1);
  edge::Session session = value_of(device.open_session(session_options(server.address())));
  CHECK_FAILS_WITH(session.say("hello"), ErrorCode::kCorrupt);
  CHECK(session.length() <= 5);  // the prompt, where only the token was a lie
}

TEST_CASE("a session whose answer never came is closed all the same", "[integration][lost]") {
  const TinyFolder model;
  server::ServerOptions limits;
  limits.quotas.max_sessions = 1;
  const InProcessServer server(model.path(), limits);
  RecordingProxy proxy(server.address().port);
  edge::Device device = load_device(model.path(), 1);
  edge::SessionOptions options = session_options(through(proxy, server.address()));
  options.request_timeout = std::chrono::milliseconds(200);
  for (int round = 0; round < 3; ++round) {
    edge::Session session = value_of(device.open_session(options));
    proxy.hold(true);
    CHECK_FAILS_WITH(session.say("hello"), ErrorCode::kTimeout);
    proxy.hold(false);
  }
}

TEST_CASE("a device refuses placements outside the model", "[integration][errors]") {
  const TinyFolder model;
  const auto load = [&](std::optional<int32_t> cut, std::optional<int32_t> tail) {
    return edge::Device::load({.model = model.path(), .cut = cut, .tail = tail});
  };
  CHECK_FAILS_WITH(load(5, {}), ErrorCode::kInvalidArgument);
  CHECK_FAILS_WITH(load(-1, {}), ErrorCode::kInvalidArgument);
  CHECK_FAILS_WITH(load(2, 1), ErrorCode::kInvalidArgument);
  CHECK_FAILS_WITH(load(2, 5), ErrorCode::kInvalidArgument);
  CHECK_FAILS_WITH(load({}, 4), ErrorCode::kInvalidArgument);
  CHECK_FAILS_WITH(edge::Device::load({.model = model.path() / "absent"}), ErrorCode::kNotFound);
}

TEST_CASE("a cancelled reply keeps what was said, a cancelled prompt is taken back",
          "[integration][cancel]") {
  const TinyFolder model;
  const InProcessServer server(model.path());
  edge::Device device = load_device(model.path(), 2);
  edge::Session session = value_of(device.open_session(session_options(server.address())));

  // The prompt is longer than one chunk, so the callback is asked with an empty text first.
  const edge::Reply in_prompt =
      value_of(session.say(kPrompt, {}, [](std::string_view text) { return !text.empty(); }));
  CHECK(in_prompt.finish_reason == edge::FinishReason::kCancelled);
  CHECK(in_prompt.token_ids.empty());

  const std::vector<int32_t> whole = converse_locally(model.path(), 0);
  CHECK(converse(session, 0) == whole);

  const edge::Reply cancelled =
      value_of(session.say("more", {}, [](std::string_view) { return false; }));
  CHECK(cancelled.finish_reason == edge::FinishReason::kCancelled);
  CHECK_FALSE(cancelled.token_ids.empty());
  CHECK(session.say("and more", {.max_tokens = 2}).has_value());
}

TEST_CASE("invalid options are refused before anything happens", "[integration][errors]") {
  const TinyFolder model;
  edge::Device device = load_device(model.path());
  edge::Session session = value_of(device.open_session({}));
  CHECK_FAILS_WITH(session.say("x", {.max_tokens = 0}), ErrorCode::kInvalidArgument);
  CHECK_FAILS_WITH(session.say("x", {.stop = {""}}), ErrorCode::kInvalidArgument);
  CHECK_FAILS_WITH(session.say("x", {.sampling = {.temperature = -1}}),
                   ErrorCode::kInvalidArgument);
  CHECK_FAILS_WITH(session.say(""), ErrorCode::kInvalidArgument);
  CHECK(session.length() == 0);
}

TEST_CASE("a stop text ends a reply and is not part of it", "[integration][stop]") {
  const TinyFolder model;
  edge::Device device = load_device(model.path());
  edge::Session free_session = value_of(device.open_session({}));
  const edge::Reply reply = value_of(free_session.say(kPrompt, {.max_tokens = 30}));
  REQUIRE(reply.text.size() > 8);
  // A piece of the reply that can stand in it only from there on.
  const std::string stop = reply.text.substr(reply.text.size() / 2, 4);
  edge::Session session = value_of(device.open_session({}));
  const edge::Reply stopped = value_of(session.say(kPrompt, {.max_tokens = 30, .stop = {stop}}));
  CHECK(stopped.finish_reason == edge::FinishReason::kStop);
  CHECK(stopped.text == reply.text.substr(0, reply.text.find(stop)));
}

/// What a listener on the wire could find of a conversation.
struct Traffic {
  bool boundary_up = false;    // the first row that the device sent
  bool boundary_down = false;  // the first row that the server sent back
  bool envelope = false;
  bool text = false;  // prompt or reply
};

Traffic capture(const TinyFolder& model, bool encrypted) {
  const InProcessServer server(model.path(), {}, encrypted);
  RecordingProxy proxy(server.address().port);
  // With nothing between cut and tail, what goes up comes down: the embedding's rows, whose bytes
  // are known.
  edge::Device device = load_device(model.path(), 0, 0);
  edge::Session session =
      value_of(device.open_session(session_options(through(proxy, server.address()))));
  const edge::Reply reply = value_of(session.say("secret words", {.max_tokens = 8}));

  const auto file = value_of(model::ModelFile::open(model.path()));
  const model::Tensor& embedding = *value_of(file->find("token_embd.weight"));
  Matrix row(1, embedding.cols());
  value_of(model::read_rows(embedding, 's', row.view()));
  const auto bytes = std::as_bytes(row.row(0));
  const auto in = [&](RecordingProxy::Direction direction) {
    const std::vector<std::byte> all = proxy.recorded(direction);
    return std::search(all.begin(), all.end(), bytes.begin(), bytes.end()) != all.end();
  };
  return {.boundary_up = in(RecordingProxy::Direction::kUp),
          .boundary_down = in(RecordingProxy::Direction::kDown),
          .envelope = proxy.saw("llama"),
          .text = proxy.saw("secret words") || (reply.text.size() > 3 && proxy.saw(reply.text))};
}

TEST_CASE(
    "encrypted traffic shows neither text nor boundary nor envelope; plain traffic shows boundary "
    "and envelope",
    "[integration][privacy]") {
  const TinyFolder model;
  const Traffic plain = capture(model, /*encrypted=*/false);
  CHECK(plain.boundary_up);
  CHECK(plain.boundary_down);
  CHECK(plain.envelope);
  CHECK_FALSE(plain.text);  // text never travels, only what is computed from it
  const Traffic encrypted = capture(model, /*encrypted=*/true);
  CHECK_FALSE(encrypted.boundary_up);
  CHECK_FALSE(encrypted.boundary_down);
  CHECK_FALSE(encrypted.envelope);
  CHECK_FALSE(encrypted.text);
}

}  // namespace
}  // namespace isthmus
