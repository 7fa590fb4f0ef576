#include <isthmus/edge/plan.h>

namespace isthmus::edge {
namespace {

tl::unexpected<Error> unknown(const std::string& what) {
  return fail(ErrorCode::kInvalidArgument, "edge: the plan asks for " + what);
}

}  // namespace

Status apply_plan(const planner::PlanFile& plan, const model::ModelConfig& config,
                  DeviceOptions& options) {
  if (plan.model.architecture != config.architecture ||
      plan.model.layer_count != config.layer_count ||
      plan.model.hidden_size != config.hidden_size || plan.model.vocab_size != config.vocab_size) {
    return fail(ErrorCode::kModelMismatch, "edge: the plan is for a " + plan.model.architecture +
                                               " with " + std::to_string(plan.model.layer_count) +
                                               " layers, the model is a " + config.architecture +
                                               " with " + std::to_string(config.layer_count) +
                                               " layers, or of other sizes");
  }
  if (plan.kv_bits != 8 && plan.kv_bits != 16)
    return unknown("a cache of " + std::to_string(plan.kv_bits) + " bits, not 8 or 16");
  const auto precision = engine::find_precision(plan.precision);
  if (!precision) return unknown("precision '" + plan.precision + "', which no device has");
  engine::CpuEngineOptions engine;
  engine.precision = *precision;
  engine.kv_bits = plan.kv_bits == 8 ? engine::KvBits::k8 : engine::KvBits::k16;
  engine.weights.ranges = {{{0, config.layer_count}, plan.front_bits}};
  engine.weights.head_bits = plan.front_bits;
  ISTHMUS_TRY(engine.weights.validate());
  options.engine = engine;
  options.threads = static_cast<size_t>(plan.threads);
  options.cut.reset();
  options.tail.reset();
  if (!plan.placement.is_local()) options.cut = plan.placement.cut;
  if (plan.placement.has_tail()) options.tail = plan.placement.tail;
  return {};
}

Status apply_plan(const planner::PlanFile& plan, SessionOptions& options) {
  options.max_tokens = plan.context;
  if (!plan.codec_up.empty()) {
    ISTHMUS_ASSIGN(options.codec, codec::CodecSpec::parse(plan.codec_up));
  }
  options.codec_down.reset();
  if (!plan.codec_down.empty()) {
    ISTHMUS_ASSIGN(options.codec_down, codec::CodecSpec::parse(plan.codec_down));
  }
  return {};
}

}  // namespace isthmus::edge
