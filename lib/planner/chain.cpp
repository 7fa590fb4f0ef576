#include <isthmus/planner/chain.h>

#include <algorithm>
#include <numeric>

namespace isthmus::planner {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kBitsPerByte = 8;

std::string stage_name(size_t i) {
  return "planner: chain: machine " + std::to_string(i);
}

/// Costs of a chain's pieces for one decoded token.
class Costs {
 public:
  explicit Costs(const ChainProblem& problem) : problem_(problem) {}

  [[nodiscard]] int32_t layer_count() const {
    return problem_.stages.front().profile.model.layer_count;
  }

  /// Machine `i` on layers [first, end) at one precision: with the head when it is the `last`, else
  /// with encoding for the next, and with decoding what the one before it sent. Infinite when it
  /// does not fit, or when there is no next.
  [[nodiscard]] double busy(size_t i, const WeightCost& weights, int32_t first, int32_t end,
                            bool last) const {
    if (!last && i + 1 == problem_.stages.size()) return kInfinity;
    const ChainStage& stage = problem_.stages[i];
    const auto begin = weights.layer_bytes.begin();
    const auto bytes =
        static_cast<double>(std::accumulate(begin + first, begin + end, uint64_t{0}));
    const auto all =
        static_cast<double>(std::accumulate(begin, weights.layer_bytes.end(), uint64_t{0}));
    const KvCost& kv = stage.profile.kv.front();
    const double memory = stage.profile.base_bytes + bytes +
                          (last ? static_cast<double>(weights.head_bytes) : 0) +
                          kv.bytes_per_token_and_layer * (end - first) * problem_.context;
    if (memory > stage.memory_bytes) return kInfinity;
    double seconds = i == 0 ? 0 : stage.profile.find_codec(stage.codec)->decode_seconds.at(1);
    if (end > first || i == 0) {
      seconds += segment_seconds(weights, kv, end - first, layer_count() * bytes / all, 1,
                                 problem_.position);
    }
    if (last) return seconds + weights.head_seconds;
    const std::string& next = problem_.stages[i + 1].codec;
    return seconds + stage.profile.find_codec(next)->encode_seconds.at(1);
  }

  /// The least `busy` over the machine's precisions, and which it is; the first among equals.
  [[nodiscard]] std::pair<double, int32_t> busy(size_t i, int32_t first, int32_t end,
                                                bool last) const {
    const std::vector<WeightCost>& list = problem_.stages[i].profile.weights;
    std::pair<double, int32_t> best{kInfinity, list.front().bits};
    for (const WeightCost& weights : list) {
      const double seconds = busy(i, weights, first, end, last);
      if (seconds < best.first) best = {seconds, weights.bits};
    }
    return best;
  }

  /// The link to machine `i`: a row at `cut`, and the token back.
  [[nodiscard]] double pass(size_t i, int32_t cut) const {
    if (i == 0) return 0;
    const ChainStage& stage = problem_.stages[i];
    const CodecCost& sender = *problem_.stages[i - 1].profile.find_codec(stage.codec);
    const double up =
        kBitsPerByte * (sender.bytes(cut, 1) + kStepOverheadBytes) / stage.link.up_bits_per_second;
    const double down = kBitsPerByte * kAnswerOverheadBytes / stage.link.down_bits_per_second;
    if (problem_.objective == ChainObjective::kThroughput) return std::max(up, down);
    return stage.link.rtt_seconds + up + down;
  }

  [[nodiscard]] double join(double before, double piece) const {
    return problem_.objective == ChainObjective::kThroughput ? std::max(before, piece)
                                                             : before + piece;
  }

 private:
  const ChainProblem& problem_;
};

/// The best way to have run layers [0, end) on the machines so far.
struct State {
  double seconds = kInfinity;
  int32_t before = 0;  // where the last machine's segment begins
  int32_t bits = 0;
};

}  // namespace

Status ChainProblem::validate() const {
  const auto invalid = [](const std::string& what) {
    return fail(ErrorCode::kInvalidArgument, what);
  };
  if (stages.empty()) return invalid("planner: chain: there is no machine");
  if (context < 1 || position < 0)
    return invalid("planner: chain: context must be at least 1, position at least 0");
  for (size_t i = 0; i < stages.size(); ++i) {
    ISTHMUS_TRY(stages[i].profile.validate());
    if (stages[i].profile.model != stages.front().profile.model)
      return fail(ErrorCode::kModelMismatch, stage_name(i) + " was profiled with another model");
    if (!(stages[i].memory_bytes > 0)) return invalid(stage_name(i) + " has no memory");
    if (i == 0) continue;
    ISTHMUS_TRY(stages[i].link.validate());
    const CodecCost* codec = stages[i].profile.find_codec(stages[i].codec);
    if (codec == nullptr || stages[i - 1].profile.find_codec(stages[i].codec) == nullptr) {
      return invalid(stage_name(i) + ": codec '" + stages[i].codec +
                     "' was not profiled on both of its ends");
    }
    if (codec->made_for_cut)
      return invalid(stage_name(i) + ": codec '" + codec->spec + "' was made for one cut");
  }
  return {};
}

Result<ChainPlan> plan_chain(const ChainProblem& problem) {
  ISTHMUS_TRY(problem.validate());
  const Costs costs(problem);
  const int32_t layers = costs.layer_count();
  const size_t width = static_cast<size_t>(layers) + 1;
  std::vector<std::vector<State>> states;
  ChainPlan plan{.seconds = kInfinity};
  for (size_t i = 0; i < problem.stages.size(); ++i) {
    // `last`: this machine ends the chain with layer L and the head. `row[end]`: it does not.
    std::vector<State> row(width);
    State last;
    for (int32_t first = 0; first <= (i == 0 ? 0 : layers); ++first) {
      const double before = i == 0 ? 0 : states.back()[first].seconds;
      if (before == kInfinity) continue;
      const double reached = costs.join(before, costs.pass(i, first));
      const auto offer = [&](State& state, int32_t end, bool is_last) {
        const auto [busy, bits] = costs.busy(i, first, end, is_last);
        const double seconds = costs.join(reached, busy);
        if (seconds < state.seconds) state = {seconds, first, bits};
      };
      for (int32_t end = first; end <= layers; ++end) offer(row[end], end, false);
      offer(last, layers, true);
    }
    if (last.seconds < plan.seconds) {
      plan = {.ends = {layers}, .bits = {last.bits}, .seconds = last.seconds};
      int32_t end = last.before;
      for (size_t j = states.size(); j-- > 0;) {
        plan.ends.insert(plan.ends.begin(), end);
        plan.bits.insert(plan.bits.begin(), states[j][end].bits);
        end = states[j][end].before;
      }
    }
    states.push_back(std::move(row));
  }
  if (plan.seconds == kInfinity)
    return fail(ErrorCode::kOutOfMemory, "planner: chain: no split fits the machines' memories");
  return plan;
}

double chain_seconds(const ChainProblem& problem, const ChainPlan& plan) {
  const Costs costs(problem);
  double seconds = 0;
  int32_t first = 0;
  for (size_t i = 0; i < plan.ends.size(); ++i) {
    const WeightCost* weights = problem.stages[i].profile.find_weights(plan.bits[i]);
    const bool last = i + 1 == plan.ends.size();
    seconds = costs.join(seconds, costs.pass(i, first));
    seconds = costs.join(seconds, costs.busy(i, *weights, first, plan.ends[i], last));
    first = plan.ends[i];
  }
  return seconds;
}

}  // namespace isthmus::planner
