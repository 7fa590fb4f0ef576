// Problems for the planner's tests: a plain one that can be worked out by hand, and random ones.
#pragma once

#include <isthmus/planner/planner.h>

#include <algorithm>
#include <random>
#include <string>
#include <vector>

namespace isthmus::test {

/// A machine on which everything is linear: `layer_s` a layer and token, nothing for the call.
inline planner::MachineProfile plain_machine(int32_t layer_count, double layer_s) {
  planner::MachineProfile machine;
  machine.machine = "plain";
  machine.precision = "fine";
  machine.model = {
      .architecture = "llama", .layer_count = layer_count, .hidden_size = 64, .vocab_size = 1000};
  planner::WeightCost weights{.bits = 8,
                              .layer_bytes = std::vector<uint64_t>(layer_count, 1000),
                              .head_bytes = 5000,
                              .head_seconds = 2 * layer_s};
  weights.time = {.layers = {0, static_cast<double>(layer_count)},
                  .tokens = {1, 101},
                  .seconds = {0, 0, layer_count * layer_s, 101 * layer_count * layer_s}};
  machine.weights = {weights};
  machine.kv = {{.bits = 16, .bytes_per_token_and_layer = 10, .seconds_per_pair_and_layer = 0}};
  machine.codecs = {{.spec = "f16",
                     .encode_seconds = {.fixed = 0, .per_row = 0.001},
                     .decode_seconds = {.fixed = 0, .per_row = 0.002},
                     .sizes = {{.cut = 0, .bytes = {.fixed = 0, .per_row = 122}}}}};
  machine.base_bytes = 100;
  machine.free_bytes = 1e9;
  return machine;
}

/// Random problems of one shape after the other. All numbers come from a small set, so that ties
/// are common.
class Instances {
 public:
  explicit Instances(uint32_t seed) : random_(seed) {}

  int32_t between(int32_t low, int32_t high) {
    return std::uniform_int_distribution<int32_t>(low, high)(random_);
  }
  bool coin() { return between(0, 1) == 1; }
  double step(double unit, int32_t most) { return unit * between(0, most); }

  planner::MachineProfile machine(const planner::ModelShape& model,
                                  const std::vector<std::string>& specs) {
    planner::MachineProfile profile;
    profile.machine = "random";
    profile.precision = "fine";
    profile.model = model;
    for (const int32_t bits : {8, 4}) {
      if (bits == 4 && coin()) continue;
      profile.weights.push_back(weights(model.layer_count, bits));
    }
    for (const int32_t bits : {16, 8}) {
      profile.kv.push_back({.bits = bits,
                            .bytes_per_token_and_layer = static_cast<double>(bits),
                            .seconds_per_pair_and_layer = step(1e-6, 2)});
    }
    for (const std::string& spec : specs) profile.codecs.push_back(codec(spec, model.layer_count));
    profile.base_bytes = step(1000, 3);
    profile.free_bytes = 1e12;
    if (coin()) profile.idle = {{0, 0.5}, {0.02, 1.0}, {0.04, 1.0 * between(1, 2)}};
    profile.watts = planner::Watts{.computing = step(1, 5), .waiting = step(1, 5)};
    return profile;
  }

  planner::Problem problem() {
    const planner::ModelShape model{
        .architecture = "llama", .layer_count = between(1, 5), .hidden_size = 8, .vocab_size = 100};
    std::vector<std::string> specs = {"f32", "f16", "int4"};
    specs.resize(between(1, 3));
    planner::Problem problem;
    problem.device = machine(model, specs);
    problem.server = machine(model, specs);
    if (specs.size() > 1 && coin()) {  // an artefact; the first crosses anywhere
      const int32_t cut = between(0, model.layer_count);
      problem.device.codecs.back().made_for_cut = problem.server.codecs.back().made_for_cut = cut;
    }
    problem.link = link();
    problem.workload = {.prompt_tokens = between(1, 40),
                        .reply_tokens = between(1, 8),
                        .sessions = between(1, 3),
                        .chunk_tokens = between(4, 16),
                        .chunks_in_flight = between(1, 3)};
    problem.choices.local = coin();
    problem.choices.tails = coin();
    problem.choices.contexts = {256, 64, 128};
    problem.choices.contexts.resize(between(1, 3));
    problem.evidence = evidence(model.layer_count, specs);
    problem.objective = metric();
    for (int32_t i = between(0, 3); i > 0; --i) add_constraint(problem);
    for (int32_t i = between(1, 3); i > 0; --i) {
      const planner::Metric axis = metric();
      if (std::find(problem.axes.begin(), problem.axes.end(), axis) == problem.axes.end())
        problem.axes.push_back(axis);
    }
    return problem;
  }

