#include <isthmus/planner/problem.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

namespace isthmus::planner {
namespace {

constexpr size_t kMostChoices = 64;  // of one kind
constexpr int32_t kMostTokens = 1 << 24;
constexpr int32_t kMostInFlight = 64;
constexpr uint64_t kMostSettings = uint64_t{1} << 18;  // of placement and bits: some 100 MB

struct MetricName {
  Metric metric;
  std::string_view name;
};
constexpr MetricName kNames[kMetricCount] = {
    {Metric::kToken, "token"},
    {Metric::kFirstToken, "first_token"},
    {Metric::kThroughput, "throughput"},
    {Metric::kDeviceMemory, "device_memory"},
    {Metric::kServerMemory, "server_memory"},
    {Metric::kTraffic, "traffic"},
    {Metric::kEnergy, "energy"},
    {Metric::kQuality, "quality"},
    {Metric::kAttack, "attack"},
    {Metric::kEpsilonPerRow, "epsilon_per_row"},
    {Metric::kEpsilonPerPrompt, "epsilon_per_prompt"},
    {Metric::kContext, "context"},
};

tl::unexpected<Error> invalid(const std::string& what) {
  return fail(ErrorCode::kInvalidArgument, "planner: " + what);
}

Status check_range(const char* field, int32_t value, int32_t low, int32_t high) {
  if (value >= low && value <= high) return {};
  return invalid(std::string(field) + " is " + std::to_string(value) + ", must be in [" +
                 std::to_string(low) + ", " + std::to_string(high) + "]");
}

Status check(const Workload& work) {
  ISTHMUS_TRY(check_range("prompt_tokens", work.prompt_tokens, 1, kMostTokens));
  ISTHMUS_TRY(check_range("reply_tokens", work.reply_tokens, 1, kMostTokens));
  ISTHMUS_TRY(check_range("sessions", work.sessions, 1, 1 << 20));
  ISTHMUS_TRY(check_range("chunk_tokens", work.chunk_tokens, 1, kMostTokens));
  return check_range("chunks_in_flight", work.chunks_in_flight, 1, kMostInFlight);
}

std::string describe(const ModelShape& m) {
  return m.architecture + " with " + std::to_string(m.layer_count) + " layers, hidden size " +
         std::to_string(m.hidden_size) + ", vocabulary " + std::to_string(m.vocab_size);
}

std::string quoted(int32_t bits) {
  return std::to_string(bits);
}
// Whether any codec's rows may cross there.
bool crosses_at(const Problem& problem, int32_t cut) {
  return std::any_of(
      problem.choices.codecs_up.begin(), problem.choices.codecs_up.end(),
      [&](const std::string& spec) { return problem.device.find_codec(spec)->crosses_at(cut); });
}

std::string quoted(const std::string& spec) {
  return "'" + spec + "'";
}

// An empty list becomes what `known` has of `candidates`; what is listed must be known, and once.
template <typename T, typename Known>
Status complete(const char* field, std::vector<T>& list, const std::vector<T>& candidates,
                const Known& known) {
  if (list.empty())
    std::copy_if(candidates.begin(), candidates.end(), std::back_inserter(list), known);
  if (list.empty())
    return invalid(std::string(field) + ": the profiles have none in common that would do");
  if (list.size() > kMostChoices) {
    return invalid(std::string(field) + " has " + std::to_string(list.size()) +
                   " choices, at most " + std::to_string(kMostChoices));
  }
  for (size_t i = 0; i < list.size(); ++i) {
    if (!known(list[i]))
      return invalid(std::string(field) + " has " + quoted(list[i]) + ", which was not profiled");
    if (std::find(list.begin(), list.begin() + i, list[i]) != list.begin() + i)
      return invalid(std::string(field) + " has " + quoted(list[i]) + " twice");
  }
  return {};
}

template <typename Items, typename Key>
auto keys_of(const Items& items, const Key& key) {
  std::vector<std::decay_t<decltype(key(items.front()))>> keys;
  keys.reserve(items.size());
  for (const auto& item : items) keys.push_back(key(item));
  return keys;
}

// A codec is made for the same cut in both profiles, and there is a cut for one of them.
Status check_cuts(const Problem& problem) {
  const Choices& choices = problem.choices;
  for (const std::string& spec : choices.codecs_up) {
    if (problem.device.find_codec(spec)->made_for_cut !=
        problem.server.find_codec(spec)->made_for_cut)
      return invalid("the profiles have " + quoted(spec) + " made for different cuts");
  }
  for (int32_t cut = choices.min_cut; cut <= problem.device.model.layer_count; ++cut)
    if (crosses_at(problem, cut)) return {};
  return invalid("codecs_up has only codecs that were made for cuts below " +
                 std::to_string(choices.min_cut));
}

Status complete_choices(Problem& problem) {
  Choices& choices = problem.choices;
  const MachineProfile& device = problem.device;
  const MachineProfile& server = problem.server;
  ISTHMUS_TRY(check_range("min_cut", choices.min_cut, 0, device.model.layer_count));
  const auto weight_bits = [](const WeightCost& cost) { return cost.bits; };
  const auto kv_bits = [](const KvCost& cost) { return cost.bits; };
  const auto spec = [](const CodecCost& cost) { return cost.spec; };
  ISTHMUS_TRY(complete("front_bits", choices.front_bits, keys_of(device.weights, weight_bits),
                       [&](int32_t bits) { return device.find_weights(bits) != nullptr; }));
  ISTHMUS_TRY(complete("back_bits", choices.back_bits, keys_of(server.weights, weight_bits),
                       [&](int32_t bits) { return server.find_weights(bits) != nullptr; }));
  ISTHMUS_TRY(complete("kv_bits", choices.kv_bits, keys_of(device.kv, kv_bits),
                       [&](int32_t bits) { return device.find_kv(bits) && server.find_kv(bits); }));
  const auto known = [&](const std::string& text) {
    return device.find_codec(text) && server.find_codec(text);
  };
  ISTHMUS_TRY(complete("codecs_up", choices.codecs_up, keys_of(device.codecs, spec), known));
  const auto known_both_ways = [&](const std::string& text) {
    return known(text) && device.find_codec(text)->may_come_down() &&
           server.find_codec(text)->may_come_down();
  };
  for (const std::string& text : choices.codecs_down) {
    if (known(text) && !known_both_ways(text)) {
      return invalid("codecs_down has " + quoted(text) +
                     ", but rows come back by no mechanism and by no codec of an artefact");
    }
  }
  if (choices.tails || !choices.codecs_down.empty()) {
    ISTHMUS_TRY(complete("codecs_down", choices.codecs_down, keys_of(device.codecs, spec),
                         known_both_ways));
  }
  ISTHMUS_TRY(check_cuts(problem));
  ISTHMUS_TRY(complete("contexts", choices.contexts, {}, [](int32_t) { return true; }));
  const int32_t needed = problem.workload.prompt_tokens + problem.workload.reply_tokens;
  for (const int32_t context : choices.contexts)
    ISTHMUS_TRY(check_range("contexts", context, needed, kMostTokens));
  return {};
}

// What a search keeps in memory grows with these.
Status check_size(const Problem& problem) {
  const Choices& choices = problem.choices;
  const auto cuts = static_cast<uint64_t>(problem.device.model.layer_count - choices.min_cut + 1);
  const uint64_t places = 1 + cuts + (choices.tails ? cuts * (cuts - 1) / 2 : 0);
  const uint64_t settings =
      places * choices.front_bits.size() * choices.back_bits.size() * choices.kv_bits.size();
  if (settings <= kMostSettings) return {};
  return fail(ErrorCode::kTooLarge, "planner: the choices make " + std::to_string(settings) +
                                        " settings of placement and bits, at most " +
                                        std::to_string(kMostSettings));
}

Status check_constraint(const Constraint& constraint) {
  const std::string name(to_string(constraint.metric));
  const double limit = constraint.limit;
  if (!std::isfinite(limit)) return invalid("the limit of " + name + " is not finite");
  if (constraint.metric == Metric::kContext) {
    if (limit > -1) return invalid("context must be at least 1 token");
  } else if (limit < 0) {
    return invalid("the limit of " + name + " is below 0");
  }
  if (constraint.metric == Metric::kAttack && limit > 1)
    return invalid("the limit of attack is a share of tokens, at most 1");
  return {};
}

bool may_be_unmeasured(Metric metric) {
  return metric == Metric::kQuality || metric == Metric::kAttack ||
         metric == Metric::kEpsilonPerRow || metric == Metric::kEpsilonPerPrompt;
}

Status complete_constraints(Problem& problem) {
  std::set<Metric> limited;
  for (const Constraint& constraint : problem.constraints) {
    ISTHMUS_TRY(check_constraint(constraint));
    if (!limited.insert(constraint.metric).second)
      return invalid(std::string(to_string(constraint.metric)) + " is limited twice");
  }
  if (!limited.contains(Metric::kDeviceMemory))
    problem.constraints.push_back({Metric::kDeviceMemory, problem.device.free_bytes});
  if (!limited.contains(Metric::kServerMemory))
    problem.constraints.push_back({Metric::kServerMemory, problem.server.free_bytes});
  if (may_be_unmeasured(problem.objective) && !limited.contains(problem.objective)) {
    const bool is_share = problem.objective == Metric::kAttack;
    problem.constraints.push_back(
        {problem.objective, is_share ? 1 : std::numeric_limits<double>::max()});
  }
  return {};
}

// What is asked for must have been measured.
Status check_data(const Problem& problem, Metric metric) {
  const std::string name(to_string(metric));
  switch (metric) {
    case Metric::kEnergy:
      if (!problem.device.watts)
        return invalid(name + " is asked for, but the device's profile has no watts");
      break;
    case Metric::kQuality:
      if (problem.evidence.codecs.empty())
        return invalid(name + " is asked for, but no evaluation was given");
      if (problem.evidence.weights.empty())
        return invalid(name + " is asked for, but no evaluation of weights was given");
      break;
    case Metric::kAttack:
    case Metric::kEpsilonPerRow:
    case Metric::kEpsilonPerPrompt:
      if (problem.evidence.attacks.empty())
        return invalid(name + " is asked for, but no audit was given");
      break;
    default:
      break;
  }
  return {};
}

}  // namespace

std::string_view to_string(Metric metric) {
  return kNames[static_cast<size_t>(metric)].name;
}

Result<Metric> parse_metric(std::string_view name) {
  std::string known;
  for (const MetricName& entry : kNames) {
    if (entry.name == name) return entry.metric;
    known += (known.empty() ? "" : ", ") + std::string(entry.name);
  }
  return invalid("metric '" + std::string(name) + "' is none of " + known);
}

Result<Problem> Problem::completed() const {
  Problem problem = *this;
  ISTHMUS_TRY(device.validate());
  ISTHMUS_TRY(server.validate());
  ISTHMUS_TRY(link.validate());
  if (device.model != server.model) {
    return fail(ErrorCode::kModelMismatch, "planner: the device's profile is of a " +
                                               describe(device.model) + ", the server's of a " +
                                               describe(server.model));
  }
  ISTHMUS_TRY(check(workload));
  ISTHMUS_TRY(complete_choices(problem));
  ISTHMUS_TRY(check_size(problem));
  ISTHMUS_TRY(complete_constraints(problem));
  ISTHMUS_TRY(check_data(problem, objective));
  for (const Constraint& constraint : constraints)
    ISTHMUS_TRY(check_data(problem, constraint.metric));
  for (const Metric axis : axes) ISTHMUS_TRY(check_data(problem, axis));
  if (std::set<Metric>(axes.begin(), axes.end()).size() != axes.size())
    return invalid("an axis of the Pareto front is given twice");
  return problem;
}

std::vector<Placement> placements(const Problem& problem) {
  const int32_t layer_count = problem.device.model.layer_count;
  std::vector<Placement> list;
  if (problem.choices.local) list.push_back({.cut = Placement::kLocal});
  for (int32_t cut = problem.choices.min_cut; cut <= layer_count; ++cut) {
    if (!crosses_at(problem, cut)) continue;
    list.push_back({.cut = cut});
    if (!problem.choices.tails) continue;
    for (int32_t tail = layer_count; tail > cut; --tail) list.push_back({.cut = cut, .tail = tail});
  }
  return list;
}

}  // namespace isthmus::planner
