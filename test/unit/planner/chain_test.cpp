// Chains of machines against every way to cut the model.
#include <isthmus/planner/chain.h>

#include <algorithm>
#include <cmath>
#include <functional>

#include "instances.h"
#include "support/catch.h"

namespace isthmus {
namespace {

using namespace planner;

/// Every chain of a problem: ends and bits.
void for_each_chain(const ChainProblem& problem, ChainPlan& chain, size_t i, int32_t first,
                    const std::function<void(const ChainPlan&)>& visit) {
  const int32_t layers = problem.stages.front().profile.model.layer_count;
  for (int32_t end = first; end <= layers; ++end) {
    for (const WeightCost& weights : problem.stages[i].profile.weights) {
      chain.ends.push_back(end);
      chain.bits.push_back(weights.bits);
      if (end == layers) visit(chain);
      if (i + 1 < problem.stages.size()) for_each_chain(problem, chain, i + 1, end, visit);
      chain.ends.pop_back();
      chain.bits.pop_back();
    }
  }
}

ChainProblem random_chain(test::Instances& random) {
  const ModelShape model{.architecture = "llama",
                         .layer_count = random.between(1, 6),
                         .hidden_size = 8,
                         .vocab_size = 100};
  ChainProblem problem;
  problem.context = 64;
  problem.position = random.between(0, 50);
  problem.objective = random.coin() ? ChainObjective::kToken : ChainObjective::kThroughput;
  for (int32_t i = random.between(1, 4); i > 0; --i) {
    problem.stages.push_back({.profile = random.machine(model, {"f16", "int4"}),
                              .memory_bytes = 1000.0 * random.between(3, 20),
                              .link = random.link(),
                              .codec = random.coin() ? "f16" : "int4"});
  }
  return problem;
}

TEST_CASE("the chain programme equals every chain tried, on 10,000 random problems",
          "[planner][chain]") {
  test::Instances random(11);
  int solved = 0;
  int unfit = 0;
  for (int i = 0; i < 10'000; ++i) {
    CAPTURE(i);
    const ChainProblem problem = random_chain(random);
    double least = std::numeric_limits<double>::infinity();
    ChainPlan chain;
    for_each_chain(problem, chain, 0, 0, [&](const ChainPlan& tried) {
      least = std::min(least, chain_seconds(problem, tried));
    });
    const auto plan = plan_chain(problem);
    if (std::isinf(least)) {
      REQUIRE_FALSE(plan);
      CHECK(plan.error().code == ErrorCode::kOutOfMemory);
      ++unfit;
      continue;
    }
    REQUIRE(plan);
    CHECK(plan->seconds == least);
    CHECK(chain_seconds(problem, *plan) == plan->seconds);
    CHECK(plan->ends.back() == problem.stages.front().profile.model.layer_count);
    CHECK(std::is_sorted(plan->ends.begin(), plan->ends.end()));
    ++solved;
  }
  CHECK(solved > 3000);
  CHECK(unfit > 300);
}

TEST_CASE("a chain of one machine and a chain of two equal hand-made figures", "[planner][chain]") {
  ChainProblem problem;
  problem.context = 10;
  problem.position = 0;
  problem.stages = {{.profile = test::plain_machine(10, 0.001)},
                    {.profile = test::plain_machine(10, 0.0001),
                     .link = {.rtt_seconds = 0.001,
                              .rtt_p95_seconds = 0.001,
                              .up_bits_per_second = 1.6e6,
                              .down_bits_per_second = 3.2e5},
                     .codec = "f16"}};
  // Ten layers and the head on the device take 12 ms. On the server they take 1.2 ms, but it costs
  // 1 ms each for the round trip and both directions, and 3 ms for the codec: 7.2 ms.
  const auto two = plan_chain(problem);
  REQUIRE(two);
  CHECK(two->ends == std::vector<int32_t>{0, 10});
  CHECK(two->seconds == Approx(0.0072));
  problem.stages[1].link.rtt_seconds = problem.stages[1].link.rtt_p95_seconds = 0.1;
  const auto one = plan_chain(problem);
  REQUIRE(one);
  CHECK(one->ends == std::vector<int32_t>{10});
  CHECK(one->seconds == Approx(0.012));
}

TEST_CASE("a chain that cannot be priced is refused", "[planner][chain]") {
  test::Instances random(1);
  const auto refused = [](const ChainProblem& problem, ErrorCode code) {
    const auto plan = plan_chain(problem);
    REQUIRE_FALSE(plan);
    CHECK(plan.error().code == code);
    CHECK(plan.error().message.starts_with("planner: "));
  };
  refused({}, ErrorCode::kInvalidArgument);
  ChainProblem problem = random_chain(random);
  problem.stages.resize(1);
  problem.stages.push_back(problem.stages[0]);
  ChainProblem broken = problem;
  broken.stages[1].codec = "unheard";
  refused(broken, ErrorCode::kInvalidArgument);
  broken = problem;
  broken.stages[1].memory_bytes = 0;
  refused(broken, ErrorCode::kInvalidArgument);
  broken = problem;
  broken.stages[1].profile.model.vocab_size = 5;
  refused(broken, ErrorCode::kModelMismatch);
  broken = problem;
  broken.context = 0;
  refused(broken, ErrorCode::kInvalidArgument);
}

}  // namespace
}  // namespace isthmus
