// The formulas of cost.h against figures worked out by hand, and against a simulation.
#include <isthmus/planner/planner.h>

#include <algorithm>
#include <cmath>

#include "instances.h"
#include "support/catch.h"

namespace isthmus {
namespace {

using namespace planner;

/// Ten layers of 1 ms on the device and 0.1 ms on the server; f16 has 122 bytes a row, so 200 with
/// what surrounds a step; 1.6 Mbit/s up makes that 1 ms.
Problem plain_problem() {
  Problem problem;
  problem.device = test::plain_machine(10, 0.001);
  problem.server = test::plain_machine(10, 0.0001);
  problem.link = {.rtt_seconds = 0.05,
                  .rtt_p95_seconds = 0.06,
                  .up_bits_per_second = 1.6e6,
                  .down_bits_per_second = 3.2e5};
  problem.workload = {
      .prompt_tokens = 25, .reply_tokens = 10, .chunk_tokens = 10, .chunks_in_flight = 1};
  problem.choices.contexts = {100};
  return problem;
}

Candidate at(const Problem& problem, Placement placement) {
  const auto list = placements(problem);
  const auto found = std::find(list.begin(), list.end(), placement);
  REQUIRE(found != list.end());
  return {.placement = static_cast<uint32_t>(found - list.begin())};
}

Prediction predict_at(const Problem& problem, Placement placement) {
  const auto completed = problem.completed();
  REQUIRE(completed);
  return predict(*completed, at(*completed, placement));
}

TEST_CASE("a token's time is the sum over its places", "[planner][cost]") {
  const Prediction p = predict_at(plain_problem(), {.cut = 4});
  CHECK(p.device == Approx(0.004));
  CHECK(p.codec == Approx(0.001 + 0.002));
  CHECK(p.server == Approx(6 * 0.0001 + 0.0002));  // six layers and the head
  // Round trip, 200 bytes up, 40 bytes down.
  CHECK(p.wire == Approx(0.05 + 0.001 + 0.001));
  CHECK(p.metrics[Metric::kToken] == Approx(p.device + p.codec + p.server + p.wire));
  CHECK(p.metrics[Metric::kTraffic] == Approx(240));
  CHECK(p.bytes_up == Approx(200));
}

TEST_CASE("a tail brings rows back and the head to the device", "[planner][cost]") {
  const Prediction p = predict_at(plain_problem(), {.cut = 2, .tail = 7});
  CHECK(p.device == Approx(0.002 + 0.003 + 0.002));
  CHECK(p.server == Approx(5 * 0.0001));
  CHECK(p.codec == Approx(2 * (0.001 + 0.002)));
  CHECK(p.wire == Approx(0.05 + 0.001 + 0.005));
  CHECK(p.metrics[Metric::kTraffic] == Approx(400));
}

TEST_CASE("on the device alone nothing crosses", "[planner][cost]") {
  const Prediction p = predict_at(plain_problem(), {.cut = Placement::kLocal});
  CHECK(p.metrics[Metric::kToken] == Approx(0.012));
  CHECK(p.wire + p.codec + p.server == 0);
  CHECK(p.metrics[Metric::kTraffic] == 0);
  CHECK(p.metrics[Metric::kServerMemory] == 0);
  CHECK(p.metrics[Metric::kAttack] == 0);
  CHECK(p.metrics[Metric::kEpsilonPerRow] == 0);
  CHECK(p.metrics[Metric::kFirstToken] == Approx(25 * 0.01 + 0.002));
}

TEST_CASE("memory counts weights, head, caches and the program", "[planner][cost]") {
  Problem problem = plain_problem();
  problem.workload.sessions = 3;
  Metrics m = predict_at(problem, {.cut = 4}).metrics;
  CHECK(m[Metric::kDeviceMemory] == Approx(100 + 4 * 1000 + 4 * 10 * 100));
  CHECK(m[Metric::kServerMemory] == Approx(100 + 6 * 1000 + 5000 + 3 * 6 * 10 * 100));
  m = predict_at(problem, {.cut = 4, .tail = 9}).metrics;
  CHECK(m[Metric::kDeviceMemory] == Approx(100 + 5 * 1000 + 5000 + 5 * 10 * 100));
  CHECK(m[Metric::kServerMemory] == Approx(100 + 5 * 1000 + 3 * 5 * 10 * 100));
}

TEST_CASE("longer conversations cost attention in every layer", "[planner][cost]") {
  Problem problem = plain_problem();
  const double before = predict_at(problem, {.cut = 4}).device;
  problem.device.kv[0].seconds_per_pair_and_layer = 1e-6;
  // A token of the middle of the reply looks back at 25 + 5 positions.
  CHECK(predict_at(problem, {.cut = 4}).device == Approx(before + 4 * 30 * 1e-6));
}

TEST_CASE("a machine that waits for the other is slower at its next token", "[planner][cost]") {
  Problem problem = plain_problem();
  const Prediction before = predict_at(problem, {.cut = 4});
  problem.device.idle = {{0, 0.5}, {problem.link.rtt_seconds, 2}};
  problem.server.idle = {{0, 3}};
  const Prediction after = predict_at(problem, {.cut = 4});
  CHECK(after.device == Approx(2 * before.device));
  CHECK(after.server == Approx(3 * before.server));
  CHECK(after.metrics[Metric::kFirstToken] == before.metrics[Metric::kFirstToken]);
  CHECK(predict_at(problem, {.cut = Placement::kLocal}).metrics[Metric::kToken] == Approx(0.006));
}

TEST_CASE("one chunk at a time takes the sum of all chunks", "[planner][cost]") {
  // Chunks of 10, 10 and 5.
  const double rows = 25;
  const double expected = rows * (0.004 + 0.001 + 0.002 + 0.0006) + 0.0002 + 3 * (0.05 + 0.001) +
                          8 * (rows * 122 + 3 * 78) / 1.6e6;
  CHECK(predict_at(plain_problem(), {.cut = 4}).metrics[Metric::kFirstToken] == Approx(expected));
}

TEST_CASE("chunks in flight overlap as in a simulation by hand", "[planner][cost]") {
  const StepCost step{.front = 2, .up = 3, .back = 1, .round_trip = 4};
  // Alone: 2 + 3 + 1 + 4 = 10. Two in flight: the second leaves the device at 4, waits for the link
  // until 5, is sent by 8, arrives at 10, is done at 11, is answered at 13.
  CHECK(prompt_seconds(step, 0, step, 1) == 10);
  CHECK(prompt_seconds(step, 1, step, 1) == 20);
  CHECK(prompt_seconds(step, 1, step, 2) == 13);
  // The third may start when the first is answered, at 10: 10 + 10.
  CHECK(prompt_seconds(step, 2, step, 2) == 20);
  // With three in flight the link is never idle: 2 + 3 * 3 + 2 + 1 + 2.
  CHECK(prompt_seconds(step, 2, step, 3) == 16);
  // A tail keeps the device.
  const StepCost tailed{.front = 2, .up = 3, .back = 1, .tail = 5, .round_trip = 4};
  CHECK(prompt_seconds(tailed, 1, tailed, 2) == 20);
}

TEST_CASE("more in flight is never slower, and never faster than the busiest place",
          "[planner][cost]") {
  test::Instances random(3);
  for (int i = 0; i < 2000; ++i) {
    StepCost step{.front = random.step(1, 5),
                  .encode_up = random.step(1, 2),
                  .up = random.step(1, 5),
                  .back = random.step(1, 5),
                  .down = random.step(1, 5),
                  .round_trip = random.step(2, 5)};
    const int32_t count = random.between(0, 9);
    const double chunks = count + 1;
    double before = prompt_seconds(step, count, step, 1);
    CHECK(before == Approx(chunks * step.total()));
    for (int32_t in_flight = 2; in_flight < 6; ++in_flight) {
      const double now = prompt_seconds(step, count, step, in_flight);
      CHECK(now <= before + 1e-9);
      const double busiest =
          std::max({step.before_sending(), step.up, step.on_server(), step.down});
      CHECK(now >= step.total() + count * busiest - 1e-9);
      before = now;
    }
  }
}

TEST_CASE("throughput is bounded by the devices and by the server they share", "[planner][cost]") {
  Problem problem = plain_problem();
  const Prediction alone = predict_at(problem, {.cut = 4});
  CHECK(alone.metrics[Metric::kThroughput] == Approx(alone.metrics[Metric::kToken]));
  problem.workload.sessions = 4;
  CHECK(predict_at(problem, {.cut = 4}).metrics[Metric::kThroughput] ==
        Approx(alone.metrics[Metric::kToken] / 4));
  problem.workload.sessions = 100;
  // Decoding, six layers and the head keep the server 2.8 ms.
  CHECK(predict_at(problem, {.cut = 4}).metrics[Metric::kThroughput] == Approx(0.0028));
  // Devices on their own do not wait for each other.
  CHECK(predict_at(problem, {.cut = Placement::kLocal}).metrics[Metric::kThroughput] ==
        Approx(0.012 / 100));
}

TEST_CASE("energy is what the device draws while it computes and waits", "[planner][cost]") {
  Problem problem = plain_problem();
  problem.device.watts = Watts{.computing = 10, .waiting = 2};
  const Prediction p = predict_at(problem, {.cut = 4});
  const double busy = 0.004 + 0.001;
  CHECK(p.metrics[Metric::kEnergy] == Approx(10 * busy + 2 * (p.metrics[Metric::kToken] - busy)));
}

TEST_CASE("quality adds up what was evaluated, and nothing else", "[planner][cost]") {
  Problem problem = plain_problem();
  problem.device.codecs.push_back(problem.device.codecs[0]);
  problem.device.codecs[1].spec = "f32";
  problem.server.codecs = problem.device.codecs;
  problem.evidence.codecs = {{4, "f16", 0.02}, {7, "f16", -0.01}, {4, "f16", 0.03}};
  problem.evidence.weights = {{5, "fine", 8, 8, 16, 0.001}};
  CHECK(predict_at(problem, {.cut = 4}).metrics[Metric::kQuality] == Approx(0.031));
  CHECK(predict_at(problem, {.cut = 4, .tail = 7}).metrics[Metric::kQuality] == Approx(0.031));
  CHECK(std::isinf(predict_at(problem, {.cut = 3}).metrics[Metric::kQuality]));
  problem.choices.codecs_up = {"f32"};  // bit-exact: no evaluation needed
  CHECK(predict_at(problem, {.cut = 3}).metrics[Metric::kQuality] == Approx(0.001));
  problem.evidence.weights[0].precision = "fast";
  CHECK(std::isinf(predict_at(problem, {.cut = 3}).metrics[Metric::kQuality]));
  // The evaluation ran all layers at one precision.
  problem.device.precision = "fast";
  CHECK(std::isinf(predict_at(problem, {.cut = 3}).metrics[Metric::kQuality]));
  CHECK(predict_at(problem, {.cut = Placement::kLocal}).metrics[Metric::kQuality] == Approx(0.001));
  problem.server.precision = "fast";
  CHECK(predict_at(problem, {.cut = 3}).metrics[Metric::kQuality] == Approx(0.001));
  problem.evidence.weights.clear();
  CHECK(std::isinf(predict_at(problem, {.cut = 3}).metrics[Metric::kQuality]));
  CHECK(std::isinf(predict_at(problem, {.cut = Placement::kLocal}).metrics[Metric::kQuality]));
}

TEST_CASE("privacy is the worst that an audit of this cut and spec found", "[planner][cost]") {
  Problem problem = plain_problem();
  problem.evidence.attacks = {{4, "f16", "ridge", 0.1, 3.0, 40.0, 25},
                              {4, "f16", "ridge+prior", 0.6, 3.0, std::nullopt, 25},
                              {5, "f16", "ridge", 0.5, 2.0, 30.0, 25}};
  Metrics m = predict_at(problem, {.cut = 4}).metrics;
  CHECK(m[Metric::kAttack] == 0.6);
  CHECK(m[Metric::kEpsilonPerRow] == 3.0);
  CHECK(std::isinf(m[Metric::kEpsilonPerPrompt]));
  CHECK(predict_at(problem, {.cut = 5}).metrics[Metric::kEpsilonPerPrompt] == 30.0);
  CHECK(std::isinf(predict_at(problem, {.cut = 6}).metrics[Metric::kAttack]));
}

TEST_CASE("what is guessed without a message is no attack", "[planner][cost]") {
  Problem problem = plain_problem();
  for (const char* prior : {"unigram_prior", "language_prior"}) {
    problem.evidence.attacks = {{4, "f16", prior, 0.4, 3.0, 40.0, 25}};
    CHECK(std::isinf(predict_at(problem, {.cut = 4}).metrics[Metric::kAttack]));
    problem.evidence.attacks.push_back({4, "f16", "ridge", 0.1, 3.0, 40.0, 25});
    CHECK(predict_at(problem, {.cut = 4}).metrics[Metric::kAttack] == 0.1);
  }
}

TEST_CASE("an epsilon of shorter prompts says nothing about longer ones", "[planner][cost]") {
  Problem problem = plain_problem();
  const auto epsilon = [&] {
    return predict_at(problem, {.cut = 4}).metrics[Metric::kEpsilonPerPrompt];
  };
  problem.evidence.attacks = {{4, "f16", "ridge", 0.1, 3.0, 40.0}};
  CHECK(std::isinf(epsilon()));  // it does not say of how many rows
  problem.evidence.attacks[0].prompt_rows = 24;
  CHECK(std::isinf(epsilon()));
  problem.evidence.attacks.push_back({4, "f16", "ridge", 0.1, 3.0, 60.0, 512});
  CHECK(epsilon() == 60.0);
  problem.workload.prompt_tokens = 24;
  CHECK(epsilon() == 60.0);
  CHECK(predict_at(problem, {.cut = 4}).metrics[Metric::kEpsilonPerRow] == 3.0);
}

TEST_CASE("layers of other sizes take their share of the time", "[planner][cost]") {
  Problem problem = plain_problem();
  problem.device.weights[0].layer_bytes.assign(10, 500);
  problem.device.weights[0].layer_bytes[0] = 5500;
  // The first layer has 5,500 of 10,000 bytes: 5.5 of 10 mean layers.
  CHECK(predict_at(problem, {.cut = 1}).device == Approx(0.0055));
}

}  // namespace
}  // namespace isthmus
