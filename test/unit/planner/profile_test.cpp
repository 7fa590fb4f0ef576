#include <isthmus/planner/profile.h>

#include <functional>
#include <nlohmann/json.hpp>

#include "instances.h"
#include "support/catch.h"

namespace isthmus {
namespace {

using namespace planner;
using nlohmann::json;
using test::value_of;

MachineProfile sample() {
  test::Instances random(5);
  return random.machine(
      {.architecture = "llama", .layer_count = 4, .hidden_size = 8, .vocab_size = 100},
      {"f16", "split:4|rotate|int4|rans"});
}

TEST_CASE("profiles read back bit for bit", "[planner][profile]") {
  test::Instances random(9);
  for (int i = 0; i < 200; ++i) {
    MachineProfile machine = random.machine(
        {.architecture = "llama", .layer_count = 3, .hidden_size = 8, .vocab_size = 9}, {"f16"});
    machine.spread = 1.0 / 3 * i;
    if (i % 2 == 0) machine.watts.reset();
    if (i % 5 > 0) machine.idle = {{0, 0.8}, {0.1 * i, 1.0 / 3}};
    if (i % 3 == 0) machine.codecs.front().made_for_cut = i % 4;
    machine.codecs.front().up_only = i % 7 == 0;
    if (i % 4 > 0) machine.weight_count = {.layers = 106'168'320, .head = 1u + i};
    CHECK(value_of(parse_machine(to_json(machine), "m")) == machine);
    const LinkProfile link = random.link();
    CHECK(value_of(parse_link(to_json(link), "l")) == link);
  }
}

TEST_CASE("a table is linear between its points and goes on beyond them", "[planner][profile]") {
  const TimeTable table{.layers = {0, 2, 10}, .tokens = {1, 11}, .seconds = {0, 10, 4, 24, 20, 60}};
  CHECK(table.at(0, 1) == 0);
  CHECK(table.at(2, 11) == 24);
  CHECK(table.at(1, 1) == 2);
  CHECK(table.at(6, 6) == Approx((4 + 24 + 20 + 60) / 4.0));
  CHECK(table.at(10, 21) == Approx(100));
  CHECK(table.at(2, 0) == Approx(2));
}

TEST_CASE("what waiting does is linear between measurements", "[planner][profile]") {
  MachineProfile machine;
  CHECK(machine.after_idle(1) == 1);
  machine.idle = {{0, 0.8}, {0.5, 1.2}, {1, 1.0}};
  CHECK(machine.after_idle(0) == 0.8);
  CHECK(machine.after_idle(0.25) == Approx(1.0));
  CHECK(machine.after_idle(0.5) == 1.2);
  CHECK(machine.after_idle(9) == 1.0);
}

TEST_CASE("sizes of messages are linear between cuts", "[planner][profile]") {
  const CodecCost codec{
      .spec = "f16", .sizes = {{2, {.fixed = 1, .per_row = 10}}, {6, {.fixed = 5, .per_row = 30}}}};
  CHECK(codec.bytes(0, 2) == 21);
  CHECK(codec.bytes(2, 2) == 21);
  CHECK(codec.bytes(4, 1) == Approx(23));
  CHECK(codec.bytes(6, 1) == 35);
  CHECK(codec.bytes(9, 1) == 35);
}

/// Applies `change` to a good profile and expects it to be refused with a message that names the
/// file and `field`.
void refused(const std::function<void(json&)>& change, const std::string& field) {
  json document = json::parse(to_json(sample()));
  change(document);
  const auto profile = parse_machine(document.dump(), "device.json");
  CAPTURE(document.dump(), field);
  REQUIRE_FALSE(profile);
  CAPTURE(profile.error().message);
  CHECK(profile.error().code == ErrorCode::kCorrupt);
  CHECK(profile.error().message.starts_with("planner: device.json"));
  CHECK(profile.error().message.find(field) != std::string::npos);
}

TEST_CASE("a profile with any field missing is refused by that field's name",
          "[planner][profile]") {
  const json good = json::parse(to_json(sample()));
  for (const auto& item : good.items()) {
    const std::string& key = item.key();
    if (key == "watts") continue;
    refused([&](json& d) { d.erase(key); }, key);
    refused([&](json& d) { d[key] = nullptr; }, key);
    refused([&](json& d) { d[key] = json::array({json::array()}); }, key);
  }
  for (const char* list : {"weights", "kv", "codecs"}) {
    for (const auto& item : good[list][0].items()) {
      const std::string& key = item.key();
      refused([&](json& d) { d[list][0].erase(key); }, key);
      refused([&](json& d) { d[list][0][key] = true; }, key);
    }
  }
}

TEST_CASE("numbers outside their ranges are refused by name", "[planner][profile]") {
  refused([](json& d) { d["isthmus_profile"] = "link"; }, "link");
  refused([](json& d) { d["version"] = 2; }, "version");
  refused([](json& d) { d["threads"] = 0; }, "threads");
  refused([](json& d) { d["threads"] = 1.5; }, "threads");
  refused([](json& d) { d["model"]["layer_count"] = 0; }, "layer_count");
  refused([](json& d) { d["model"]["layer_count"] = 5; }, "layer_bytes");
  refused([](json& d) { d["weights"] = json::array(); }, "weights");
  refused([](json& d) { d["kv"] = json::array(); }, "kv");
  refused([](json& d) { d["weights"].push_back(d["weights"][0]); }, "twice");
  refused([](json& d) { d["codecs"].push_back(d["codecs"][0]); }, "twice");
  refused([](json& d) { d["weights"][0]["layer_bytes"][2] = 0; }, "layer_bytes");
  refused([](json& d) { d["weights"][0]["time"]["layers"] = {0, 3}; }, "time.layers");
  refused([](json& d) { d["weights"][0]["time"]["layers"] = {1, 4}; }, "time.layers");
  refused([](json& d) { d["weights"][0]["time"]["tokens"] = {2, 4, 8}; }, "time.tokens");
  refused([](json& d) { d["weights"][0]["time"]["tokens"] = {1, 4, 4}; }, "time.tokens");
  refused([](json& d) { d["weights"][0]["time"]["seconds"].push_back(1); }, "time.seconds");
  refused([](json& d) { d["weights"][0]["time"]["seconds"][1] = -1; }, "time.seconds");
  refused([](json& d) { d["kv"][0]["bytes_per_token_and_layer"] = 0; }, "bytes_per_token");
  refused([](json& d) { d["codecs"][0]["sizes"] = json::array(); }, "sizes");
  refused([](json& d) { d["codecs"][0]["sizes"][0]["cut"] = 9; }, "cut");
  refused([](json& d) { d["idle"] = {{{"seconds", 1}, {"factor", 0}}}; }, "idle.factor");
  refused([](json& d) { d["idle"] = {{{"seconds", -1}, {"factor", 1}}}; }, "seconds");
  refused(
      [](json& d) {
        d["idle"] = {{{"seconds", 1}, {"factor", 1}}, {{"seconds", 1}, {"factor", 1}}};
      },
      "does not increase");
  refused([](json& d) { d["codecs"][0]["made_for_cut"] = -1; }, "made_for_cut");
  refused([](json& d) { d["codecs"][0]["made_for_cut"] = 99; }, "made_for_cut");
  refused([](json& d) { d["codecs"][0]["up_only"] = 1; }, "up_only");
  refused([](json& d) { d["weight_count"] = {{"layers", 0}, {"head", 1}}; }, "layers");
  refused([](json& d) { d["weight_count"] = {{"layers", 1}}; }, "head");
  refused([](json& d) { d["codecs"][0]["sizes"][1]["cut"] = 0; }, "cut");
  refused([](json& d) { d["codecs"][0]["spec"] = std::string(2000, 'x'); }, "spec");
  refused([](json& d) { d["free_bytes"] = 0; }, "free_bytes");
  refused([](json& d) { d["spread"] = -0.1; }, "spread");
  refused([](json& d) { d["watts"]["computing"] = -3; }, "computing");
}

TEST_CASE("what is no JSON object of a profile is refused", "[planner][profile]") {
  for (const std::string& text : std::vector<std::string>{
           "", "{", "[]", "7", "null", "{\"a\": 1, \"a\": 2}", std::string(100'000, '['),
           "{\"isthmus_profile\": \"machine\", \"version\": 1e400}"}) {
    CAPTURE(text.substr(0, 60));
    CHECK_FALSE(parse_machine(text, "x"));
    CHECK_FALSE(parse_link(text, "x"));
  }
  const auto large = parse_machine(std::string((16 << 20) + 1, ' '), "x");
  REQUIRE_FALSE(large);
  CHECK(large.error().code == ErrorCode::kTooLarge);
}

TEST_CASE("a profile cut short at any byte is refused", "[planner][profile]") {
  const std::string text = to_json(sample());
  for (size_t length = 0; length + 2 < text.size(); ++length)
    CHECK_FALSE(parse_machine(text.substr(0, length), "x"));
}

TEST_CASE("links out of range are refused by name", "[planner][profile]") {
  const auto refused_link = [](LinkProfile link, const std::string& field) {
    const auto read = parse_link(to_json(link), "link.json");
    REQUIRE_FALSE(read);
    CHECK(read.error().message.find(field) != std::string::npos);
  };
  const LinkProfile good{.rtt_seconds = 0.1,
                         .rtt_p95_seconds = 0.2,
                         .up_bits_per_second = 1e6,
                         .down_bits_per_second = 1e6};
  REQUIRE(parse_link(to_json(good), "link.json"));
  LinkProfile bad = good;
  bad.rtt_seconds = -1;
  refused_link(bad, "rtt_seconds");
  bad = good;
  bad.rtt_p95_seconds = 0.05;
  refused_link(bad, "rtt_p95_seconds");
  bad = good;
  bad.up_bits_per_second = 0;
  refused_link(bad, "up_bits_per_second");
}

TEST_CASE("a derived profile follows the roofline", "[planner][profile]") {
  MachineProfile measured = test::plain_machine(10, 0.001);
  const MachineDescription description{.machine = "phone",
                                       .read_bytes_per_second = 1e6,
                                       .operations_per_second = 1e7,
                                       .call_seconds = 1e-4,
                                       .codec_seconds_per_value = 1e-8,
                                       .free_bytes = 1e9};
  const MachineProfile derived = value_of(derive_profile(measured, description));
  // 10 layers of 1,000 bytes at 1 MB/s: 10 ms and the call. 101 tokens: 2 * 10,000 * 101
  // operations.
  CHECK(derived.weights[0].time.at(10, 1) == Approx(0.01 + 1e-4));
  CHECK(derived.weights[0].time.at(10, 101) == Approx(0.202 + 1e-4));
  CHECK(derived.weights[0].head_seconds == Approx(0.005));
  CHECK(derived.codecs[0].encode_seconds.at(2) == Approx(2 * 64 * 1e-8));
  CHECK(derived.weights[0].layer_bytes == measured.weights[0].layer_bytes);
  // Codes of 5 bits are counted, not guessed from the 8 that they may have.
  measured.weight_count = {.layers = 16'000, .head = 50'000};
  const MachineProfile counted = value_of(derive_profile(measured, description));
  CHECK(counted.weights[0].time.at(10, 1) == Approx(0.01 + 1e-4));
  CHECK(counted.weights[0].time.at(10, 101) == Approx(0.3232 + 1e-4));
  CHECK(counted.weights[0].head_seconds == Approx(0.01));
  MachineDescription bad = description;
  bad.operations_per_second = 0;
  const auto refused = derive_profile(measured, bad);
  REQUIRE_FALSE(refused);
  CHECK(refused.error().message.find("operations_per_second") != std::string::npos);
}

}  // namespace
}  // namespace isthmus
