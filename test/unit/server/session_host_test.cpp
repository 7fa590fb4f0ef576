#include <isthmus/engine/sampler.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "host_fixture.h"

namespace isthmus::server {
namespace {

TEST_CASE("a session is granted no more than the server's limits", "[server]") {
  Fixture f;
  wire::Open open = f.open_message();
  open.max_tokens = 1000;
  const auto opened = f.expect<wire::Opened>(f.ask(open));
  CHECK(opened.session != 0);
  CHECK(opened.max_tokens == 16);
  CHECK(opened.max_step_tokens == 4);
  CHECK(opened.device == "cpu");
  CHECK(f.events == std::vector{Event::Kind::kOpened});
}

TEST_CASE("what the server cannot serve is refused by code", "[server]") {
  Fixture f;
  wire::Open open = f.open_message();
  SECTION("another protocol version") {
    open.version = wire::kProtocolVersion + 1;
    CHECK(f.failure(f.ask(open)) == ErrorCode::kVersionMismatch);
  }
  SECTION("another model") {
    open.model.hidden_size += 1;
    CHECK(f.failure(f.ask(open)) == ErrorCode::kModelMismatch);
  }
  SECTION("other weights") {
    const std::string ours = model::Fingerprint{open.model.fingerprint}.to_string();
    open.model.fingerprint[31] ^= std::byte{1};
    const auto refusal = f.expect<wire::Failure>(f.ask(open));
    CHECK(refusal.code == ErrorCode::kModelMismatch);
    CHECK(refusal.message.find(ours) != std::string::npos);
    CHECK(refusal.message.find(model::Fingerprint{open.model.fingerprint}.to_string()) !=
          std::string::npos);
  }
  SECTION("an unknown codec") {
    open.codec_up = "f31";
    CHECK(f.failure(f.ask(open)) == ErrorCode::kUnsupported);
  }
  SECTION("a calibration that is not here") {
    open.codec_up = "klt:0123456789abcdef|trellis:0.4|rans";
    CHECK(f.failure(f.ask(open)) == ErrorCode::kNotFound);
  }
  SECTION("a mechanism by its epsilon") {
    open.codec_up = "clip:max=1|binomial:4:eps=5";
    CHECK(f.failure(f.ask(open)) == ErrorCode::kUnsupported);
  }
  SECTION("tokens from a window that does not reach the head") {
    open.tail -= 1;
    CHECK(f.failure(f.ask(open)) == ErrorCode::kUnsupported);
  }
  CHECK(f.host.session_count() == 0);
}

/// An artefact for the fixture's model and cut: any projection to half the numbers.
std::shared_ptr<const artefact::Artefact> some_artefact(Fixture& f, size_t prompt_rows) {
  const auto width = static_cast<size_t>(f.config().hidden_size);
  const Matrix numbers = f.boundary(0, width);
  Matrix encoder(width / 2, width);
  Matrix decoder(width, width / 2);
  std::copy_n(numbers.data(), encoder.rows() * width, encoder.data());
  std::copy_n(numbers.data() + width, width * decoder.cols(), decoder.data());
  Matrix prompt(prompt_rows, width);
  for (size_t i = 0; i < prompt_rows * width; ++i) prompt.data()[i] = numbers.data()[i] / 2;
  return std::make_shared<const artefact::Artefact>(
      value_of(artefact::Artefact::make({.model = artefact::model_name(f.config()),
                                         .fingerprint = "",
                                         .cut = kCut,
                                         .codec = value_of(codec::CodecSpec::parse("f32")),
                                         .data = "",
                                         .command = ""},
                                        {.encoder = std::move(encoder),
                                         .decoder = std::move(decoder),
                                         .soft_prompt = std::move(prompt)})));
}

/// What a server makes of an artefact's rows, and beside it the same by hand: soft prompt and
/// decoded rows in one pass over the layers behind the cut.
struct SoftPromptRun {
  explicit SoftPromptRun(size_t prompt_rows)
      : artefact(some_artefact(maker, prompt_rows)), f(with(artefact)) {}

