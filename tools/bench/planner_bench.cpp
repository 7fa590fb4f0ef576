// How long the planner takes for a large model: one line of JSON for each situation.
//
// usage: planner_bench [runs, default 9]
//
// 80 layers, three weight precisions on either side, two of the cache, ten codecs in either
// direction, four contexts: 24 million candidates. The situations differ in what is fast and in
// what is limited, because that decides how much the bounds can settle. The optimum and the counts
// of a smaller model are compared with brute force first. Times are of the wall clock, median,
// least and most.
#include <isthmus/core/clock.h>
#include <isthmus/planner/planner.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <functional>
#include <limits>
#include <string>
#include <vector>

namespace {

using namespace isthmus;
using namespace isthmus::planner;

struct Situation {
  const char* name;
  double device_layer_s;  // of a decoded token at 8 bits
  double server_layer_s;
  LinkProfile link;
  std::function<void(Problem&)> ask;
};

MachineProfile machine(int32_t layer_count, double layer_s) {
  constexpr double kLayerBytes = 2.2e8;  // at 8 bits, as of a model of 70 billion weights
  MachineProfile profile;
  profile.machine = "synthetic";
  profile.precision = "fine";
  profile.model = {.architecture = "llama",
                   .layer_count = layer_count,
                   .hidden_size = 8192,
                   .vocab_size = 128'000};
  for (const int32_t bits : {8, 6, 4}) {
    const double share = bits / 8.0;
    WeightCost weights{.bits = bits,
                       .layer_bytes = std::vector<uint64_t>(
                           layer_count, static_cast<uint64_t>(share * kLayerBytes)),
                       .head_bytes = static_cast<uint64_t>(share * 1e9),
                       .head_seconds = 4 * share * layer_s};
    for (const double layers : {0, 1, 2, 5, 10, 20, 40})
      if (layers < layer_count) weights.time.layers.push_back(layers);
    weights.time.layers.push_back(layer_count);
    weights.time.tokens = {1, 16, 64, 128};
    for (const double layers : weights.time.layers)
      for (const double tokens : weights.time.tokens)
        weights.time.seconds.push_back(1e-4 + layers * layer_s * (share + 0.1 * (tokens - 1)));
    profile.weights.push_back(std::move(weights));
  }
  for (const int32_t bits : {16, 8}) {
    profile.kv.push_back({.bits = bits,
                          .bytes_per_token_and_layer = 256.0 * bits,
                          .seconds_per_pair_and_layer = 1e-9 * bits});
  }
  for (int32_t i = 0; i < 10; ++i) {
    const double bits = 16.0 / (1 + i);
    profile.codecs.push_back(
        {.spec = "codec" + std::to_string(i),
         .encode_seconds = {1e-5, 1e-5 * (1 + i)},
         .decode_seconds = {1e-5, 0.5e-5 * (1 + i)},
         .sizes = {{0, {40, 8192 * bits / 8}}, {layer_count, {40, 9000 * bits / 8}}}});
  }
  profile.base_bytes = 3e7;
  profile.free_bytes = 1e12;
  return profile;
}

Problem problem_of(const Situation& situation, int32_t layer_count) {
  Problem problem;
  problem.device = machine(layer_count, situation.device_layer_s);
  problem.server = machine(layer_count, situation.server_layer_s);
  problem.link = situation.link;
  problem.workload.chunks_in_flight = 4;
  problem.choices.contexts = {8192, 4096, 2048, 1024};
  for (int32_t cut = 0; cut <= layer_count; ++cut) {
    for (int32_t i = 0; i < 10; ++i) {
      const std::string spec = "codec" + std::to_string(i);
      problem.evidence.codecs.push_back({cut, spec, 0.002 * i + 0.0001 * cut});
      problem.evidence.attacks.push_back(
          {cut, spec, "ridge", 0.95 - 0.04 * i - 0.004 * cut, std::nullopt, std::nullopt});
    }
  }
  for (const int32_t front : {8, 6, 4})
    for (const int32_t back : {8, 6, 4})
      for (const int32_t kv : {16, 8})
        for (int32_t cut = 0; cut <= layer_count; ++cut)
          problem.evidence.weights.push_back(
              {cut, "fine", front, back, kv, 0.001 * (16 - front - back) + 0.0005 * (16 - kv)});
  problem.axes = {Metric::kToken, Metric::kDeviceMemory};
  situation.ask(problem);
  return problem;
}

const LinkProfile kNear{.rtt_seconds = 0.02,
                        .rtt_p95_seconds = 0.03,
                        .up_bits_per_second = 1e8,
                        .down_bits_per_second = 1e8};
const LinkProfile kFar{.rtt_seconds = 0.15,
                       .rtt_p95_seconds = 0.2,
                       .up_bits_per_second = 2e6,
                       .down_bits_per_second = 2e6};

std::vector<Situation> situations() {
  return {
      {"fast server, nothing limited", 0.02, 0.002, kNear, [](Problem&) {}},
      {"fast server, device memory and quality", 0.02, 0.002, kNear,
       [](Problem& p) {
         p.constraints = {{Metric::kDeviceMemory, 3e9}, {Metric::kQuality, 0.01}};
       }},
      {"equal machines, first token on a slow link", 0.002, 0.002, kFar,
       [](Problem& p) {
         p.objective = Metric::kFirstToken;
         p.constraints = {{Metric::kDeviceMemory, 8e9}, {Metric::kToken, 0.6}};
       }},
      {"fast device, memory, latencies, quality, privacy", 0.001, 0.004, kNear,
       [](Problem& p) {
         p.constraints = {{Metric::kDeviceMemory, 8e9},
                          {Metric::kToken, 0.3},
                          {Metric::kFirstToken, 12},
                          {Metric::kQuality, 0.02},
                          {Metric::kAttack, 0.6}};
       }},
      {"fast device, front of token, memory and quality", 0.001, 0.004, kNear,
       [](Problem& p) {
         p.constraints = {{Metric::kDeviceMemory, 8e9}};
         p.axes = {Metric::kToken, Metric::kDeviceMemory, Metric::kQuality};
       }},
      {"least device memory under latency", 0.01, 0.002, kFar,
       [](Problem& p) {
         p.objective = Metric::kDeviceMemory;
         p.constraints = {{Metric::kToken, 0.5}, {Metric::kQuality, 0.015}};
         p.axes = {Metric::kToken, Metric::kThroughput};
       }},
  };
}

[[noreturn]] void give_up(const std::string& why) {
  std::fprintf(stderr, "planner_bench: error: %s\n", why.c_str());
  std::exit(1);
}

// The least objective and the number of feasible candidates, candidate by candidate.
void check(const Situation& situation) {
  const auto completed = problem_of(situation, 4).completed();
  if (!completed) give_up(completed.error().message);
  const Problem& problem = *completed;
  double least = std::numeric_limits<double>::infinity();
  uint64_t feasible = 0;
  const std::vector<Placement> list = placements(problem);
  const auto size = [](const auto& choices) { return static_cast<uint32_t>(choices.size()); };
  for (uint32_t p = 0; p < list.size(); ++p)
    for (uint32_t front = 0; front < 3; ++front)
      for (uint32_t back = 0; back < (list[p].is_local() ? 1 : 3); ++back)
        for (uint32_t kv = 0; kv < 2; ++kv)
          for (uint32_t context = 0; context < size(problem.choices.contexts); ++context)
            for (uint32_t up = 0; up < (list[p].is_local() ? 1 : 10); ++up)
              for (uint32_t down = 0; down < (list[p].has_tail() ? 10 : 1); ++down) {
                const Metrics m = predict(problem, {p, front, back, kv, context, up, down}).metrics;
                if (!broken(problem, m).empty()) continue;
                ++feasible;
                least = std::min(least, m[problem.objective]);
              }
  const auto best = optimize(problem);
  const double found = best ? predict(problem, *best).metrics[problem.objective]
                            : std::numeric_limits<double>::infinity();
  if (found != least || count(problem).feasible != feasible)
    give_up(std::string(situation.name) + ": brute force says something else");
}

double thread_ms() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return 1e3 * static_cast<double>(now.tv_sec) + 1e-6 * static_cast<double>(now.tv_nsec);
}

template <typename Work>
std::vector<double> milliseconds(int runs, const Work& work) {
  std::vector<double> times;
  for (int i = 0; i < runs; ++i) {
    const double start = thread_ms();
    work();
    times.push_back(thread_ms() - start);
  }
  std::sort(times.begin(), times.end());
  return times;
}

void run(const Situation& situation, int runs) {
  check(situation);
  const Problem problem = problem_of(situation, 80);
  const Result<Answer> answer = solve(problem);
  if (!answer) give_up(answer.error().message);
  const auto all = milliseconds(runs, [&] { (void)solve(problem); });
  const auto completed = problem.completed();
  const auto optimum = milliseconds(runs, [&] { (void)optimize(*completed); });
  const auto print = [](const char* name, const std::vector<double>& times, const char* end) {
    std::printf("\"%s\": {\"median\": %.1f, \"min\": %.1f, \"max\": %.1f}%s", name,
                times[times.size() / 2], times.front(), times.back(), end);
  };
  std::printf("{\"situation\": \"%s\", \"candidates\": %llu, \"feasible\": %llu, \"front\": %zu, ",
              situation.name, static_cast<unsigned long long>(answer->census.candidates),
              static_cast<unsigned long long>(answer->census.feasible), answer->pareto.size());
  print("optimum_ms", optimum, ", ");
  print("everything_ms", all, "}\n");
}

}  // namespace

int main(int argc, char** argv) {
  const int runs = argc > 1 ? std::atoi(argv[1]) : 9;
  if (runs < 1) {
    std::fprintf(stderr, "planner_bench: error: runs must be at least 1\n");
    return 2;
  }
  for (const Situation& situation : situations()) run(situation, runs);
  return 0;
}
