#include "options.h"

#include <isthmus/codec/spec.h>

#include <charconv>
#include <string_view>

#include "common/artefact_flags.h"
#include "common/calibration_flags.h"
#include "common/command_line.h"
#include "common/text_file.h"

namespace isthmus::tools {
namespace {

void declare_profile(CLI::App& app, ProfileFlags& flags) {
  app.add_option("--model", flags.model, "GGUF file or Hugging Face folder")->required();
  app.add_option("--output", flags.output, "file for the profile")->required();
  app.add_option("--weight-bits", flags.weight_bits, "most bits of a weight's code, by preference")
      ->delimiter(',')
      ->check(CLI::IsMember({4, 8}))
      ->capture_default_str();
  app.add_option("--kv-bits", flags.kv_bits, "bits of stored keys and values, by preference")
      ->delimiter(',')
      ->check(CLI::IsMember({8, 16}))
      ->capture_default_str();
  app.add_option("--specs", flags.specs, "codecs, separated by semicolons, by preference")
      ->delimiter(';')
      ->check([](const std::string& spec) { return complaint(codec::CodecSpec::parse(spec)); })
      ->capture_default_str();
  declare_calibrations(app, flags.calibrations);
  declare_artefacts(app, flags.artefacts);
  app.add_option("--text", flags.text,
                 "text whose boundaries are encoded; a built-in one if absent")
      ->check(CLI::ExistingFile);
  app.add_option("--repetitions", flags.repetitions, "times that everything is measured")
      ->check(CLI::Range(3, 1000))
      ->capture_default_str();
  app.add_option("--pause-ms", flags.pause_ms, "wait before each, as between steps of a session")
      ->check(CLI::Range(0.0, 1000.0))
      ->capture_default_str();
  CLI::Option* const computing = app.add_option("--watts-computing", flags.watts_computing,
                                                "drawn while computing, for energy")
                                     ->check(CLI::PositiveNumber);
  CLI::Option* const waiting =
      app.add_option("--watts-waiting", flags.watts_waiting, "drawn while waiting")
          ->check(CLI::NonNegativeNumber);
  computing->needs(waiting);
  waiting->needs(computing);
  declare_precision(app, flags.engine);
  declare_threads(app, flags.threads);
}

void declare_derive(CLI::App& app, DeriveFlags& flags) {
  app.add_option("--profile", flags.profile, "of any machine with the same model: for its sizes")
      ->required();
  app.add_option("--machine", flags.machine.machine, "name")->required();
  app.add_option("--read-gb-s", flags.read_gb_s, "10^9 bytes of memory read in a second")
      ->required();
  app.add_option("--gop-s", flags.gop_s,
                 "10^9 multiplications and additions of the engine's arithmetic in a second")
      ->required();
  app.add_option("--free-mb", flags.free_mb, "10^6 bytes of memory for program, weights and caches")
      ->required();
  app.add_option("--base-mb", flags.base_mb, "of them, for the program")->capture_default_str();
  app.add_option("--call-us", flags.call_us, "microseconds of an engine call beside its layers")
      ->capture_default_str();
  app.add_option("--codec-ns", flags.codec_ns, "nanoseconds to encode or to decode a coordinate")
      ->capture_default_str();
  app.add_option("--output", flags.output, "file for the profile; standard output when absent");
}

void declare_server(CLI::App& app, ServerFlags& flags) {
  app.add_option("--server", flags.server, "connection string, isthmus://host:port?key=...")
      ->required();
  app.add_option("--output", flags.output, "file for the profile; standard output when absent");
  app.add_option("--timeout", flags.timeout_s, "seconds to wait for an answer")
      ->check(CLI::Range(0.001, 3600.0))
      ->capture_default_str();
  app.add_option("--home", flags.home, "folder of this device's key instead of ~/.config/isthmus");
  app.add_flag("--insecure", flags.insecure, "accept a server without a key");
}

void declare_choices(CLI::App& app, planner::Choices& choices) {
  app.add_option("--min-cut", choices.min_cut, "least layers of the front")->capture_default_str();
  app.add_flag("!--no-local", choices.local, "do not consider the whole model on the device");
  app.add_flag("!--no-tail", choices.tails, "do not consider a tail on the device");
  app.add_option("--front-bits", choices.front_bits, "by preference; all profiled when absent")
      ->delimiter(',');
  app.add_option("--back-bits", choices.back_bits, "likewise")->delimiter(',');
  app.add_option("--kv-bits", choices.kv_bits, "likewise")->delimiter(',');
  app.add_option("--specs", choices.codecs_up, "codecs on the way up, separated by semicolons")
      ->delimiter(';');
  app.add_option("--specs-down", choices.codecs_down, "codecs on the way down")->delimiter(';');
  app.add_option("--contexts", choices.contexts, "tokens of a conversation, by preference")
      ->delimiter(',');
}

void declare_plan(CLI::App& app, PlanFlags& flags) {
  app.add_option("--device", flags.device, "profile of the device");
  app.add_option("--server-profile", flags.server, "profile of the server");
  app.add_option("--link", flags.link, "profile of the link");
  app.add_option("--evidence", flags.evidence,
                 "JSON of isthmus-eval or isthmus-audit; may be repeated");
  app.add_option("--prompt", flags.workload.prompt_tokens, "tokens of a prompt")
      ->capture_default_str();
  app.add_option("--reply", flags.workload.reply_tokens, "tokens of a reply")
      ->capture_default_str();
  app.add_option("--sessions", flags.workload.sessions,
                 "devices that share the server at a time, a conversation each")
      ->capture_default_str();
  app.add_option("--chunk", flags.workload.chunk_tokens, "tokens of a prompt in one message")
      ->capture_default_str();
  app.add_option("--in-flight", flags.workload.chunks_in_flight,
                 "messages of a prompt under way at a time")
      ->capture_default_str();
  declare_choices(app, flags.choices);
  app.add_option("--minimize", flags.objective,
                 "token, first_token, throughput, device_memory, server_memory, traffic, energy, "
                 "quality, attack, epsilon_per_row or epsilon_per_prompt")
      ->check([](const std::string& name) { return complaint(planner::parse_metric(name)); })
      ->capture_default_str();
  app.add_option("--limit", flags.limits,
                 "METRIC=MOST, such as device_memory=40MB or token=100ms; context=LEAST; may be "
                 "repeated")
      ->check([](const std::string& text) { return complaint(parse_limit(text)); });
  app.add_option("--pareto", flags.axes, "axes of the front, separated by commas")
      ->delimiter(',')
      ->check([](const std::string& name) { return complaint(planner::parse_metric(name)); })
      ->capture_default_str();
  app.add_flag("--json", flags.json, "print one JSON object instead of tables");
  app.add_option("--output", flags.output, "write that object, a plan for --plan, to this file");
  app.add_option("--csv", flags.csv, "write the front and the best of each cut to this file");
  app.add_option("--html", flags.html, "write a report with charts to this file");
}

struct Unit {
  std::string_view name;
  double size;
};

std::vector<Unit> units_of(planner::Metric metric) {
  using planner::Metric;
  switch (metric) {
    case Metric::kToken:
    case Metric::kFirstToken:
    case Metric::kThroughput:
      return {{"s", 1}, {"ms", 1e-3}};
    case Metric::kDeviceMemory:
    case Metric::kServerMemory:
    case Metric::kTraffic:
      return {{"kB", 1e3}, {"MB", 1e6}, {"GB", 1e9}};
    case Metric::kQuality:
    case Metric::kAttack:
      return {{"%", 1e-2}};
    case Metric::kEnergy:
    case Metric::kEpsilonPerRow:
    case Metric::kEpsilonPerPrompt:
    case Metric::kContext:
      return {};
  }
  return {};
}

// Profiles and evidence name codecs by the text that a parsed spec has.
Status canonicalise(std::vector<std::string>& specs) {
  for (std::string& text : specs) {
    ISTHMUS_ASSIGN(const codec::CodecSpec spec, codec::CodecSpec::parse(text));
    text = spec.to_string();
  }
  return {};
}

}  // namespace

Result<planner::MachineProfile> read_machine(const std::filesystem::path& path) {
  ISTHMUS_ASSIGN(const std::string text, read_text(path));
  return planner::parse_machine(text, path.string());
}

planner::MachineDescription DeriveFlags::description() const {
  planner::MachineDescription scaled = machine;
  scaled.read_bytes_per_second = 1e9 * read_gb_s;
  scaled.operations_per_second = 1e9 * gop_s;
  scaled.call_seconds = 1e-6 * call_us;
  scaled.codec_seconds_per_value = 1e-9 * codec_ns;
  scaled.free_bytes = 1e6 * free_mb;
  scaled.base_bytes = 1e6 * base_mb;
  return scaled;
}

void declare(CLI::App& app, Flags& flags) {
  declare_plan(app, flags.plan);
  app.require_subcommand(0, 1);
  declare_profile(*app.add_subcommand("profile", "measures this machine with a model"),
                  flags.profile);
  declare_derive(*app.add_subcommand("derive",
                                     "makes the profile of a machine from what is known "
                                     "of it, by the roofline"),
                 flags.derive);
  CLI::App* link =
      app.add_subcommand("link", "measures the way to a server through the encrypted channel");
  declare_server(*link, flags.server);
  link->add_option("--probes", flags.server.probes, "round trips to measure")
      ->check(CLI::Range(5, 10'000))
      ->capture_default_str();
  declare_server(*app.add_subcommand("server", "asks a server for its profile"), flags.server);
}

Result<planner::Constraint> parse_limit(const std::string& text) {
  const size_t equals = text.find('=');
  if (equals == std::string::npos)
    return fail(ErrorCode::kInvalidArgument, "limit '" + text + "' is no METRIC=VALUE");
  ISTHMUS_ASSIGN(const planner::Metric metric, planner::parse_metric(text.substr(0, equals)));
  const char* const end = text.data() + text.size();
  double value = 0;
  const auto [rest, error] = std::from_chars(text.data() + equals + 1, end, value);
  const std::string_view unit(rest, end);
  std::string names;
  double size = unit.empty() ? 1 : 0;
  for (const Unit& known : units_of(metric)) {
    if (known.name == unit) size = known.size;
    names.append(known.name).append(", ");
  }
  if (error != std::errc() || size == 0) {
    return fail(ErrorCode::kInvalidArgument,
                "limit '" + text + "' is no number with a unit out of: " + names + "none");
  }
  const double sign = metric == planner::Metric::kContext ? -1 : 1;
  return planner::Constraint{.metric = metric, .limit = sign * value * size};
}

Result<planner::Problem> read_problem(const PlanFlags& flags) {
  planner::Problem problem;
  ISTHMUS_ASSIGN(problem.device, read_machine(flags.device));
  ISTHMUS_ASSIGN(problem.server, read_machine(flags.server));
  ISTHMUS_ASSIGN(const std::string link, read_text(flags.link));
  ISTHMUS_ASSIGN(problem.link, planner::parse_link(link, flags.link.string()));
  for (const std::filesystem::path& path : flags.evidence) {
    ISTHMUS_ASSIGN(const std::string text, read_text(path));
    ISTHMUS_TRY(planner::add_evidence(text, path.string(), problem.evidence));
  }
  problem.workload = flags.workload;
  problem.choices = flags.choices;
  ISTHMUS_TRY(canonicalise(problem.choices.codecs_up));
  ISTHMUS_TRY(canonicalise(problem.choices.codecs_down));
  if (problem.choices.contexts.empty())
    problem.choices.contexts = {flags.workload.prompt_tokens + flags.workload.reply_tokens};
  ISTHMUS_ASSIGN(problem.objective, planner::parse_metric(flags.objective));
  for (const std::string& text : flags.limits) {
    ISTHMUS_ASSIGN(const planner::Constraint limit, parse_limit(text));
    problem.constraints.push_back(limit);
  }
  for (const std::string& name : flags.axes) {
    ISTHMUS_ASSIGN(const planner::Metric axis, planner::parse_metric(name));
    problem.axes.push_back(axis);
  }
  return problem;
}

}  // namespace isthmus::tools