  static ServerOptions with(std::shared_ptr<const artefact::Artefact> artefact) {
    ServerOptions options = small_limits();
    options.artefacts = {std::move(artefact)};
    return options;
  }

  [[nodiscard]] codec::BoundaryCodec codec() const {
    return value_of(codec::BoundaryCodec::make(artefact->codec(),
                                               static_cast<size_t>(maker.config().hidden_size),
                                               {.projection = artefact->projection()}));
  }
  [[nodiscard]] wire::Open open_message() {
    wire::Open open = f.open_message();
    open.codec_up = artefact->codec().to_string();
    open.reply_mode = wire::ReplyMode::kToken;
    return open;
  }
  [[nodiscard]] std::vector<std::byte> payload(size_t first, size_t count) {
    return value_of(codec().encode(maker.boundary(first, count).view()));
  }
  /// The likeliest token behind the first `count` tokens.
  [[nodiscard]] int32_t expected(size_t count) {
    const MatrixView<const float> prompt = artefact->soft_prompt();
    Matrix rows(prompt.rows() + count, static_cast<size_t>(maker.config().hidden_size));
    std::ranges::copy(prompt.values(), rows.data());
    value_of(codec().decode_into(payload(0, count), rows.view().middle_rows(prompt.rows(), count)));
    const auto cache = value_of(maker.engine().make_cache({kCut, maker.config().layer_count}, 64));
    const engine::Slice slice{.cache = cache.get(),
                              .hidden = std::as_const(rows).view(),
                              .output = engine::Output::kLogits,
                              .rows = engine::Rows::kLast};
    const Matrix logits = std::move(value_of(maker.engine().forward({&slice, 1})).front());
    return value_of(engine::sample(logits.row(0), {}, {}, static_cast<int32_t>(count)));
  }

