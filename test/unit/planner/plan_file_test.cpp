#include <isthmus/planner/plan_file.h>

#include <functional>
#include <nlohmann/json.hpp>

#include "instances.h"
#include "support/catch.h"

namespace isthmus {
namespace {

using namespace planner;
using nlohmann::json;
using test::value_of;

TEST_CASE("a plan file says what the answer says", "[planner][plan_file]") {
  test::Instances instances(12);
  int plans = 0;
  for (int i = 0; i < 300; ++i) {
    CAPTURE(i);
    const Problem problem = value_of(instances.problem().completed());
    const Answer answer = value_of(solve(problem));
    const std::string text = to_json(problem, answer);
    const auto file = parse_plan(text, "plan.json");
    if (!answer.plan) {
      REQUIRE_FALSE(file);
      CHECK(file.error().code == ErrorCode::kNotFound);
      continue;
    }
    REQUIRE(file);
    CHECK(file->placement == answer.plan->placement);
    CHECK(file->front_bits == answer.plan->front_bits);
    CHECK(file->context == answer.plan->context);
    CHECK(file->codec_up == answer.plan->codec_up);
    CHECK(file->codec_down == answer.plan->codec_down);
    CHECK(file->model == problem.device.model);
    CHECK(file->token_seconds == answer.plan->predicted.metrics[Metric::kToken]);
    const json document = json::parse(text);
    for (const char* key : {"plan", "predicted", "why", "binding", "rejected", "pareto"})
      CHECK(document.contains(key));
    CHECK(document["rejected"]["candidates"] == answer.census.candidates);
    CHECK(document["pareto"].size() == answer.pareto.size());
    CHECK_FALSE(document["why"].empty());
    ++plans;
  }
  CHECK(plans > 50);
}

TEST_CASE("a broken plan is refused by the field's name", "[planner][plan_file]") {
  Problem asked;
  asked.device = asked.server = test::plain_machine(6, 0.001);
  asked.link = {.rtt_seconds = 0.01,
                .rtt_p95_seconds = 0.02,
                .up_bits_per_second = 1e6,
                .down_bits_per_second = 1e6};
  asked.choices.contexts = {1024};
  asked.choices.local = false;
  const Problem problem = value_of(asked.completed());
  const json good = json::parse(to_json(problem, value_of(solve(problem))));
  REQUIRE(parse_plan(good.dump(), "plan.json"));
  const auto refused = [&](const std::function<void(json&)>& change, const std::string& field) {
    json document = good;
    change(document);
    const auto file = parse_plan(document.dump(), "plan.json");
    CAPTURE(field);
    REQUIRE_FALSE(file);
    CAPTURE(file.error().message);
    CHECK(file.error().message.find(field) != std::string::npos);
    CHECK(file.error().message.find("plan.json") != std::string::npos);
  };
  for (const char* key : {"isthmus_plan", "model", "precision", "threads", "predicted"})
    refused([&](json& d) { d.erase(key); }, key);
  for (const char* key : {"local", "cut", "front_bits", "back_bits", "kv_bits", "context"}) {
    refused([&](json& d) { d["plan"].erase(key); }, key);
    refused([&](json& d) { d["plan"][key] = "x"; }, key);
  }
  refused([](json& d) { d["isthmus_plan"] = 2; }, "isthmus_plan");
  refused([](json& d) { d["plan"]["cut"] = 7; }, "cut");
  refused([](json& d) { d["plan"]["tail"] = 0; }, "tail");
  refused([](json& d) { d["plan"]["codec_up"] = nullptr; }, "codec_up");
  refused([](json& d) { d["plan"]["codec_down"] = "f16"; }, "codec_down");
  refused([](json& d) { d["plan"] = nullptr; }, "no plan");
}

}  // namespace
}  // namespace isthmus
