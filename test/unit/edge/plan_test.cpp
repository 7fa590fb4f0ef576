#include <isthmus/edge/plan.h>

#include "support/catch.h"

namespace isthmus::edge {
namespace {

planner::PlanFile sample() {
  return {.model = {"llama", 30, 576, 1000},
          .precision = "fast",
          .threads = 3,
          .placement = {.cut = 4, .tail = 28},
          .front_bits = 4,
          .back_bits = 8,
          .kv_bits = 8,
          .context = 512,
          .codec_up = "split:4|rotate|int4|rans",
          .codec_down = "f16"};
}

model::ModelConfig config() {
  model::ModelConfig config;
  config.architecture = "llama";
  config.layer_count = 30;
  config.hidden_size = 576;
  config.vocab_size = 1000;
  return config;
}

TEST_CASE("a plan sets what it decides and leaves the rest", "[edge][plan]") {
  DeviceOptions device{.model = "model.gguf"};
  REQUIRE(apply_plan(sample(), config(), device));
  CHECK(device.model == "model.gguf");
  CHECK(device.cut == 4);
  CHECK(device.tail == 28);
  CHECK(device.threads == 3);
  CHECK(device.engine.precision == engine::Precision::kFast);
  CHECK(device.engine.kv_bits == engine::KvBits::k8);
  CHECK(device.engine.weights.bits(29) == 4);
  CHECK(device.engine.weights.head_bits == 4);

  SessionOptions session{.server = "isthmus://host:1"};
  REQUIRE(apply_plan(sample(), session));
  CHECK(session.server == "isthmus://host:1");
  CHECK(session.max_tokens == 512);
  CHECK(session.codec.to_string() == "split:4|rotate|int4|rans");
  REQUIRE(session.codec_down);
  CHECK(session.codec_down->to_string() == "f16");
}

TEST_CASE("a plan for the device alone has neither cut nor tail", "[edge][plan]") {
  planner::PlanFile plan = sample();
  plan.placement = {.cut = planner::Placement::kLocal};
  plan.codec_up.clear();
  plan.codec_down.clear();
  DeviceOptions device{.cut = 3, .tail = 9};
  REQUIRE(apply_plan(plan, config(), device));
  CHECK_FALSE(device.cut);
  CHECK_FALSE(device.tail);
  SessionOptions session;
  REQUIRE(apply_plan(plan, session));
  CHECK_FALSE(session.codec_down);
}

TEST_CASE("a plan that does not fit is refused", "[edge][plan]") {
  const auto code = [](const planner::PlanFile& plan) {
    DeviceOptions device;
    const Status applied = apply_plan(plan, config(), device);
    REQUIRE_FALSE(applied);
    return applied.error().code;
  };
  planner::PlanFile plan = sample();
  plan.model.layer_count = 31;
  CHECK(code(plan) == ErrorCode::kModelMismatch);
  plan = sample();
  plan.precision = "bf16";
  CHECK(code(plan) == ErrorCode::kInvalidArgument);
  plan = sample();
  plan.kv_bits = 12;
  CHECK(code(plan) == ErrorCode::kInvalidArgument);
  plan = sample();
  plan.front_bits = 3;
  CHECK(code(plan) == ErrorCode::kInvalidArgument);
  plan = sample();
  plan.codec_up = "f17";
  SessionOptions session;
  CHECK_FALSE(apply_plan(plan, session));
}

}  // namespace
}  // namespace isthmus::edge
