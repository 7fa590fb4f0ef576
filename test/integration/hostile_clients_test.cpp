// Enrolled clients that misbehave, all at once, beside one that does not.
#include <isthmus/core/random.h>
#include <isthmus/wire/messages.h>

#include <algorithm>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "support/seeded_random.h"
#include "tiny_split.h"

namespace isthmus {
namespace {

using std::chrono::milliseconds;
using test::InProcessServer;
using test::load_device;
using test::session_options;
using test::TinyFolder;
using test::value_of;

constexpr uint32_t kLayers = 4;
constexpr uint32_t kHidden = 48;
constexpr uint32_t kVocabulary = 256;

wire::Open open_message(const model::Fingerprint& fingerprint, uint64_t session) {
  return {.model = {"llama", kLayers, kHidden, kVocabulary, fingerprint.digest},
          .cut = 1,
          .tail = kLayers,
          .codec_up = "f32",
          .codec_down = "f32",
          .max_tokens = 100,
          .session = session};
}

/// A client with a valid key and bad manners. It never waits for long.
class Villain {
 public:
  Villain(const InProcessServer& server, uint64_t seed)
      : random_(seed), fingerprint_(server.fingerprint()), wire_(server.address().port) {
    transport::ChannelOptions options;
    options.server = test::through(wire_, server.address());
    options.keys = transport::generate_keys();
    auto channel = transport::Channel::connect(options, std::chrono::seconds(20));
    if (channel) channel_.emplace(std::move(*channel));
  }

  /// Of layers [1, L), as a good client would.
  void open(uint64_t session) { tell(open_message(fingerprint_, session)); }
  void tell(const wire::Body& body, size_t payload_bytes = 0) {
    tell_raw(wire::encode({.request_id = ++request_, .body = body}), payload_bytes);
  }
  void tell_raw(std::vector<std::byte> envelope, size_t payload_bytes) {
    if (!channel_) return;
    std::vector<std::byte> payload(payload_bytes);
    if (payload_bytes > 0) random_.fill(payload);
    // A connection that the server cut comes back by itself.
    (void)channel_->send({std::move(envelope), std::move(payload)});
    while (true) {
      auto answer = channel_->receive(milliseconds(0));
      if (!answer || !*answer) return;
    }
  }
  /// What carries its bytes to the server.
  [[nodiscard]] test::RecordingProxy& wire() { return wire_; }
  [[nodiscard]] uint64_t any() { return random_.next_u64(); }
  [[nodiscard]] std::vector<std::byte> garbage(size_t most) {
    std::vector<std::byte> bytes(any() % most);
    random_.fill(bytes);
    return bytes;
  }

