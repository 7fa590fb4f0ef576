// The worked example of lib/planner/README.md: real profiles and a real audit (test/data/planner;
// how they were made stands in its README), in which memory, then latency, then privacy move the
// cut.
#include <isthmus/planner/plan_file.h>

#include <fstream>
#include <string>

#include "support/catch.h"

namespace isthmus {
namespace {

using namespace planner;
using test::value_of;

std::string read(const std::string& name) {
  std::ifstream file(std::string(ISTHMUS_TEST_DATA) + "/planner/" + name, std::ios::binary);
  REQUIRE(file.is_open());
  return {std::istreambuf_iterator<char>(file), {}};
}

Problem example() {
  Problem problem;
  problem.device = value_of(parse_machine(read("device.json"), "device.json"));
  problem.server = value_of(parse_machine(read("server.json"), "server.json"));
  problem.link = value_of(parse_link(read("link.json"), "link.json"));
  const Status added = add_evidence(read("audit.json"), "audit.json", problem.evidence);
  REQUIRE(added);
  problem.workload = {.prompt_tokens = 512, .reply_tokens = 128};
  problem.choices.contexts = {1024};
  problem.choices.codecs_up = {"f16", "split:4|rotate|int4|rans"};
  return problem;
}

TEST_CASE("memory, then latency, then privacy move the cut of real measurements",
          "[planner][example]") {
  Problem problem = example();
  const Plan free = *value_of(solve(problem)).plan;
  CHECK(free.placement.is_local());

  // The device has 70 MB: the whole model does not fit.
  problem.constraints = {{Metric::kDeviceMemory, 70e6}};
  const Answer small = value_of(solve(problem));
  REQUIRE(small.plan);
  CHECK_FALSE(small.plan->placement.is_local());
  CHECK(small.local->predicted.metrics[Metric::kDeviceMemory] > 70e6);

  // The first token must be there in 1.55 s: both sides work on the prompt at once, so some of it
  // belongs on the device.
  CHECK(small.plan->predicted.metrics[Metric::kFirstToken] > 1.55);
  problem.constraints.push_back({Metric::kFirstToken, 1.55});
  const Answer quick = value_of(solve(problem));
  REQUIRE(quick.plan);
  CHECK(quick.plan->placement.cut > small.plan->placement.cut);
  CHECK(quick.plan->predicted.metrics[Metric::kFirstToken] <= 1.55);
  REQUIRE_FALSE(quick.binding.empty());
  CHECK(quick.binding.front().constraint.metric == Metric::kFirstToken);

  // No audited attack may read more than three quarters of the tokens. Most cuts were not audited:
  // they do not qualify, however deep.
  problem.constraints.push_back({Metric::kAttack, 0.75});
  const Answer quiet = value_of(solve(problem));
  REQUIRE(quiet.plan);
  CHECK(quiet.plan->placement.cut > quick.plan->placement.cut);
  CHECK(quiet.plan->predicted.metrics[Metric::kAttack] <= 0.75);
  CHECK(quiet.plan->predicted.metrics[Metric::kToken] >
        quick.plan->predicted.metrics[Metric::kToken]);
  for (const Rejection& rejection : quiet.census.rejections)
    CHECK((rejection.unmeasured > 0) == (rejection.constraint.metric == Metric::kAttack));

  // Without a mechanism nothing is promised, so no epsilon can be had.
  problem.constraints.push_back({Metric::kEpsilonPerPrompt, 8});
  const Answer none = value_of(solve(problem));
  CHECK_FALSE(none.plan);
  REQUIRE(none.nearest);
  CHECK(none.nearest->placement.is_local());
}

}  // namespace
}  // namespace isthmus
