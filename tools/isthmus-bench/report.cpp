#include "report.h"

#include <isthmus/kernels/dispatch.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>

#include "common/format.h"

namespace isthmus::tools {
namespace {

struct Spread {
  double median;
  double min;
  double max;
};

Spread spread(const std::vector<double>& values) {
  const auto [low, high] = std::minmax_element(values.begin(), values.end());
  return {median(values), *low, *high};
}

std::string cpu_name() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);) {
    const size_t colon = line.find(": ");
    if (line.starts_with("model name") && colon != std::string::npos) return line.substr(colon + 2);
  }
  return "unknown processor";
}

std::string isa_name() {
  const auto kernels = kernels::select_kernels();
  return kernels ? (*kernels)->name : "unknown";
}

}  // namespace

std::string to_json(const SuiteResult& result) {
  nlohmann::json list = nlohmann::json::array();
  for (const CaseResult& c : result.cases) {
    const Spread speed = spread(c.tokens_per_s);
    list.push_back(
        {{"case", c.which.to_string()},
         {"threads", result.threads},
         {"tokens_per_s", {{"median", speed.median}, {"min", speed.min}, {"max", speed.max}}},
         {"bandwidth_fraction", c.bandwidth_fraction},
         {"resident_bytes", c.footprint.resident_bytes},
         {"weight_bytes", c.footprint.weight_bytes},
         {"kv_bytes_per_token", c.footprint.kv_bytes_per_token}});
  }
  return list.dump(1) + "\n";
}

std::string to_text(const SuiteResult& result, const BenchFlags& flags) {
#ifdef NDEBUG
  constexpr const char* kBuild = "optimised";
#else
  constexpr const char* kBuild = "with assertions";
#endif
  std::string text = format("%s, %u cores, kernels %s, %zu threads, reading %.1f GB/s\n",
                            cpu_name().c_str(), std::thread::hardware_concurrency(),
                            isa_name().c_str(), result.threads, result.bandwidth_bps / 1e9);
  text += format("isthmus %s, %s, compiler %s; %s, precision %s\n", ISTHMUS_VERSION, kBuild,
                 __VERSION__,
                 flags.shape.empty() ? flags.model.filename().c_str() : flags.shape.c_str(),
                 flags.engine.precision.c_str());
  text += format("prompt %d, decode %d behind %d, median (least to most) of %d\n\n", flags.prompt,
                 flags.decode, flags.context, flags.repetitions);
  text +=
      "case          tokens/s                       bandwidth  resident MB  weights MB  KV "
      "B/token\n";
  for (const CaseResult& c : result.cases) {
    const Spread speed = spread(c.tokens_per_s);
    const std::string speeds = format("%.1f (%.1f to %.1f)", speed.median, speed.min, speed.max);
    text += format("%-13s %-30s %7.0f %% %12.1f %11.1f %11llu\n", c.which.to_string().c_str(),
                   speeds.c_str(), 100 * c.bandwidth_fraction,
                   megabytes(c.footprint.resident_bytes), megabytes(c.footprint.weight_bytes),
                   static_cast<unsigned long long>(c.footprint.kv_bytes_per_token));
  }
  return text;
}

}  // namespace isthmus::tools