 private:
  test::SeededRandom random_;
  model::Fingerprint fingerprint_;
  test::RecordingProxy wire_;
  std::optional<transport::Channel> channel_;
  uint64_t request_ = 0;
};

using Deed = std::function<void(Villain&, uint64_t round)>;

/// Opens without end, none of them ever closed.
void flood_of_opens(Villain& villain, uint64_t) {
  villain.open(villain.any() | 1);
}

/// A session of its own, with every number wrong in turn, and each step many times over.
void wrong_numbers(Villain& villain, uint64_t round) {
  constexpr uint64_t kSession = 7;
  if (round == 0) villain.open(kSession);
  wire::Step step{.session = kSession,
                  .sequence = 1 + villain.any() % 12,
                  .position = static_cast<uint32_t>(villain.any() % 120),
                  .token_count = static_cast<uint32_t>(1 + villain.any() % 400),
                  .wants_reply = true};
  for (int i = 0; i < 3; ++i) villain.tell(step, (villain.any() % 3) * step.token_count * 96);
  villain.tell(
      wire::Truncate{kSession, villain.any() % 12 + 1, static_cast<uint32_t>(villain.any() % 120)});
}

/// The numbers that good clients' sessions might have: they are drawn by the client, so a villain
/// that learnt one can name it, under its own key.
void other_peoples_sessions(Villain& villain, uint64_t round) {
  const uint64_t session = round % 50;
  villain.tell(wire::Step{.session = session, .sequence = 1, .token_count = 1}, kHidden * 4);
  villain.tell(wire::Truncate{session, 1, 0});
  villain.tell(wire::Close{session});
}

/// The right envelope of a wrong kind, and no envelope at all.
void valid_key_with_garbage(Villain& villain, uint64_t round) {
  if (round % 2 == 0) {
    villain.tell_raw(villain.garbage(4000), villain.any() % 3000);
  } else {
    villain.tell(wire::Opened{.session = 1, .max_tokens = 1, .max_step_tokens = 1}, 100);
  }
}

/// Rows that are no numbers, as many as a step may have, and many steps in flight.
void poison(Villain& villain, uint64_t round) {
  constexpr uint64_t kSession = 9;
  if (round % 64 == 0) {
    villain.tell(wire::Close{kSession});
    villain.open(kSession);
  }
  villain.tell(wire::Step{.session = kSession,
                          .sequence = 1 + round % 8,
                          .position = static_cast<uint32_t>(round % 8 * 8),
                          .token_count = 8},
               size_t{8} * kHidden * sizeof(float));
}

/// Whole steps, a few bytes at a time: the server has the beginning of a message for as long as
/// the villain likes.
void slow_sender(Villain& villain, uint64_t round) {
  constexpr uint64_t kSession = 11;
  if (round == 0) villain.open(kSession);
  villain.wire().trickle(1 + villain.any() % 16);
  villain.tell(wire::Step{.session = kSession,
                          .sequence = 1 + round % 8,
                          .position = static_cast<uint32_t>(round % 8 * 4),
                          .token_count = 4},
               size_t{4} * kHidden * sizeof(float));
  std::this_thread::sleep_for(milliseconds(20));
}

/// Messages that end in the middle, with their connection; the next one begins anew.
void half_messages(Villain& villain, uint64_t round) {
  constexpr uint64_t kSession = 13;
  villain.wire().cut_after(test::RecordingProxy::Direction::kUp, 1 + villain.any() % 3000);
  if (round % 8 == 0) villain.open(kSession + round);
  villain.tell(wire::Step{.session = kSession + round / 8 * 8, .sequence = 1, .token_count = 8},
               size_t{8} * kHidden * sizeof(float));
  std::this_thread::sleep_for(milliseconds(5));
}

std::vector<int32_t> converse(edge::Session& session) {
  edge::GenerateOptions options{.max_tokens = 60};
  options.sampling = {.temperature = 0.8F, .seed = 3};
  return value_of(session.say("A prompt that a good client sends, of a few dozen bytes.", options))
      .token_ids;
}

TEST_CASE("hostile clients change no token of a good one and crowd nobody out",
          "[integration][hostile]") {
  const TinyFolder model;
  server::ServerOptions limits;
  limits.quotas.max_sessions = 40;
  limits.quotas.max_client_sessions = 4;
  limits.quotas.max_waiting_rows = 256;
  limits.quotas.max_client_waiting_rows = 64;
  const InProcessServer server(model.path(), limits);
  edge::Device local = load_device(model.path());
  edge::Session undisturbed = value_of(local.open_session({.max_tokens = 200}));
  const std::vector<int32_t> expected = converse(undisturbed);

  std::atomic<bool> stop = false;
  std::atomic<uint64_t> deeds = 0;
  std::vector<std::thread> villains;
  const std::vector<Deed> repertoire = {
      flood_of_opens, wrong_numbers, other_peoples_sessions, valid_key_with_garbage,
      poison,         slow_sender,   half_messages};
  for (size_t i = 0; i < repertoire.size(); ++i) {
    villains.emplace_back([&, i] {
      Villain villain(server, i);
      for (uint64_t round = 0; !stop; ++round, ++deeds) {
        repertoire[i](villain, round);
        if (round % 16 == 0) std::this_thread::sleep_for(milliseconds(1));
      }
    });
  }
  edge::Device device = load_device(model.path(), 1);
  for (int round = 0; round < 5; ++round) {
    edge::Session session = value_of(device.open_session(session_options(server.address())));
    CHECK(converse(session) == expected);
  }
  stop = true;
  for (std::thread& villain : villains) villain.join();
  CHECK(deeds > 100);
  edge::Session after = value_of(device.open_session(session_options(server.address())));
  CHECK(converse(after) == expected);
}

}  // namespace
}  // namespace isthmus
