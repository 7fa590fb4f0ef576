#include "options.h"

#include <algorithm>

#include "common/command_line.h"

namespace isthmus::tools {
namespace {

constexpr int32_t kMostTokens = 1 << 16;
constexpr double kMostSeconds = 86'400;

void declare_load(CLI::App& app, LoadFlags& flags) {
  app.add_option("--devices", flags.devices, "simulated devices, each with a connection of its own")
      ->check(CLI::Range(0, 4096))
      ->capture_default_str();
  app.add_option("--rate", flags.rate,
                 "requests a second, at random times (Poisson); 0: every device asks again as soon "
                 "as it is answered")
      ->check(CLI::Range(0.0, 1e6))
      ->capture_default_str();
  app.add_option("--trace", flags.trace,
                 "CSV with the columns Timestamp, Request tokens, Response tokens (BurstGPT's)")
      ->check(CLI::ExistingFile);
  app.add_option("--trace-speed", flags.trace_speed, "how many times as fast the trace is played")
      ->check(CLI::Range(1e-6, 1e6))
      ->capture_default_str();
  app.add_option("--prompt", flags.prompt_tokens, "tokens of a prompt; with a trace, the most")
      ->check(CLI::Range(1, kMostTokens))
      ->capture_default_str();
  app.add_option("--output", flags.output_tokens, "tokens of a reply; with a trace, the most")
      ->check(CLI::Range(1, kMostTokens))
      ->capture_default_str();
  app.add_option("--chunk", flags.chunk,
                 "tokens of a prompt that a device sends at once, if the server takes so many")
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  app.add_option("--intruder", flags.intruder_tokens,
                 "half-way through, one more device sends a prompt of so many tokens; 0: none")
      ->check(CLI::Range(0, kMostTokens))
      ->capture_default_str();
  app.add_option("--duration", flags.duration_s, "seconds, the warm-up included")
      ->check(CLI::Range(0.1, kMostSeconds))
      ->capture_default_str();
  app.add_option("--warm-up", flags.warm_up_s, "seconds at the start that are not counted")
      ->check(CLI::Range(0.0, kMostSeconds))
      ->capture_default_str();
  app.add_option("--timeout", flags.timeout_s, "seconds until a request counts as failed")
      ->check(CLI::Range(0.1, kMostSeconds))
      ->capture_default_str();
  app.add_option("--seed", flags.seed, "of arrival times")->capture_default_str();
}

}  // namespace

int32_t LoadFlags::most_tokens() const {
  return std::max(prompt_tokens + output_tokens, intruder_tokens + 1);
}

void declare(CLI::App& app, LoadFlags& flags) {
  app.add_option("--model", flags.model, "GGUF file or folder; a front slice will do")->required();
  app.add_option("--server", flags.server, "connection string, isthmus://host:port?key=...")
      ->required();
  app.add_option("--cuts", flags.cuts, "layers on the device; devices take turns")
      ->delimiter(',')
      ->capture_default_str();
  app.add_option_function<std::string>(
         "--codec",
         [&flags](const std::string& text) {
           auto spec = codec::CodecSpec::parse(text);
           if (!spec) throw CLI::ValidationError(complaint(spec));
           flags.codec = std::move(*spec);
         },
         "of the boundary")
      ->default_str(flags.codec.to_string());
  declare_load(app, flags);
  app.add_flag("--own-keys", flags.own_keys,
               "a key for each device (the server must admit any); otherwise this machine's");
  app.add_option("--home", flags.home, "folder of keys instead of ~/.config/isthmus");
  app.add_flag("--insecure", flags.insecure, "allow a server without encryption");
  app.add_flag("--json", flags.json, "print the report as JSON");
}

void check(const LoadFlags& flags) {
  if (flags.rate > 0 && !flags.trace.empty()) {
    throw CLI::ValidationError("--rate and --trace exclude each other");
  }
  if (flags.warm_up_s >= flags.duration_s) {
    throw CLI::ValidationError("--warm-up leaves nothing of --duration");
  }
  if (flags.devices + flags.intruder_tokens == 0) {
    throw CLI::ValidationError("--devices is 0, and there is no intruder either");
  }
  if (flags.cuts.empty() || *std::min_element(flags.cuts.begin(), flags.cuts.end()) < 0) {
    throw CLI::ValidationError("--cuts must be layer indices");
  }
}

}  // namespace isthmus::tools