  planner::LinkProfile link() {
    const double rtt = step(0.01, 4);
    return {.rtt_seconds = rtt,
            .rtt_p95_seconds = 2 * rtt,
            .up_bits_per_second = 1e4 * between(1, 100),
            .down_bits_per_second = 1e4 * between(1, 100)};
  }

  planner::Metric metric() {
    return static_cast<planner::Metric>(
        between(0, static_cast<int32_t>(planner::kMetricCount) - 1));
  }

 private:
  planner::WeightCost weights(int32_t layer_count, int32_t bits) {
    planner::WeightCost cost{.bits = bits, .head_bytes = 1000, .head_seconds = step(0.001, 5)};
    for (int32_t i = 0; i < layer_count; ++i) cost.layer_bytes.push_back(1000 * between(1, 3));
    cost.time.layers = {0, static_cast<double>(layer_count)};
    cost.time.tokens = {1, 8, 16};
    for (int32_t i = 0; i < 6; ++i) cost.time.seconds.push_back(step(0.001, 20));
    return cost;
  }

  planner::CodecCost codec(const std::string& spec, int32_t layer_count) {
    planner::CodecCost cost{.spec = spec,
                            .encode_seconds = {step(0.001, 2), step(0.001, 2)},
                            .decode_seconds = {step(0.001, 2), step(0.001, 2)}};
    cost.sizes = {{.cut = 0, .bytes = {step(10, 2), 10.0 * between(1, 9)}},
                  {.cut = layer_count, .bytes = {step(10, 2), 10.0 * between(1, 9)}}};
    return cost;
  }

  planner::Evidence evidence(int32_t layer_count, const std::vector<std::string>& specs) {
    planner::Evidence found;
    for (int32_t cut = 0; cut <= layer_count; ++cut) {
      for (const std::string& spec : specs) {
        if (coin()) found.codecs.push_back({cut, spec, step(0.01, 4) - 0.01});
        if (coin()) continue;
        found.attacks.push_back({cut, spec, "ridge", step(0.25, 4), std::nullopt, std::nullopt});
        if (coin()) found.attacks.back().epsilon_per_row = step(1, 5);
        if (coin()) found.attacks.back().epsilon_per_prompt = step(10, 5);
        found.attacks.back().prompt_rows = 30;  // fewer than some prompts
      }
      for (const int32_t front : {8, 4})
        for (const int32_t back : {8, 4})
          for (const int32_t kv : {16, 8})
            if (coin()) found.weights.push_back({cut, "fine", front, back, kv, step(0.01, 3)});
    }
    // Something of each kind, so that asking for it is allowed.
    found.codecs.push_back({0, specs.front(), 0.01});
    found.weights.push_back({0, "fine", 8, 8, 16, 0});
    found.attacks.push_back({0, specs.front(), "ridge", 0.5, std::nullopt, std::nullopt});
    return found;
  }

  // A limit that some candidate meets exactly, so that limits are tight.
  void add_constraint(planner::Problem& problem) {
    const planner::Metric limited = metric();
    for (const planner::Constraint& constraint : problem.constraints)
      if (constraint.metric == limited) return;
    planner::Problem open = problem;
    open.constraints.clear();
    const auto completed = open.completed();
    if (!completed) return;
    const auto list = planner::placements(*completed);
    const planner::Candidate some{
        .placement = static_cast<uint32_t>(between(0, static_cast<int32_t>(list.size()) - 1))};
    double limit = planner::predict(*completed, some).metrics[limited];
    if (!(limit < 1e12)) limit = 0;
    if (limited == planner::Metric::kContext) limit = -100;
    problem.constraints.push_back({limited, limit});
  }

  std::mt19937 random_;
};

}  // namespace isthmus::test