  Fixture maker;
  std::shared_ptr<const artefact::Artefact> artefact;
  Fixture f;
};

TEST_CASE("a soft prompt stands in front of a session's tokens", "[server][artefact]") {
  const size_t prompt_rows = GENERATE(0, 1, 5);
  CAPTURE(prompt_rows);
  SoftPromptRun run(prompt_rows);
  Fixture& f = run.f;
  const auto opened = f.expect<wire::Opened>(f.ask(run.open_message()));
  CHECK(opened.max_tokens == 8);  // the soft prompt's rows come on top
  const uint64_t session = opened.session;
  uint64_t sequence = 0;
  const auto ask = [&](uint32_t first, uint32_t count) {
    return f.expect<wire::StepResult>(
        f.ask(step(session, ++sequence, first, count), run.payload(first, count)));
  };
  const auto truncate = [&](uint32_t length) {
    f.expect<wire::Truncated>(
        f.ask(wire::Truncate{.session = session, .sequence = ++sequence, .length = length}));
  };
  wire::StepResult result = ask(0, 3);
  CHECK(result.length == 3);
  CHECK(result.token == run.expected(3));
  CHECK(ask(3, 1).token == run.expected(4));
  CHECK(ask(4, 4).token == run.expected(8));  // the last of the room that was granted
  CHECK(f.failure(f.ask(step(session, sequence + 1, 8, 1), run.payload(8, 1))) ==
        ErrorCode::kContextFull);
  truncate(2);
  CHECK(ask(2, 2).token == run.expected(4));
  truncate(0);
  result = ask(0, 4);
  CHECK(result.length == 4);
  CHECK(result.token == run.expected(4));
}

TEST_CASE("a first step that fails takes its soft prompt back", "[server][artefact]") {
  SoftPromptRun run(3);
  Fixture& f = run.f;
  const uint64_t session = f.expect<wire::Opened>(f.ask(run.open_message())).session;
  auto broken = run.payload(0, 2);
  const float infinity = std::numeric_limits<float>::infinity();
  std::memcpy(broken.data(), &infinity, sizeof infinity);
  CHECK(f.failure(f.ask(step(session, 1, 0, 2), broken)) == ErrorCode::kNotFinite);
  const auto result = f.expect<wire::StepResult>(f.ask(step(session, 1, 0, 2), run.payload(0, 2)));
  CHECK(result.length == 2);
  CHECK(result.token == run.expected(2));
}

TEST_CASE("an artefact that a server cannot use is refused by code", "[server][artefact]") {
  SoftPromptRun run(2);
  wire::Open open = run.open_message();
  SECTION("it is not here") {
    Fixture other;
    wire::Open elsewhere = other.open_message();
    elsewhere.codec_up = open.codec_up;
    CHECK(other.failure(other.ask(elsewhere)) == ErrorCode::kNotFound);
    return;
  }
  SECTION("it is for another cut") {
    open.cut = kCut + 1;
    CHECK(run.f.failure(run.f.ask(open)) == ErrorCode::kModelMismatch);
  }
  SECTION("the device has layers behind the soft prompt") {
    open.tail -= 1;
    open.reply_mode = wire::ReplyMode::kHidden;
    CHECK(run.f.failure(run.f.ask(open)) == ErrorCode::kUnsupported);
  }
  SECTION("a head on the device alone is no trouble") {
    open.reply_mode = wire::ReplyMode::kHidden;
    run.f.expect<wire::Opened>(run.f.ask(open));
    return;
  }
  CHECK(run.f.host.session_count() == 0);
}

TEST_CASE("a server with adapters serves only those who name them", "[server][artefact]") {
  Fixture maker;
  const auto plain = some_artefact(maker, 0);
  artefact::Parts parts = plain->parts();
  const auto width = static_cast<size_t>(maker.config().hidden_size);
  parts.adapters[model::layer_matrix(kCut, "attn_q")] = {Matrix(1, width), Matrix(width, 1)};
  const auto adapted = std::make_shared<const artefact::Artefact>(
      value_of(artefact::Artefact::make(plain->origin(), parts)));
  ServerOptions options = small_limits();
  options.artefacts = {plain, adapted};
  Fixture f(options);
  wire::Open open = f.open_message();
  open.reply_mode = wire::ReplyMode::kHidden;
  SECTION("a session without an artefact") {
    const auto refusal = f.expect<wire::Failure>(f.ask(open));
    CHECK(refusal.code == ErrorCode::kModelMismatch);
    CHECK(refusal.message.find(adapted->codec().to_string()) != std::string::npos);
  }
  SECTION("a session with another one") {
    open.codec_up = plain->codec().to_string();
    CHECK(f.failure(f.ask(open)) == ErrorCode::kModelMismatch);
  }
  SECTION("a tail that has adapted layers") {
    open.codec_up = adapted->codec().to_string();
    open.tail = kCut;
    CHECK(f.failure(f.ask(open)) == ErrorCode::kUnsupported);
  }
  CHECK(f.host.session_count() == 0);
  open.codec_up = adapted->codec().to_string();
  open.tail = kCut + 1;
  f.expect<wire::Opened>(f.ask(open));

  parts.adapters.begin()->second.up.row(0)[0] = 1;
  options.artefacts.push_back(std::make_shared<const artefact::Artefact>(
      value_of(artefact::Artefact::make(plain->origin(), parts))));
  CHECK_FAILS_WITH(options.validate(), ErrorCode::kInvalidArgument);
}

TEST_CASE("a session may name a calibration that the server has", "[server][codec]") {
  Fixture maker;
  const Matrix rows = maker.boundary(0, 40);
  const auto calibration =
      std::make_shared<const codec::Calibration>(value_of(codec::calibrate(rows.view())));
  ServerOptions options = small_limits();
  options.calibrations = {calibration};
  Fixture f(options);
  const codec::CodecSpec spec{.quantizer = codec::Step{.step = 0.3F, .trellis = true},
                              .transform = codec::Klt{calibration->hash()},
                              .rans = true};
  CHECK(codec::find_calibration(spec, options.calibrations) == calibration);
  CHECK(codec::find_calibration({}, options.calibrations) == nullptr);
  const auto codec =
      value_of(codec::BoundaryCodec::make(spec, rows.cols(), {.calibration = calibration}));
  wire::Open open = f.open_message();
  open.codec_up = spec.to_string();
  const uint64_t session = f.expect<wire::Opened>(f.ask(open)).session;
  const auto payload = value_of(codec.encode(rows.view().middle_rows(0, 3)));
  const auto result = f.expect<wire::StepResult>(f.ask(step(session, 1, 0, 3), payload));
  CHECK(result.length == 3);
}

TEST_CASE("a full server says so until a session ends", "[server]") {
  Fixture f;
  const uint64_t first = f.open();
  f.open(kBob);
  CHECK(f.failure(f.ask(f.open_message())) == ErrorCode::kServerFull);
  f.expect<wire::Closed>(f.ask(wire::Close{first}));
  CHECK(f.failure(f.ask(step(first, 1, 0, 1), f.payload(0, 1))) == ErrorCode::kUnknownSession);
  f.open();
}

TEST_CASE("an open can be repeated until the session's first step", "[server]") {
  Fixture f;
  const wire::Open open = f.open_message();
  const auto first = f.expect<wire::Opened>(f.ask(open));
  CHECK(f.expect<wire::Opened>(f.ask(open)) == first);
  CHECK(f.host.session_count() == 1);
  wire::Open other = open;
  other.max_tokens = 7;
  CHECK(f.failure(f.ask(other)) == ErrorCode::kInvalidArgument);
  f.expect<wire::StepResult>(f.ask(step(open.session, 1, 0, 1), f.payload(0, 1)));
  CHECK(f.failure(f.ask(open)) == ErrorCode::kInvalidArgument);
  // The same number drawn by another client is another session.
  f.expect<wire::Opened>(f.ask(open, {}, kBob));
  CHECK(f.host.session_count() == 2);
}

TEST_CASE("the chosen token is the engine's and the sampler's", "[server]") {
  Fixture f;
  const uint64_t session = f.open();
  const Matrix rows = f.boundary(0, 3);
  const auto cache = value_of(f.engine().make_cache({kCut, f.config().layer_count}, 8));
  const engine::Slice slice{.cache = cache.get(),
                            .hidden = rows.view(),
                            .output = engine::Output::kLogits,
                            .rows = engine::Rows::kLast};
  const Matrix logits = std::move(value_of(f.engine().forward({&slice, 1})).front());

  wire::Step request = step(session, 1, 0, 3);
  request.sampling = {.temperature = 0.8F, .top_p = 0.9F, .seed = 11};
  const auto result = f.expect<wire::StepResult>(f.ask(request, f.payload(0, 3)));
  CHECK(result.length == 3);
  CHECK(result.token ==
        value_of(engine::sample(logits.row(0), {.temperature = 0.8F, .top_p = 0.9F, .seed = 11}, {},
                                3)));
}

TEST_CASE("a repeated step gets the stored answer and is not carried out again", "[server]") {
  Fixture f;
  const uint64_t session = f.open();
  const auto first = f.expect<wire::StepResult>(f.ask(step(session, 1, 0, 2), f.payload(0, 2)));
  const auto again = f.expect<wire::StepResult>(f.ask(step(session, 1, 0, 2), f.payload(0, 2)));
  CHECK(first == again);
  CHECK(f.failure(f.ask(step(session, 3, 2, 1), f.payload(2, 1))) == ErrorCode::kOutOfOrder);
  CHECK(f.expect<wire::StepResult>(f.ask(step(session, 2, 2, 1), f.payload(2, 1))).length == 3);
  CHECK(f.failure(f.ask(step(session, 4, 3, 1), f.payload(3, 1))) == ErrorCode::kOutOfOrder);
}

TEST_CASE("a bad step changes nothing", "[server]") {
  Fixture f;
  const uint64_t session = f.open();
  f.expect<wire::StepResult>(f.ask(step(session, 1, 0, 2), f.payload(0, 2)));

  SECTION("wrong position") {
    CHECK(f.failure(f.ask(step(session, 2, 1, 1), f.payload(1, 1))) == ErrorCode::kOutOfOrder);
  }
  SECTION("more rows than a step may carry") {
    CHECK(f.failure(f.ask(step(session, 2, 2, 5), f.payload(2, 5))) == ErrorCode::kTooLarge);
  }
  SECTION("a payload shorter or longer than the codec makes it") {
    std::vector<std::byte> bytes = f.payload(2, 1);
    bytes.pop_back();
    CHECK(f.failure(f.ask(step(session, 2, 2, 1), bytes)) == ErrorCode::kCorrupt);
    CHECK(f.failure(f.ask(step(session, 2, 2, 1), f.payload(2, 2))) == ErrorCode::kCorrupt);
    CHECK(f.failure(f.ask(step(session, 2, 2, 1), {})) == ErrorCode::kCorrupt);
  }
  SECTION("a payload with NaN or infinity") {
    std::vector<std::byte> bytes = f.payload(2, 1);
    const float bad =
        GENERATE(std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity());
    std::memcpy(bytes.data() + 4 * sizeof(float), &bad, sizeof bad);
    CHECK(f.failure(f.ask(step(session, 2, 2, 1), bytes)) == ErrorCode::kNotFinite);
  }
  SECTION("impossible sampling options") {
    wire::Step request = step(session, 2, 2, 1);
    request.sampling.top_p = 7;
    CHECK(f.failure(f.ask(request, f.payload(2, 1))) == ErrorCode::kInvalidArgument);
  }
  SECTION("somebody else's session") {
    CHECK(f.failure(f.ask(step(session, 2, 2, 1), f.payload(2, 1), kBob)) ==
          ErrorCode::kUnknownSession);
    CHECK(f.failure(f.ask(wire::Truncate{session, 2, 0}, {}, kBob)) == ErrorCode::kUnknownSession);
    CHECK(f.failure(f.ask(wire::Close{session}, {}, kBob)) == ErrorCode::kUnknownSession);
  }
  SECTION("truncation to more than there is") {
    CHECK(f.failure(f.ask(wire::Truncate{session, 2, 3})) == ErrorCode::kInvalidArgument);
  }
  // The session goes on as if nothing had been asked.
  Fixture undisturbed;
  const uint64_t other = undisturbed.open();
  undisturbed.expect<wire::StepResult>(
      undisturbed.ask(step(other, 1, 0, 2), undisturbed.payload(0, 2)));
  const auto expected = undisturbed.expect<wire::StepResult>(
      undisturbed.ask(step(other, 2, 2, 1), undisturbed.payload(2, 1)));
  const auto result = f.expect<wire::StepResult>(f.ask(step(session, 2, 2, 1), f.payload(2, 1)));
  CHECK(result.length == expected.length);
  CHECK(result.token == expected.token);
}

TEST_CASE("a session that is full says so and keeps what it has", "[server]") {
  Fixture f;
  const uint64_t session = f.open();
  f.expect<wire::StepResult>(f.ask(step(session, 1, 0, 4), f.payload(0, 4)));
  f.expect<wire::StepResult>(f.ask(step(session, 2, 4, 3), f.payload(4, 3)));
  CHECK(f.failure(f.ask(step(session, 3, 7, 2), f.payload(7, 2))) == ErrorCode::kContextFull);
  CHECK(f.expect<wire::StepResult>(f.ask(step(session, 3, 7, 1), f.payload(7, 1))).length == 8);
}

TEST_CASE("truncating is idempotent, and the same rows give the same token again", "[server]") {
  Fixture f;
  const uint64_t session = f.open();
  f.expect<wire::StepResult>(f.ask(step(session, 1, 0, 3), f.payload(0, 3)));
  const auto before = f.expect<wire::StepResult>(f.ask(step(session, 2, 3, 2), f.payload(3, 2)));
  for (int round = 0; round < 2; ++round) {
    CHECK(f.expect<wire::Truncated>(f.ask(wire::Truncate{session, 3, 3})).length == 3);
  }
  CHECK(f.expect<wire::StepResult>(f.ask(step(session, 4, 3, 2), f.payload(3, 2))).token ==
        before.token);
}

TEST_CASE("with a tail the server returns exactly the rows the tail needs", "[server]") {
  Fixture f;
  wire::Open open = f.open_message();
  open.reply_mode = wire::ReplyMode::kHidden;
  const size_t row_bytes = static_cast<size_t>(f.config().hidden_size) * sizeof(float);
  SECTION("norm and head only: the last row, when it is wanted") {
    const auto session = f.expect<wire::Opened>(f.ask(open)).session;
    wire::Step request = step(session, 1, 0, 3);
    CHECK(f.ask(request, f.payload(0, 3)).payload.size() == row_bytes);
    request = step(session, 2, 3, 1);
    request.wants_reply = false;
    CHECK(f.ask(request, f.payload(3, 1)).payload.empty());
  }
  SECTION("layers: every row, wanted or not") {
    open.tail -= 1;
    const auto session = f.expect<wire::Opened>(f.ask(open)).session;
    wire::Step request = step(session, 1, 0, 3);
    request.wants_reply = false;
    const transport::Message answer = f.ask(request, f.payload(0, 3));
    CHECK(answer.payload.size() == 3 * row_bytes);
    CHECK(f.expect<wire::StepResult>(answer).token == -1);
  }
}

TEST_CASE("an idle session expires, a used one does not", "[server]") {
  Fixture f;
  const uint64_t idle = f.open();
  const uint64_t used = f.open(kBob);
  f.clock.advance(std::chrono::seconds(40));
  f.expect<wire::StepResult>(f.ask(step(used, 1, 0, 1), f.payload(0, 1), kBob));
  f.clock.advance(std::chrono::seconds(40));
  f.host.expire_idle();
  CHECK(f.host.session_count() == 1);
  CHECK(f.failure(f.ask(step(idle, 1, 0, 1), f.payload(0, 1))) == ErrorCode::kUnknownSession);
  CHECK(f.events.back() == Event::Kind::kFailed);
}

TEST_CASE("a ping brings back nothing, its payload, or the profile", "[server]") {
  ServerOptions options = small_limits();
  options.profile = "{}";
  Fixture f(options);
  const std::vector<std::byte> sent = f.payload(0, 2);
  const auto payload_of = [&](wire::PingReply reply) {
    const auto answer = f.ask(wire::Ping{reply}, sent);
    f.expect<wire::Pong>(answer);
    return answer.payload;
  };
  CHECK(payload_of(wire::PingReply::kNothing).empty());
  CHECK(payload_of(wire::PingReply::kEcho) == sent);
  CHECK(payload_of(wire::PingReply::kProfile) ==
        std::vector<std::byte>{std::byte{'{'}, std::byte{'}'}});
}

TEST_CASE("anything that is no request gets a failure", "[server]") {
  Fixture f;
  CHECK(f.failure(f.ask(wire::Pong{})) == ErrorCode::kCorrupt);
  CHECK(f.failure(f.ask(wire::Opened{.session = 1, .max_tokens = 1, .max_step_tokens = 1})) ==
        ErrorCode::kCorrupt);
  f.expect<wire::Pong>(f.ask(wire::Ping{}));

  const std::vector<std::byte> garbage(40, std::byte{0xee});
  f.host.receive({{"ada", std::string(kAda)}, {garbage, garbage}}, f.clock.now());
  const wire::Envelope answer =
      value_of(wire::decode(f.host.take_answers().at(0).message.envelope));
  CHECK(answer.request_id == 0);
  CHECK(std::holds_alternative<wire::Failure>(answer.body));
}

TEST_CASE("server options out of range are named", "[server]") {
  ServerOptions options = small_limits();
  CHECK(options.validate().has_value());
  options.max_step_tokens = 5000;
  CHECK_FAILS_WITH(options.validate(), ErrorCode::kInvalidArgument);
  CHECK(options.validate().error().message.find("max_step_tokens is 5000") != std::string::npos);
  CHECK_THROWS_AS(Fixture(options), std::invalid_argument);
}

}  // namespace
}  // namespace isthmus::server
