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
    // The question in it has the same answer.
    const Problem again = value_of(parse_problem(text, "plan.json"));
    CHECK(to_json(again, value_of(solve(again))) == text);
    ++plans;
  }
  CHECK(plans > 50);
}

Problem split_problem() {
  Problem asked;
  asked.device = asked.server = test::plain_machine(6, 0.001);
  asked.link = {.rtt_seconds = 0.01,
                .rtt_p95_seconds = 0.02,
                .up_bits_per_second = 1e6,
                .down_bits_per_second = 1e6};
  asked.choices.contexts = {1024};
  asked.choices.local = false;
  return value_of(asked.completed());
}

json plan_document() {
  const Problem problem = split_problem();
  return json::parse(to_json(problem, value_of(solve(problem))));
}

TEST_CASE("a broken plan is refused by the field's name", "[planner][plan_file]") {
  const json good = plan_document();
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

TEST_CASE("a broken problem is refused by the field's name", "[planner][plan_file]") {
  const json good = plan_document();
  REQUIRE(parse_problem(good.dump(), "plan.json"));
  const auto refused = [&](const std::function<void(json&)>& change, const std::string& field) {
    json document = good;
    change(document["problem"]);
    const auto problem = parse_problem(document.dump(), "plan.json");
    CAPTURE(field);
    REQUIRE_FALSE(problem);
    CAPTURE(problem.error().message);
    CHECK(problem.error().message.find(field) != std::string::npos);
  };
  for (const char* key : {"device", "server", "link", "evidence", "workload", "choices",
                          "objective", "constraints", "axes"}) {
    refused([&](json& p) { p.erase(key); }, key);
    refused([&](json& p) { p[key] = 7; }, key);
  }
  for (const char* key : {"prompt_tokens", "reply_tokens", "sessions", "chunk_tokens"}) {
    refused([&](json& p) { p["workload"][key] = 0; }, key);
    refused([&](json& p) { p["workload"][key] = 1.5; }, key);
  }
  refused([](json& p) { p["choices"]["front_bits"] = {8.5}; }, "front_bits");
  refused([](json& p) { p["choices"]["front_bits"] = {5}; }, "front_bits");
  refused([](json& p) { p["choices"]["codecs_up"] = {1}; }, "codecs_up");
  refused([](json& p) { p["choices"]["contexts"] = {-1}; }, "contexts");
  refused([](json& p) { p["objective"] = "beauty"; }, "objective");
  refused([](json& p) { p["axes"] = {"beauty"}; }, "axis");
  refused([](json& p) { p["constraints"][0]["metric"] = "beauty"; }, "metric");
  refused([](json& p) { p["constraints"][0]["limit"] = "much"; }, "limit");
  refused([](json& p) { p["constraints"].push_back(p["constraints"][0]); }, "twice");
  refused([](json& p) { p["server"]["model"]["layer_count"] = 5; }, "layer");
}

TEST_CASE("a problem of another model than its plan is refused", "[planner][plan_file]") {
  json document = plan_document();
  document["model"]["vocab_size"] = 7;
  const auto problem = parse_problem(document.dump(), "plan.json");
  REQUIRE_FALSE(problem);
  CHECK(problem.error().code == ErrorCode::kModelMismatch);
  CHECK(problem.error().message.find("plan.json") != std::string::npos);
}

}  // namespace
}  // namespace isthmus
