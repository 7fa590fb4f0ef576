// isthmus-server: runs a model's later layers for devices that connect to it.
#include <isthmus/core/clock.h>
#include <isthmus/core/thread_pool.h>
#include <isthmus/engine/cpu_engine.h>
#include <isthmus/model/fingerprint.h>
#include <isthmus/model/model_file.h>
#include <isthmus/planner/profile.h>
#include <isthmus/server/server.h>
#include <isthmus/transport/channel.h>
#ifdef ISTHMUS_WITH_TORCH
#include <isthmus/torch_engine/torch_engine.h>
#endif
#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

#include <atomic>
#include <csignal>
#include <optional>

#include "common/artefact_flags.h"
#include "common/calibration_flags.h"
#include "common/command_line.h"
#include "common/layer_range.h"
#include "common/terminal.h"
#include "common/text_file.h"
#include "event_log.h"
#include "metrics.h"
#include "options.h"
#include "status_endpoint.h"

namespace isthmus::tools {
namespace {

constexpr const char* kTool = "isthmus-server";

std::atomic<bool> stop_requested = false;
static_assert(std::atomic<bool>::is_always_lock_free, "a signal handler sets it");

void request_stop(int) {
  stop_requested = true;
}

Result<model::Part> part_to_hold(const model::ModelFile& file, const std::string& layers) {
  if (layers.empty()) return model::available_part(file);
  model::Part part;
  ISTHMUS_ASSIGN(const auto range, parse_layers(layers));
  part.layers.push_back(range);
  part.head = range.second == file.config().layer_count;
  ISTHMUS_TRY(part.validate(file.config().layer_count));
  return part;
}

Result<std::unique_ptr<engine::Engine>> load_engine(
    const ServerFlags& flags, const std::shared_ptr<const model::ModelFile>& file,
    ThreadPool& pool) {
  ISTHMUS_ASSIGN(model::Part part, part_to_hold(*file, flags.layers));
  part.embedding = false;  // devices send activations, never tokens
  ProgressBar bar("loading");
  const engine::Progress progress = [&bar](double fraction) { bar.update(fraction); };
  if (flags.device == "cpu") {
    return engine::load_cpu_engine(file, part, pool, flags.engine.options(), progress);
  }
#ifdef ISTHMUS_WITH_TORCH
  return torch_engine::load_torch_engine(file, part,
                                         {.device = flags.device == "torch" ? "cpu" : flags.device,
                                          .precision = flags.precision,
                                          .threads = flags.threads},
                                         progress);
#else
  return fail(ErrorCode::kUnsupported,
              "--device is '" + flags.device + "', this build without libtorch knows cpu");
#endif
}

Result<transport::ListenerOptions> listener_options(const ServerFlags& flags,
                                                    size_t max_payload_bytes) {
  ISTHMUS_ASSIGN(const BindAddress bind, parse_bind(flags.bind));
  transport::ListenerOptions options{.host = bind.host, .port = bind.port};
  options.insecure = flags.insecure;
  options.allow_any_client = flags.allow_any_client;
  options.max_frame_bytes = max_payload_bytes;
  if (!flags.insecure) {
    const transport::KeyPaths paths =
        flags.home.empty() ? transport::KeyPaths::standard() : transport::KeyPaths::in(flags.home);
    ISTHMUS_ASSIGN(options.keys, transport::load_or_create_keys(paths.server_key));
    options.allow_list = paths.allow_list;
  }
  return options;
}

/// A loop that has stood still for longer will not come back: a pass takes a fraction of a second.
constexpr std::chrono::seconds kStuckAfter{30};

Result<server::ServerOptions> server_options(const ServerFlags& flags) {
  server::ServerOptions options = flags.limits;
  ISTHMUS_ASSIGN(options.calibrations, load_calibrations(flags.calibrations));
  ISTHMUS_ASSIGN(options.artefacts, load_artefacts(flags.artefacts));
  if (flags.profile.empty()) return options;
  ISTHMUS_ASSIGN(options.profile, read_text(flags.profile));
  ISTHMUS_TRY(planner::parse_machine(options.profile, flags.profile.string()));
  return options;
}

Status run(const ServerFlags& flags) {
  const SteadyClock clock;
  const Clock::TimePoint start = clock.now();
  Metrics metrics;
  EventLog log(clock, flags.metrics.empty() ? nullptr : &metrics);
  std::optional<StatusEndpoint> status;
  if (!flags.metrics.empty()) {
    ISTHMUS_ASSIGN(
        status, StatusEndpoint::start(flags.metrics,
                                      {.metrics = [&] { return metrics.text(); },
                                       .healthy = [&] { return log.turned_within(kStuckAfter); },
                                       .ready = [&] { return log.started() && !stop_requested; }}));
  }
  ThreadPool pool(static_cast<size_t>(flags.threads));
  ISTHMUS_ASSIGN(const server::ServerOptions limits, server_options(flags));
  ISTHMUS_ASSIGN(const auto file, model::ModelFile::open(flags.model));
  ISTHMUS_ASSIGN(const model::Fingerprint fingerprint, model::fingerprint(*file, pool));
  ISTHMUS_ASSIGN(const auto weights,
                 artefact::adapted_model(file, limits.artefacts, fingerprint.to_string()));
  ISTHMUS_ASSIGN(const auto engine, load_engine(flags, weights, pool));

  const auto hidden_size = static_cast<size_t>(file->config().hidden_size);
  ISTHMUS_ASSIGN(const auto options,
                 listener_options(flags, flags.limits.max_payload_bytes(hidden_size)));
  ISTHMUS_ASSIGN(transport::Listener listener, transport::Listener::bind(options));
  // The one line of output that other programs read.
  std::printf("%s\n", listener.address().to_string().c_str());
  std::fflush(stdout);
  spdlog::info(
      "event=ready device={} precision={} threads={} layers={} sessions={} tokens={} "
      "kv_memory_mb={:.0f} load_s={:.2f} weight_mb={:.1f} model={}",
      engine->info().device, engine->info().precision, pool.thread_count(),
      file->config().layer_count, flags.limits.quotas.max_sessions, flags.limits.max_tokens,
      static_cast<double>(flags.limits.quotas.max_kv_bytes) / 1e6,
      seconds_between(start, clock.now()), static_cast<double>(engine->info().weight_bytes) / 1e6,
      fingerprint.to_string());

  server::SessionHost host(*engine, fingerprint, limits, clock, log);
  ISTHMUS_TRY(server::serve(listener, host, limits.drain_timeout, clock, stop_requested));
  spdlog::info(
      "event=stopped sessions={} dropped_messages={} cut_connections={} peak_resident_mb={:.0f}",
      host.session_count(), listener.dropped_messages(), listener.cut_connections(),
      peak_resident_mb());
  return {};
}

int main(int argc, char** argv) {
  CLI::App app("Runs the later layers of a language model for devices that run the first ones.",
               kTool);
  ServerFlags flags;
  declare(app, flags);
  return run_tool(
      app, argc, argv, [&] { check(flags); },
      [&]() -> Status {
        spdlog::set_default_logger(spdlog::stderr_color_mt(kTool));
        spdlog::set_pattern("%Y-%m-%dT%H:%M:%S.%e %^%l%$ %v");
        if (flags.quiet) spdlog::set_level(spdlog::level::warn);
        std::signal(SIGTERM, request_stop);
        std::signal(SIGINT, request_stop);
        ISTHMUS_TRY(follow_plan(flags));
        return run(flags);
      });
}

}  // namespace
}  // namespace isthmus::tools

int main(int argc, char** argv) {
  return isthmus::tools::main(argc, argv);
}
