#include "options.h"

#include <isthmus/model/model_file.h>
#include <isthmus/planner/plan_file.h>

#include <charconv>
#include <string_view>

#include "common/artefact_flags.h"
#include "common/calibration_flags.h"
#include "common/command_line.h"
#include "common/layer_range.h"
#include "common/text_file.h"

namespace isthmus::tools {
namespace {

constexpr uint64_t kBytesPerMb = 1'000'000;

bool parse_port(std::string_view text, uint16_t& port) {
  const char* end = text.data() + text.size();
  const auto parsed = std::from_chars(text.data(), end, port);
  return parsed.ec == std::errc() && parsed.ptr == end;
}

/// What all clients together, and each of them, may ask for.
void declare_limits(CLI::App& app, ServerFlags& flags) {
  server::ServerOptions& limits = flags.limits;
  scheduler::Quotas& quotas = limits.quotas;
  const auto add = [&](const char* name, auto& value, const char* what) {
    app.add_option(name, value, what)->capture_default_str()->group("Limits");
  };
  add("--token-budget", limits.batch.token_budget,
      "rows in one pass over the layers, a prompt's later ones counted as more; a larger budget "
      "makes prompts faster and a decoded token wait longer");
  add("--max-sessions", quotas.max_sessions, "open conversations at a time");
  add("--max-client-sessions", quotas.max_client_sessions, "the same of one key");
  add("--max-tokens", limits.max_tokens, "context of one conversation");
  add("--kv-memory", flags.kv_memory_mb,
      "MB (10^6 bytes) of keys and values that open conversations may grow to");
  add("--max-step-tokens", limits.max_step_tokens, "boundary rows in one step");
  add("--max-in-flight", limits.max_in_flight, "steps of one conversation under way at a time");
  add("--max-waiting-rows", quotas.max_waiting_rows, "rows of steps that wait; more are told Busy");
  add("--max-client-waiting-rows", quotas.max_client_waiting_rows, "the same of one key");
  add("--max-client-bytes-per-second", quotas.max_client_bytes_per_second,
      "payload of one key's steps; 0: no limit");
  add("--idle-timeout", flags.idle_timeout_s, "seconds until an unused conversation is closed");
  add("--drain-timeout", flags.drain_timeout_s,
      "seconds for finishing what is queued after SIGTERM");
  app.add_flag("--wait-when-full", limits.wait_when_full,
               "tell who finds the server full to come back, instead of refusing")
      ->group("Limits");
}

}  // namespace

void declare(CLI::App& app, ServerFlags& flags) {
  app.add_option("--model", flags.model, "GGUF file (a slice will do) or Hugging Face folder")
      ->required();
  app.add_option("--bind", flags.bind, "host:port to listen on; port 0 takes a free one")
      ->capture_default_str();
  app.add_option("--layers", flags.layers,
                 "layers to hold, as A:B (half-open); all that the file holds when absent")
      ->check([](const std::string& range) { return complaint(parse_layers(range)); });
  app.add_option("--device", flags.device, "cpu, torch (libtorch on the CPU) or cuda[:N]")
      ->capture_default_str();
  app.add_option("--precision", flags.precision,
                 "cpu: fine, fast or exact; torch: fp32; cuda: bf16, fp16 or fp32");
  declare_storage(app, flags.engine, "--back-bits");
  declare_threads(app, flags.threads);
  declare_limits(app, flags);
  declare_calibrations(app, flags.calibrations);
  declare_artefacts(app, flags.artefacts);
  app.add_option("--profile", flags.profile,
                 "what isthmus-plan profile measured of this machine, for clients that plan");
  app.add_option("--home", flags.home,
                 "folder of keys and allow-list instead of ~/.config/isthmus");
  app.add_option("--metrics", flags.metrics,
                 "host:port for /metrics, /healthz and /readyz over plain HTTP; off when absent");
  app.add_flag("--allow-any-client", flags.allow_any_client,
               "accept clients whose keys are not enrolled");
  app.add_flag("--insecure", flags.insecure, "no keys and no encryption");
  app.add_flag("--quiet", flags.quiet, "log warnings and errors only");
  CLI::Option* plan = app.add_option("--plan", flags.plan,
                                     "file of isthmus-plan that decides layers, bits and context");
  for (const char* decided : {"--layers", "--back-bits", "--kv-bits", "--max-tokens"})
    plan->excludes(decided);
}

Status follow_plan(ServerFlags& flags) {
  if (flags.plan.empty()) return {};
  ISTHMUS_ASSIGN(const std::string text, read_text(flags.plan));
  ISTHMUS_ASSIGN(const planner::PlanFile plan, planner::parse_plan(text, flags.plan.string()));
  ISTHMUS_ASSIGN(const auto file, model::ModelFile::open(flags.model));
  const model::ModelConfig& config = file->config();
  const planner::ModelShape shape{config.architecture, config.layer_count, config.hidden_size,
                                  config.vocab_size};
  const std::string name = flags.plan.string();
  if (plan.model != shape)
    return fail(ErrorCode::kModelMismatch, "server: " + name + " is a plan for another model");
  if (plan.placement.is_local())
    return fail(ErrorCode::kInvalidArgument, "server: " + name + " needs no server");
  if (flags.engine.precision == "exact") {
    ISTHMUS_ASSIGN(const planner::Problem problem, planner::parse_problem(text, name));
    if (problem.server.precision != "exact")
      return fail(ErrorCode::kInvalidArgument,
                  "server: " + name + " counts on --precision " + problem.server.precision);
  }
  const int32_t end = plan.placement.has_tail() ? plan.placement.tail : config.layer_count;
  flags.layers = std::to_string(plan.placement.cut) + ":" + std::to_string(end);
  flags.engine.weight_bits = plan.back_bits;
  flags.engine.kv_bits = plan.kv_bits;
  flags.limits.max_tokens = plan.context;
  return {};
}

void check(ServerFlags& flags) {
  flags.limits.idle_timeout = std::chrono::seconds(flags.idle_timeout_s);
  flags.limits.drain_timeout = std::chrono::seconds(flags.drain_timeout_s);
  flags.limits.quotas.max_kv_bytes = flags.kv_memory_mb * kBytesPerMb;
  const auto require = [](const auto& result) {
    if (!result) throw CLI::ValidationError(result.error().message);
  };
  require(flags.limits.validate());
  require(parse_bind(flags.bind));
  if (!flags.metrics.empty()) require(parse_bind(flags.metrics));
  if (flags.device != "cpu" && flags.device != "torch" && !flags.device.starts_with("cuda")) {
    throw CLI::ValidationError("--device is '" + flags.device +
                               "', must be cpu, torch or cuda[:N]");
  }
  if (flags.device == "cpu") {
    if (!flags.precision.empty()) flags.engine.precision = flags.precision;
    check(flags.engine);
    return;
  }
  if (flags.engine.kv_bits || flags.engine.weight_bits)
    throw CLI::ValidationError("--kv-bits and --back-bits need --device cpu");
  if (!flags.plan.empty())
    throw CLI::ValidationError("--plan needs --device cpu: only there are weights of its bits");
}

Result<BindAddress> parse_bind(const std::string& text) {
  const size_t colon = text.rfind(':');
  BindAddress address;
  if (colon == std::string::npos || colon == 0 ||
      !parse_port(std::string_view(text).substr(colon + 1), address.port)) {
    return fail(ErrorCode::kInvalidArgument, "'" + text + "' must be host:port");
  }
  address.host = text.substr(0, colon);
  if (address.host.size() > 2 && address.host.front() == '[' && address.host.back() == ']') {
    address.host = address.host.substr(1, address.host.size() - 2);
  }
  return address;
}

}  // namespace isthmus::tools
