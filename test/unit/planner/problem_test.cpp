#include <isthmus/planner/planner.h>

#include <functional>
#include <limits>

#include "instances.h"
#include "support/catch.h"

namespace isthmus {
namespace {

using namespace planner;
using test::value_of;

Problem plain() {
  Problem problem;
  problem.device = test::plain_machine(6, 0.001);
  problem.server = test::plain_machine(6, 0.0001);
  problem.link = {.rtt_seconds = 0.01,
                  .rtt_p95_seconds = 0.02,
                  .up_bits_per_second = 1e6,
                  .down_bits_per_second = 1e6};
  problem.choices.contexts = {1024};
  return problem;
}

void refused(const std::function<void(Problem&)>& change, const std::string& part,
             ErrorCode code = ErrorCode::kInvalidArgument) {
  Problem problem = plain();
  change(problem);
  const auto answer = solve(problem);
  CAPTURE(part);
  REQUIRE_FALSE(answer);
  CAPTURE(answer.error().message);
  CHECK(answer.error().code == code);
  CHECK(answer.error().message.starts_with("planner: "));
  CHECK(answer.error().message.find(part) != std::string::npos);
}

TEST_CASE("an incomplete problem is completed from the profiles", "[planner][problem]") {
  const Problem problem = value_of(plain().completed());
  CHECK(problem.choices.front_bits == std::vector<int32_t>{8});
  CHECK(problem.choices.codecs_up == std::vector<std::string>{"f16"});
  CHECK(problem.constraints ==
        std::vector<Constraint>{{Metric::kDeviceMemory, 1e9}, {Metric::kServerMemory, 1e9}});
}

TEST_CASE("a question that cannot be answered is an error", "[planner][problem]") {
  refused([](Problem& p) { p.server.model.layer_count = 7; }, "layer_bytes", ErrorCode::kCorrupt);
  refused([](Problem& p) { p.server.model.vocab_size = 7; }, "vocabulary 7",
          ErrorCode::kModelMismatch);
  refused([](Problem& p) { p.link.up_bits_per_second = 0; }, "up_bits_per_second",
          ErrorCode::kCorrupt);
  refused([](Problem& p) { p.workload.prompt_tokens = 0; }, "prompt_tokens");
  refused([](Problem& p) { p.workload.chunks_in_flight = 65; }, "chunks_in_flight");
  refused([](Problem& p) { p.choices.contexts.clear(); }, "contexts");
  refused([](Problem& p) { p.choices.contexts = {600}; }, "contexts");
  refused([](Problem& p) { p.choices.front_bits = {4}; }, "front_bits has 4");
  refused([](Problem& p) { p.choices.kv_bits = {16, 16}; }, "twice");
  refused([](Problem& p) { p.choices.codecs_up = {"int3"}; }, "'int3'");
  refused([](Problem& p) { p.server.codecs[0].spec = "f32"; }, "codecs_up");
  refused([](Problem& p) { p.choices.min_cut = 7; }, "min_cut");
  refused([](Problem& p) { p.choices.contexts.assign(65, 1024); }, "choices");
  refused(
      [](Problem& p) {
        p.device = test::plain_machine(4096, 0.001);
        p.server = p.device;
      },
      "settings", ErrorCode::kTooLarge);
}

TEST_CASE("a mechanism is for the way up alone", "[planner][problem]") {
  const std::string spec = "clip:max=2|binomial:4:mu=52|rans";
  Problem problem = plain();
  for (MachineProfile* machine : {&problem.device, &problem.server}) {
    machine->codecs.push_back(machine->codecs.front());
    machine->codecs.back().spec = spec;
  }
  problem.device.codecs.back().up_only = true;
  const Problem completed = value_of(problem.completed());
  CHECK(completed.choices.codecs_up == std::vector<std::string>{"f16", spec});
  CHECK(completed.choices.codecs_down == std::vector<std::string>{"f16"});
  problem.choices.codecs_down = {spec};
  const auto refused = problem.completed();
  REQUIRE_FALSE(refused);
  CHECK(refused.error().message.find("no mechanism") != std::string::npos);
  // Without a tail nothing has to come back by a codec.
  problem.choices.codecs_down.clear();
  problem.device.codecs.erase(problem.device.codecs.begin());
  CHECK_FALSE(problem.completed());
  problem.choices.tails = false;
  problem.choices.local = false;
  const Answer answer = value_of(solve(problem));
  REQUIRE(answer.plan);
  CHECK(answer.plan->codec_up == spec);
}

TEST_CASE("what was made for one cut crosses there and nowhere else", "[planner][problem]") {
  const std::string spec = "proj:8:0123456789abcdef|int4";
  Problem problem = plain();
  for (MachineProfile* machine : {&problem.device, &problem.server}) {
    machine->codecs.push_back(machine->codecs.front());
    machine->codecs.back().spec = spec;
    machine->codecs.back().made_for_cut = 2;
    machine->codecs.back().sizes = {{.cut = 2, .bytes = {.fixed = 0, .per_row = 4}}};
  }
  CHECK(value_of(problem.completed()).choices.codecs_up == std::vector<std::string>{"f16", spec});
  CHECK(value_of(problem.completed()).choices.codecs_down == std::vector<std::string>{"f16"});
  problem.objective = Metric::kTraffic;
  problem.choices.local = false;
  const Answer least = value_of(solve(problem));
  REQUIRE(least.plan);
  CHECK(least.plan->placement.cut == 2);
  CHECK(least.plan->codec_up == spec);
  problem.choices.codecs_up = {spec};
  for (const Placement& placement : placements(value_of(problem.completed())))
    CHECK(placement.cut == 2);

  const auto refused_with = [&](const auto& change, std::string_view part) {
    Problem changed = problem;
    change(changed);
    const auto completed = changed.completed();
    REQUIRE_FALSE(completed);
    CAPTURE(completed.error().message);
    CHECK(completed.error().message.find(part) != std::string::npos);
  };
  refused_with([](Problem& p) { p.choices.min_cut = 3; }, "cuts below 3");
  refused_with([](Problem& p) { p.server.codecs.back().made_for_cut = 1; }, "different cuts");
  refused_with([](Problem& p) { p.choices.codecs_down = p.choices.codecs_up; }, "codecs_down");
  refused_with([](Problem& p) { p.device.codecs.back().made_for_cut = 99; }, "made_for_cut");
}

TEST_CASE("limits that contradict or make no sense are errors", "[planner][problem]") {
  refused([](Problem& p) { p.constraints = {{Metric::kToken, 1}, {Metric::kToken, 2}}; }, "twice");
  refused([](Problem& p) { p.constraints = {{Metric::kToken, -1}}; }, "below 0");
  refused([](Problem& p) { p.constraints = {{Metric::kContext, 512}}; }, "context");
  refused(
      [](Problem& p) {
        p.constraints = {{Metric::kToken, std::numeric_limits<double>::quiet_NaN()}};
      },
      "finite");
  refused(
      [](Problem& p) {
        p.evidence.attacks = {{0, "f16", "ridge", 0.5, {}, {}}};
        p.constraints = {{Metric::kAttack, 2}};
      },
      "share");
  refused([](Problem& p) { p.axes = {Metric::kToken, Metric::kToken}; }, "axis");
}

TEST_CASE("what was never measured cannot be asked for", "[planner][problem]") {
  refused([](Problem& p) { p.objective = Metric::kEnergy; }, "watts");
  refused([](Problem& p) { p.constraints = {{Metric::kQuality, 0.01}}; }, "no evaluation");
  refused([](Problem& p) { p.constraints = {{Metric::kAttack, 0.5}}; }, "no audit");
  refused([](Problem& p) { p.axes = {Metric::kEpsilonPerPrompt}; }, "no audit");
  refused(
      [](Problem& p) {
        p.evidence.codecs = {{0, "f16", 0.1}};
        p.objective = Metric::kQuality;
      },
      "weights");
}

TEST_CASE("names of metrics read back", "[planner][problem]") {
  for (size_t i = 0; i < kMetricCount; ++i) {
    const auto metric = static_cast<Metric>(i);
    CHECK(value_of(parse_metric(to_string(metric))) == metric);
  }
  const auto unknown = parse_metric("beauty");
  REQUIRE_FALSE(unknown);
  CHECK(unknown.error().message.find("first_token") != std::string::npos);
}

TEST_CASE("limits that cannot be met together are explained, not answered", "[planner][problem]") {
  Problem problem = plain();
  // Two layers fit the device; and no placement without the wire is as fast as 5 ms.
  problem.constraints = {{Metric::kDeviceMemory, 100 + 2 * (1000 + 1024 * 10)},
                         {Metric::kToken, 0.005}};
  const Answer answer = value_of(solve(problem));
  CHECK_FALSE(answer.plan);
  CHECK(answer.census.feasible == 0);
  REQUIRE(answer.nearest);
  REQUIRE_FALSE(answer.changes.empty());
  CHECK(answer.local.has_value());
  CHECK(answer.all_server.has_value());
}

TEST_CASE("placements come once, in the documented order", "[planner][problem]") {
  const std::vector<Placement> list = placements(value_of(plain().completed()));
  REQUIRE(list.size() == 1 + 7 + 21);
  CHECK(list[0] == Placement{.cut = Placement::kLocal});
  CHECK(list[1] == Placement{.cut = 0});
  CHECK(list[2] == Placement{.cut = 0, .tail = 6});
  CHECK(list[3] == Placement{.cut = 0, .tail = 5});
  CHECK(list.back() == Placement{.cut = 6});
}

}  // namespace
}  // namespace isthmus
