// Many sessions, and many steps of one, computed together.
#include <algorithm>
#include <cstring>
#include <limits>
#include <numeric>
#include <utility>
#include <vector>

#include "host_fixture.h"
#include "scarce_memory.h"

namespace isthmus::server {
namespace {

ServerOptions roomy() {
  ServerOptions options;
  options.batch.token_budget = 16;
  options.max_tokens = 64;
  options.max_step_tokens = 32;
  options.max_in_flight = 4;
  return options;
}

/// The answers by request id.
std::map<uint64_t, transport::Message> by_request(std::vector<Answer> answers) {
  std::map<uint64_t, transport::Message> found;
  for (Answer& answer : answers) {
    const uint64_t id = value_of(wire::decode(answer.message.envelope)).request_id;
    CHECK(found.emplace(id, std::move(answer.message)).second);
  }
  return found;
}

template <typename Reply>
Reply read(const transport::Message& message) {
  const wire::Envelope envelope = value_of(wire::decode(message.envelope));
  if (const auto* failed = std::get_if<wire::Failure>(&envelope.body))
    UNSCOPED_INFO(failed->message);
  REQUIRE(std::holds_alternative<Reply>(envelope.body));
  return std::get<Reply>(envelope.body);
}

ErrorCode failure_in(const transport::Message& message) {
  return read<wire::Failure>(message).code;
}

/// One client of the test below: a window, a way of answering, and the lengths of its steps.
struct Client {
  uint32_t cut;
  uint32_t tail;
  wire::ReplyMode mode;
  std::vector<uint32_t> steps;
};

std::vector<Client> six_clients(uint32_t layers) {
  using Mode = wire::ReplyMode;
  return {{0, layers, Mode::kToken, {20, 1, 1, 1, 1}}, {1, layers, Mode::kToken, {1, 1, 1, 1, 1}},
          {2, layers, Mode::kToken, {3, 18, 1, 2}},    {1, layers - 1, Mode::kHidden, {25, 1, 1}},
          {0, 1, Mode::kHidden, {2, 30, 4}},           {layers, layers, Mode::kToken, {7, 7, 7}}};
}

using Outcome = std::pair<std::vector<int32_t>, std::vector<std::vector<std::byte>>>;

/// What the chosen clients get when they all run at the same time, by client.
std::map<size_t, Outcome> converse(const std::vector<size_t>& chosen) {
  Fixture f(roomy());
  const auto layers = static_cast<uint32_t>(f.config().layer_count);
  const std::vector<Client> clients = six_clients(layers);
  struct Seat {
    uint64_t session;
    size_t next = 0;
    uint32_t position = 0;
  };
  std::map<size_t, Seat> seats;
  std::map<size_t, Outcome> outcomes;
  for (const size_t i : chosen) {
    wire::Open open = f.open_message();
    open.cut = clients[i].cut;
    open.tail = clients[i].tail;
    open.reply_mode = clients[i].mode;
    open.max_tokens = 64;
    seats[i] = {f.expect<wire::Opened>(f.ask(open)).session};
  }
  std::map<uint64_t, size_t> asked;
  const auto ask_next = [&](size_t i) {
    Seat& seat = seats[i];
    if (seat.next == clients[i].steps.size()) return;
    const uint32_t count = clients[i].steps[seat.next++];
    wire::Step request = step(seat.session, seat.next, seat.position, count);
    request.sampling = {.temperature = 0.9F, .repetition_penalty = 1.2F, .seed = i};
    request.reply_start = clients[i].steps.front();
    // Any finite rows will do; those of layer 1 have the right scale for all.
    asked[f.tell(request, f.payload(seat.position, count))] = i;
    seat.position += count;
  };
  for (const size_t i : chosen) ask_next(i);
  while (f.host.run_batch()) {
    for (const auto& [id, message] : by_request(f.host.take_answers())) {
      const size_t i = asked.at(id);
      outcomes[i].first.push_back(read<wire::StepResult>(message).token);
      outcomes[i].second.push_back(message.payload);
      ask_next(i);
    }
  }
  return outcomes;
}

TEST_CASE("six clients with six windows at once get what each gets alone", "[server][batch]") {
  const std::map<size_t, Outcome> together = converse({0, 1, 2, 3, 4, 5});
  REQUIRE(together.size() == 6);
  for (size_t i = 0; i < 6; ++i) {
    CAPTURE(i);
    CHECK(together.at(i) == converse({i}).at(i));
  }
}

TEST_CASE("a pass carries the tokens of all who decode and a piece of a prompt",
          "[server][batch]") {
  Fixture f(roomy());
  const uint64_t first = f.open();
  const uint64_t second = f.open(kBob);
  wire::Open open = f.open_message();
  open.max_tokens = 64;
  const uint64_t prompt = f.expect<wire::Opened>(f.ask(open)).session;
  f.tell(step(prompt, 1, 0, 18), f.payload(0, 18));
  f.tell(step(first, 1, 0, 1), f.payload(0, 1));
  f.tell(step(second, 1, 0, 1), f.payload(0, 1), kBob);
  REQUIRE(f.host.run_batch());
  CHECK(f.host.take_answers().size() == 2);  // the decoders need not wait for the prompt
  REQUIRE(f.host.run_batch());
  CHECK(f.host.take_answers().size() == 1);
  CHECK_FALSE(f.host.run_batch());
}

TEST_CASE("while those who decode are away a piece of a prompt is computed", "[server][batch]") {
  using std::chrono::milliseconds;
  Fixture f(roomy());
  const auto rows_of_a_pass = [&] {
    const Clock::TimePoint start = f.clock.now();
    f.engine().per_row = milliseconds(10);
    CHECK(f.host.run_batch());
    f.engine().per_row = milliseconds(0);
    return (f.clock.now() - start) / milliseconds(10);
  };
  const uint64_t decodes = f.open();
  wire::Open open = f.open_message();
  open.max_tokens = 64;
  const uint64_t prompt = f.expect<wire::Opened>(f.ask(open)).session;
  for (uint32_t position = 0; position < 3; ++position) {
    f.clock.advance(milliseconds(30));  // it is always away as long
    f.host.caught_up();
    f.tell(step(decodes, position + 1, position, 1), f.payload(position, 1));
    if (position == 2) f.tell(step(prompt, 1, 0, 32), f.payload(0, 32));
    CHECK(rows_of_a_pass() == (position == 2 ? 15 : 1));  // the budget, later rows counting more
    CHECK(f.host.take_answers().size() == 1);
  }
  CHECK(f.host.worth_waiting() == milliseconds(0));
  CHECK(rows_of_a_pass() == 1);  // three quarters of 30 ms are worth 2, and here one counts 1.1
  CHECK(f.host.worth_waiting() > milliseconds(10));  // of 20 ms they are worth 1
}

TEST_CASE("steps in flight are carried out in order and answered one by one", "[server][flight]") {
  Fixture f(roomy());
  const uint64_t one_by_one = f.open();
  std::vector<int32_t> expected;
  for (uint32_t i = 0; i < 4; ++i) {
    expected.push_back(
        f.expect<wire::StepResult>(f.ask(step(one_by_one, i + 1, 2 * i, 2), f.payload(2 * i, 2)))
            .token);
  }
  const wire::Open open = f.open_message();
  CHECK(f.expect<wire::Opened>(f.ask(open)).max_in_flight == 4);
  for (uint32_t i = 0; i < 4; ++i) f.tell(step(open.session, i + 1, 2 * i, 2), f.payload(2 * i, 2));
  std::vector<int32_t> tokens;
  for (const Answer& answer : f.run()) {
    const auto result = read<wire::StepResult>(answer.message);
    CHECK(result.sequence == tokens.size() + 1);
    tokens.push_back(result.token);
  }
  CHECK(tokens == expected);
  // All four answers are kept.
  for (uint32_t i = 0; i < 4; ++i) {
    CHECK(f.expect<wire::StepResult>(f.ask(step(open.session, i + 1, 2 * i, 2))).token ==
          expected[i]);
  }
}

TEST_CASE("more steps in flight than agreed are told to come back, those behind them too",
          "[server][flight]") {
  Fixture f(roomy());
  const uint64_t session = f.open();
  for (uint32_t i = 0; i < 4; ++i) f.tell(step(session, i + 1, i, 1), f.payload(i, 1));
  f.tell(step(session, 5, 4, 1), f.payload(4, 1));
  f.expect<wire::Busy>(f.host.take_answers().at(0).message);
  f.tell(step(session, 6, 5, 1), f.payload(5, 1));
  f.expect<wire::Busy>(f.host.take_answers().at(0).message);
  f.tell(step(session, 40, 39, 1), f.payload(39, 1));
  CHECK(f.failure(f.host.take_answers().at(0).message) == ErrorCode::kOutOfOrder);
  CHECK(f.run().size() == 4);
  CHECK(f.expect<wire::StepResult>(f.ask(step(session, 5, 4, 1), f.payload(4, 1))).length == 5);
  CHECK(f.failure(f.ask(step(session, 7, 6, 1), f.payload(6, 1))) == ErrorCode::kOutOfOrder);
}

TEST_CASE("a repetition of a step that waits is answered once, to who asked last",
          "[server][flight]") {
  Fixture f(roomy());
  const uint64_t session = f.open();
  f.tell(step(session, 1, 0, 2), f.payload(0, 2));
  const uint64_t again = f.tell(step(session, 1, 0, 2), f.payload(0, 2));
  const auto answers = by_request(f.run());
  REQUIRE(answers.size() == 1);
  CHECK(answers.begin()->first == again);
  CHECK(read<wire::StepResult>(answers.begin()->second).length == 2);
}

/// A prompt's steps of which only the last wants a token, and what is in them.
std::vector<wire::Step> prompt_steps(uint64_t session, const std::vector<uint32_t>& counts) {
  std::vector<wire::Step> steps;
  uint32_t position = 0;
  for (const uint32_t count : counts) {
    steps.push_back(step(session, steps.size() + 1, position, count));
    steps.back().wants_reply = steps.size() == counts.size();
    position += count;
  }
  return steps;
}

TEST_CASE("a pass holds the end of one step of a prompt and the beginning of the next",
          "[server][flight]") {
  const bool tail = GENERATE(false, true);  // the rows of all positions come back, or one token
  CAPTURE(tail);
  const std::vector<uint32_t> counts = {9, 9, 9, 9};
  Fixture f(roomy());
  const auto open_prompt = [&] {
    wire::Open open = f.open_message();
    open.max_tokens = 64;
    if (tail) {
      open.tail -= 1;
      open.reply_mode = wire::ReplyMode::kHidden;
    }
    return f.expect<wire::Opened>(f.ask(open)).session;
  };
  // Somebody decodes, so passes have 16 rows.
  const uint64_t other = f.open(kBob);
  f.ask(step(other, 1, 0, 1), f.payload(0, 1), kBob);
  std::vector<std::pair<int32_t, std::vector<std::byte>>> expected;
  for (const wire::Step& request : prompt_steps(open_prompt(), counts)) {
    const auto answer = f.ask(request, f.payload(request.position, request.token_count));
    expected.emplace_back(f.expect<wire::StepResult>(answer).token, answer.payload);
  }
  size_t passes = 0;
  f.on_pass = [&] { ++passes; };
  for (const wire::Step& request : prompt_steps(open_prompt(), counts))
    f.tell(request, f.payload(request.position, request.token_count));
  const std::vector<Answer> answers = f.run();
  CHECK(passes == 3);  // of 16 rows, the later ones counting more
  REQUIRE(answers.size() == counts.size());
  for (size_t i = 0; i < counts.size(); ++i) {
    CAPTURE(i);
    const auto result = read<wire::StepResult>(answers[i].message);
    CHECK(result.sequence == i + 1);
    CHECK(result.length == std::accumulate(counts.begin(), counts.begin() + i + 1, 0U));
    CHECK(std::pair(result.token, answers[i].message.payload) == expected[i]);
  }
  CHECK(f.host.admission().waiting_rows() == 0);
}

/// A session for a prompt beside somebody who decodes, so that passes have 16 rows.
uint64_t open_beside_decoder(Fixture& f) {
  const uint64_t other = f.open(kBob);
  f.ask(step(other, 1, 0, 1), f.payload(0, 1), kBob);
  wire::Open open = f.open_message();
  open.max_tokens = 64;
  return f.expect<wire::Opened>(f.ask(open)).session;
}

/// The token behind a prompt whose steps are carried out one by one, from the step at `first` on.
int32_t finish_one_by_one(Fixture& f, const std::vector<wire::Step>& steps, size_t first) {
  int32_t token = -1;
  for (size_t i = first; i < steps.size(); ++i) {
    token = f.expect<wire::StepResult>(
                 f.ask(steps[i], f.payload(steps[i].position, steps[i].token_count)))
                .token;
  }
  return token;
}

const std::vector<uint32_t> kPromptCounts = {20, 9, 11, 3};

int32_t undisturbed_token() {
  Fixture f(roomy());
  return finish_one_by_one(f, prompt_steps(open_beside_decoder(f), kPromptCounts), 0);
}

TEST_CASE("a bad step leaves those before it that shared its pass", "[server][flight]") {
  Fixture f(roomy());
  const std::vector<wire::Step> steps = prompt_steps(open_beside_decoder(f), kPromptCounts);
  std::vector<std::byte> bad = f.payload(20, 9);
  const float nan = std::numeric_limits<float>::quiet_NaN();
  std::memcpy(bad.data(), &nan, sizeof nan);
  for (size_t i = 0; i < steps.size(); ++i) {
    f.tell(steps[i], i == 1 ? bad : f.payload(steps[i].position, steps[i].token_count));
  }
  const std::vector<Answer> answers = f.run();
  REQUIRE(answers.size() == 4);
  CHECK(read<wire::StepResult>(answers[0].message).length == 20);
  CHECK(failure_in(answers[1].message) == ErrorCode::kNotFinite);
  CHECK(failure_in(answers[2].message) == ErrorCode::kOutOfOrder);
  CHECK(failure_in(answers[3].message) == ErrorCode::kOutOfOrder);
  CHECK(f.host.admission().waiting_rows() == 0);
  CHECK(finish_one_by_one(f, steps, 1) == undisturbed_token());
}

TEST_CASE("a pass that fails takes back what it shared, and only that", "[server][flight]") {
  Fixture f(roomy());
  const std::vector<wire::Step> steps = prompt_steps(open_beside_decoder(f), kPromptCounts);
  for (const wire::Step& request : steps)
    f.tell(request, f.payload(request.position, request.token_count));
  int passes = 0;
  f.engine().fails_with = [&](std::span<const engine::Slice>) -> Status {
    if (++passes != 2) return {};
    return fail(ErrorCode::kDeviceFailed, "told to fail");
  };
  std::vector<Answer> answers = f.run();
  f.engine().fails_with = nullptr;
  REQUIRE(answers.size() == 4);  // rows 0 to 14 were computed, 15 to 28 shared the second pass
  CHECK(failure_in(answers[0].message) == ErrorCode::kDeviceFailed);
  for (size_t i = 1; i < 4; ++i) CHECK(failure_in(answers[i].message) == ErrorCode::kOutOfOrder);
  CHECK(f.host.admission().waiting_rows() == 0);
  CHECK(finish_one_by_one(f, steps, 0) == undisturbed_token());
}

TEST_CASE("wherever memory runs out in a prompt, what was answered stays", "[server][memory]") {
  const int32_t expected = undisturbed_token();
  for (size_t index = 0;; ++index) {
    CAPTURE(index);
    Fixture f(roomy());
    const std::vector<wire::Step> steps = prompt_steps(open_beside_decoder(f), kPromptCounts);
    for (const wire::Step& request : steps)
      f.tell(request, f.payload(request.position, request.token_count));
    size_t happened = 0;
    bool was_scarce = false;
    {
      const size_t row = static_cast<size_t>(f.config().hidden_size) * sizeof(float);
      const test::ScarceMemory scarce(3 * row, index);  // decoded rows and what passes make of them
      for (const Answer& answer : f.run()) {
        const wire::Body body = value_of(wire::decode(answer.message.envelope)).body;
        if (std::holds_alternative<wire::StepResult>(body)) ++happened;
      }
      was_scarce = scarce.has_failed();
    }
    CHECK(f.host.admission().waiting_rows() == 0);
    // What failed is asked for again, or what was answered last: that answer is kept.
    CHECK(finish_one_by_one(f, steps, std::min(happened, steps.size() - 1)) == expected);
    if (!was_scarce) {
      CHECK(happened == steps.size());
      CHECK(index > 4);
      break;
    }
  }
}

TEST_CASE("a step that wants a token in the middle of a prompt gets it", "[server][flight]") {
  Fixture f(roomy());
  std::vector<wire::Step> steps = prompt_steps(open_beside_decoder(f), kPromptCounts);
  steps[1].wants_reply = true;
  for (const wire::Step& request : steps)
    f.tell(request, f.payload(request.position, request.token_count));
  const std::vector<Answer> answers = f.run();
  REQUIRE(answers.size() == 4);
  Fixture again(roomy());
  std::vector<wire::Step> first = prompt_steps(open_beside_decoder(again), {20, 9});
  CHECK(read<wire::StepResult>(answers[0].message).token == -1);
  CHECK(read<wire::StepResult>(answers[1].message).token == finish_one_by_one(again, first, 0));
  CHECK(read<wire::StepResult>(answers[3].message).token == undisturbed_token());
}

TEST_CASE("a truncation in flight takes effect in its place", "[server][flight]") {
  Fixture f(roomy());
  const uint64_t session = f.open();
  f.tell(step(session, 1, 0, 3), f.payload(0, 3));
  f.tell(step(session, 2, 3, 2), f.payload(3, 2));
  f.tell(wire::Truncate{session, 3, 3});
  f.tell(step(session, 4, 3, 2), f.payload(3, 2));
  const std::vector<Answer> answers = f.run();
  REQUIRE(answers.size() == 4);
  CHECK(read<wire::Truncated>(answers[2].message).length == 3);
  CHECK(read<wire::StepResult>(answers[3].message).token ==
        read<wire::StepResult>(answers[1].message).token);
}

TEST_CASE("steps behind one that fails have not happened either", "[server][flight]") {
  Fixture f(roomy());
  const uint64_t session = f.open();
  std::vector<std::byte> bad = f.payload(0, 2);
  const float nan = std::numeric_limits<float>::quiet_NaN();
  std::memcpy(bad.data(), &nan, sizeof nan);
  const uint64_t first = f.tell(step(session, 1, 0, 2), bad);
  const uint64_t second = f.tell(step(session, 2, 2, 1), f.payload(2, 1));
  const auto answers = by_request(f.run());
  CHECK(failure_in(answers.at(first)) == ErrorCode::kNotFinite);
  CHECK(failure_in(answers.at(second)) == ErrorCode::kOutOfOrder);
  CHECK(f.expect<wire::StepResult>(f.ask(step(session, 1, 0, 2), f.payload(0, 2))).length == 2);
  CHECK(f.host.admission().waiting_rows() == 0);
}

TEST_CASE("a step that is not begun in time fails, and has not happened", "[server][deadline]") {
  Fixture f(roomy());
  const uint64_t session = f.open();
  wire::Step first = step(session, 1, 0, 2);
  wire::Step second = step(session, 2, 2, 1);
  first.timeout_ms = 50;
  f.tell(first, f.payload(0, 2));
  f.tell(second, f.payload(2, 1));
  f.clock.advance(std::chrono::milliseconds(51));
  std::vector<Answer> answers = f.run();
  REQUIRE(answers.size() == 2);
  CHECK(std::get<wire::Failure>(value_of(wire::decode(answers[0].message.envelope)).body).code ==
        ErrorCode::kTimeout);
  CHECK(std::get<wire::Failure>(value_of(wire::decode(answers[1].message.envelope)).body).code ==
        ErrorCode::kOutOfOrder);
  CHECK(f.host.admission().waiting_rows() == 0);
  CHECK(f.expect<wire::StepResult>(f.ask(first, f.payload(0, 2))).length == 2);
}

TEST_CASE("a step that is not begun in time leaves what came before it", "[server][deadline]") {
  Fixture f(roomy());
  const uint64_t session = f.open();
  CHECK(f.expect<wire::StepResult>(f.ask(step(session, 1, 0, 2), f.payload(0, 2))).length == 2);
  wire::Step late = step(session, 2, 2, 1);
  late.timeout_ms = 50;
  f.tell(late, f.payload(2, 1));
  f.clock.advance(std::chrono::milliseconds(51));
  CHECK(failure_in(f.run().at(0).message) == ErrorCode::kTimeout);
  CHECK(f.expect<wire::StepResult>(f.ask(late, f.payload(2, 1))).length == 3);
}

TEST_CASE("a deadline counts from when a step is next, and anew when it is repeated",
          "[server][deadline]") {
  Fixture f(roomy());
  const uint64_t session = f.open();
  wire::Step first = step(session, 1, 0, 2);
  wire::Step second = step(session, 2, 2, 1);
  second.timeout_ms = 50;
  f.tell(first, f.payload(0, 2));
  f.tell(second, f.payload(2, 1));
  f.clock.advance(std::chrono::milliseconds(500));  // the first one has no deadline
  CHECK(f.host.run_batch());
  f.clock.advance(std::chrono::milliseconds(40));
  f.tell(second, f.payload(2, 1));
  f.clock.advance(std::chrono::milliseconds(40));
  std::vector<Answer> answers = f.run();
  REQUIRE(answers.size() == 2);
  for (const Answer& answer : answers) {
    CHECK(std::holds_alternative<wire::StepResult>(
        value_of(wire::decode(answer.message.envelope)).body));
  }
}

TEST_CASE("one client's bad rows do not touch the others of a batch", "[server][batch]") {
  Fixture f(roomy());
  const uint64_t good = f.open();
  const uint64_t evil = f.open(kBob);
  std::vector<std::byte> bad = f.payload(0, 2);
  bad.resize(bad.size() - 1);
  f.tell(step(evil, 1, 0, 2), bad, kBob);
  const uint64_t id = f.tell(step(good, 1, 0, 2), f.payload(0, 2));
  const auto answers = by_request(f.run());
  CHECK(answers.size() == 2);
  CHECK(read<wire::StepResult>(answers.at(id)).length == 2);
}

TEST_CASE("who needs more memory than there is fails alone", "[server][batch][memory]") {
  Fixture f(roomy());
  const uint64_t modest = f.open();
  const uint64_t greedy = f.open(kBob);
  const size_t most_rows = GENERATE(2, 4);
  CAPTURE(most_rows);
  f.engine().fails_with = [&](std::span<const engine::Slice> slices) -> Status {
    size_t rows = 0;
    for (const engine::Slice& slice : slices) rows += slice.hidden.rows();
    if (rows <= most_rows) return {};
    return fail(ErrorCode::kOutOfMemory, "told to fail");
  };
  const wire::Step large = step(greedy, 1, 0, 4);
  const uint64_t failing = f.tell(large, f.payload(0, 4), kBob);
  const uint64_t going = f.tell(step(modest, 1, 0, 2), f.payload(0, 2));
  const auto answers = by_request(f.run());
  CHECK(read<wire::StepResult>(answers.at(going)).length == 2);
  if (most_rows == 4) {
    CHECK(read<wire::StepResult>(answers.at(failing)).length == 4);
    return;
  }
  CHECK(failure_in(answers.at(failing)) == ErrorCode::kOutOfMemory);
  f.engine().fails_with = nullptr;
  CHECK(f.expect<wire::StepResult>(f.ask(large, f.payload(0, 4), kBob)).length == 4);
}

TEST_CASE("closing in the middle of a prompt frees everything at once", "[server][batch]") {
  Fixture f(roomy());
  // Somebody decodes: the prompt goes in pieces.
  const uint64_t other = f.open(kBob);
  f.ask(step(other, 1, 0, 1), f.payload(0, 1), kBob);
  const auto held = f.host.admission().kv_bytes();
  wire::Open open = f.open_message();
  open.max_tokens = 64;
  f.expect<wire::Opened>(f.ask(open));
  const uint64_t first = f.tell(step(open.session, 1, 0, 30), f.payload(0, 30));
  const uint64_t second = f.tell(step(open.session, 2, 30, 10), f.payload(30, 10));
  REQUIRE(f.host.run_batch());  // half of the first
  const uint64_t close = f.tell(wire::Close{open.session});
  const auto answers = by_request(f.host.take_answers());
  CHECK(failure_in(answers.at(first)) == ErrorCode::kCancelled);
  CHECK(failure_in(answers.at(second)) == ErrorCode::kCancelled);
  CHECK(read<wire::Closed>(answers.at(close)).session == open.session);
  CHECK_FALSE(f.host.run_batch());
  CHECK(f.host.admission().waiting_rows() == 0);
  CHECK(f.host.admission().kv_bytes() == held);
}

TEST_CASE("a session with work waiting does not expire", "[server][batch]") {
  Fixture f(roomy());
  const uint64_t session = f.open();
  f.tell(step(session, 1, 0, 2), f.payload(0, 2));
  f.clock.advance(std::chrono::hours(1));
  f.host.expire_idle();
  CHECK(f.run().size() == 1);
  f.host.expire_idle();  // it was used just now
  CHECK(f.host.session_count() == 1);
  f.clock.advance(std::chrono::hours(1));
  f.host.expire_idle();
  CHECK(f.host.session_count() == 0);
}

TEST_CASE("a draining server finishes what is queued and refuses what is new", "[server][drain]") {
  Fixture f(roomy());
  const uint64_t session = f.open();
  const uint64_t queued = f.tell(step(session, 1, 0, 8), f.payload(0, 8));
  f.host.drain();
  const uint64_t opened = f.tell(f.open_message());
  const uint64_t next = f.tell(step(session, 2, 8, 1), f.payload(8, 1));
  const auto answers = by_request(f.run());
  CHECK(read<wire::StepResult>(answers.at(queued)).length == 8);
  CHECK(failure_in(answers.at(opened)) == ErrorCode::kDraining);
  CHECK(failure_in(answers.at(next)) == ErrorCode::kDraining);
  // What was answered can be asked for again, and the session can be closed.
  CHECK(f.expect<wire::StepResult>(f.ask(step(session, 1, 0, 8))).length == 8);
  f.expect<wire::Closed>(f.ask(wire::Close{session}));
}

TEST_CASE("a session that would need more memory than there is is refused or told to wait",
          "[server][quota]") {
  ServerOptions options = roomy();
  options.wait_when_full = GENERATE(false, true);
  {
    Fixture probe(options);
    const wire::Open open = probe.open_message();
    probe.expect<wire::Opened>(probe.ask(open));
    options.quotas.max_kv_bytes = probe.host.admission().kv_bytes();
    REQUIRE(options.quotas.max_kv_bytes > 0);
  }
  Fixture f(options);
  const uint64_t session = f.open();
  const transport::Message answer = f.ask(f.open_message(), {}, kBob);
  if (options.wait_when_full) {
    CHECK(f.expect<wire::Busy>(answer).retry_after_ms > 0);
  } else {
    CHECK(f.failure(answer) == ErrorCode::kServerFull);
  }
  f.expect<wire::Closed>(f.ask(wire::Close{session}));
  f.open(kBob);
}

TEST_CASE("a client's rows in flight are bounded over all of its sessions", "[server][quota]") {
  ServerOptions options = roomy();
  options.quotas.max_client_waiting_rows = 6;
  Fixture f(options);
  const uint64_t first = f.open();
  const uint64_t second = f.open();
  f.tell(step(first, 1, 0, 4), f.payload(0, 4));
  f.tell(step(second, 1, 0, 4), f.payload(0, 4));
  f.expect<wire::Busy>(f.host.take_answers().at(0).message);
  CHECK(f.run().size() == 1);
  CHECK(f.expect<wire::StepResult>(f.ask(step(second, 1, 0, 4), f.payload(0, 4))).length == 4);
}

/// What a client gets back for 40 tokens, token by token and as rows of the tail.
std::vector<std::vector<std::byte>> rows_for_bob(Fixture& f, const std::string& codec) {
  wire::Open open = f.open_message();
  open.tail -= 1;
  open.reply_mode = wire::ReplyMode::kHidden;
  open.codec_down = codec;
  open.max_tokens = 64;
  f.expect<wire::Opened>(f.ask(open, {}, kBob));
  std::vector<std::vector<std::byte>> rows;
  rows.push_back(f.ask(step(open.session, 1, 0, 20), f.payload(0, 20), kBob).payload);
  for (uint32_t i = 0; i < 20; ++i) {
    rows.push_back(f.ask(step(open.session, 2 + i, 20 + i, 1), f.payload(20 + i, 1), kBob).payload);
  }
  f.expect<wire::Closed>(f.ask(wire::Close{open.session}, {}, kBob));
  return rows;
}

TEST_CASE("nothing of one client's conversation reaches the next one", "[server][hostile]") {
  const std::string codec = GENERATE("f32", "split:2|rotate|int6|rans|pad:64");
  CAPTURE(codec);
  Fixture fresh(roomy());
  const auto expected = rows_for_bob(fresh, codec);
  // Ada fills caches, payloads, answers and queues of the same sizes, with other numbers, and
  // leaves them in every state: closed, half done, truncated, expired.
  Fixture f(roomy());
  for (int round = 0; round < 4; ++round) {
    wire::Open open = f.open_message();
    open.max_tokens = 64;
    f.expect<wire::Opened>(f.ask(open));
    std::vector<std::byte> rows = f.payload(0, 30);
    std::reverse(rows.begin(), rows.end());
    for (size_t i = 0; i < rows.size(); i += sizeof(float)) {
      std::reverse(rows.begin() + static_cast<std::ptrdiff_t>(i),
                   rows.begin() + static_cast<std::ptrdiff_t>(i + sizeof(float)));
    }
    f.tell(step(open.session, 1, 0, 30), rows);
    if (round != 1) f.run();
    if (round == 2) f.expect<wire::Truncated>(f.ask(wire::Truncate{open.session, 2, 3}));
    if (round < 3) {
      f.tell(wire::Close{open.session});
    } else {
      f.clock.advance(std::chrono::hours(1));
      f.host.expire_idle();
    }
    f.run();
    CHECK(f.host.session_count() == 0);
    CHECK(rows_for_bob(f, codec) == expected);
  }
}

TEST_CASE("wherever memory runs out, the step fails or its answer is there to be asked for again",
          "[server][memory]") {
  const std::string codec = GENERATE("f32", "int8");
  CAPTURE(codec);
  constexpr uint32_t kTokens = 20;
  std::vector<std::byte> expected;
  for (size_t index = 0;; ++index) {
    CAPTURE(index);
    Fixture f(roomy());
    wire::Open open = f.open_message();
    open.tail -= 1;
    open.reply_mode = wire::ReplyMode::kHidden;
    open.codec_down = codec;
    open.max_tokens = 64;
    f.expect<wire::Opened>(f.ask(open));
    const std::vector<std::byte> payload = f.payload(0, kTokens);
    f.tell(step(open.session, 1, 0, kTokens), payload);
    bool was_scarce = false;
    {
      // What is the size of a payload, of either codec; all else is small.
      const test::ScarceMemory scarce(payload.size() / sizeof(float), index);
      for (const Answer& answer : f.run()) {
        if (scarce.has_failed()) CHECK(f.failure(answer.message) == ErrorCode::kOutOfMemory);
      }
      was_scarce = scarce.has_failed();
    }
    const auto again = f.ask(step(open.session, 1, 0, kTokens), payload);
    CHECK(f.expect<wire::StepResult>(again).length == kTokens);
    if (index == 0) expected = again.payload;
    CHECK(again.payload == expected);
    if (!was_scarce) {
      CHECK(index > 4);
      break;
    }
  }
}

TEST_CASE("a session that could not be made has taken nothing", "[server][quota]") {
  Fixture f(roomy());
  wire::Open open = f.open_message();
  open.codec_down = "f31";
  CHECK(f.failure(f.ask(open)) == ErrorCode::kUnsupported);
  CHECK(f.host.admission().sessions() == 0);
  CHECK(f.host.admission().kv_bytes() == 0);
}

}  // namespace
}  // namespace isthmus::server
