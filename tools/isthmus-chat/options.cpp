#include "options.h"

#include <isthmus/edge/plan.h>
#include <isthmus/model/model_file.h>
#include <isthmus/transport/address.h>

#include <algorithm>

#include "common/artefact_flags.h"
#include "common/calibration_flags.h"
#include "common/command_line.h"
#include "common/text_file.h"

namespace isthmus::tools {
namespace {

// Where to cut when the user does not say: what a sliced file holds, else a tenth of the layers.
Result<int32_t> default_cut(const std::filesystem::path& path) {
  ISTHMUS_ASSIGN(const auto file, model::ModelFile::open(path));
  const int32_t layer_count = file->config().layer_count;
  const model::Part part = model::available_part(*file);
  const int32_t held =
      part.layers.empty() || part.layers.front().first > 0 ? 0 : part.layers.front().second;
  return held < layer_count ? held : std::max(1, layer_count / 10);
}

// One ledger for each installation, beside its key.
privacy::LedgerOptions ledger_options(const ChatFlags& flags, const transport::KeyPaths& paths) {
  privacy::LedgerOptions options{.file = paths.client_key.parent_path() / "ledger"};
  options.conversation.delta = options.period.delta = flags.delta;
  if (flags.budget) options.conversation.epsilon = *flags.budget;
  if (flags.period_budget) options.period.epsilon = *flags.period_budget;
  return options;
}

}  // namespace

void declare(CLI::App& app, ChatFlags& flags) {
  const auto spec_is_valid = [](const std::string& spec) {
    return complaint(codec::CodecSpec::parse(spec));
  };
  app.add_option("--model", flags.model, "GGUF file (a slice will do) or Hugging Face folder")
      ->required();
  auto* server =
      app.add_option("--server", flags.servers,
                     "connection string, isthmus://host:port?key=...; may be repeated: the others "
                     "go on when the first is lost");
  app.add_flag("--local", flags.local, "run the whole model here")->excludes(server);
  app.add_option("--cut", flags.cut,
                 "run layers [0, CUT) here; a tenth of them, or what a slice holds, when absent");
  app.add_option("--tail", flags.tail,
                 "run layers [TAIL, L), norm and head here; the server chooses tokens when absent");
  app.add_option("--prompt", flags.prompt,
                 "say this, print the reply, and leave; a conversation when absent");
  app.add_option("--system", flags.system, "instructions that open the conversation");
  app.add_option("--chat-format", flags.chat_format,
                 "raw, chatml, llama2, llama3, mistral, gemma or qwen")
      ->check([](const std::string& name) { return complaint(text::parse_chat_format(name)); });
  app.add_flag("--raw", flags.raw, "send the prompt as it is, without a chat format");
  app.add_flag("--json", flags.json, "print one JSON object per reply instead of the text");
  app.add_option("--max-tokens", flags.generate.max_tokens, "longest reply")->capture_default_str();
  app.add_option("--temperature", flags.generate.sampling.temperature,
                 "0: always the likeliest token")
      ->capture_default_str();
  app.add_option("--top-k", flags.generate.sampling.top_k, "choose among the k likeliest; 0: all")
      ->capture_default_str();
  app.add_option("--top-p", flags.generate.sampling.top_p,
                 "choose among the likeliest with this probability together")
      ->capture_default_str();
  app.add_option("--min-p", flags.generate.sampling.min_p,
                 "least probability, relative to the likeliest token")
      ->capture_default_str();
  app.add_option("--repetition-penalty", flags.generate.sampling.repetition_penalty, "1: none")
      ->capture_default_str();
  app.add_option("--seed", flags.seed, "of the random choice; a new one when absent");
  app.add_option("--stop", flags.generate.stop, "end the reply before this text; may be repeated");
  app.add_option("--context", flags.context, "tokens the conversation may have")
      ->capture_default_str();
  declare_threads(app, flags.threads);
  declare_precision(app, flags.engine);
  declare_storage(app, flags.engine, "--front-bits");
  app.add_option(
         "--codec", flags.codec,
         "how activations cross: f32, f16, or stages such as split:4|rotate|int4|rans; with "
         "--artefact what it was trained with, and at its cut, unless told otherwise")
      ->check(spec_is_valid)
      ->default_str(edge::default_codec().to_string());
  app.add_option(
         "--codec-down", flags.codec_down,
         "how they come back for a tail; as --codec when absent, or its default if that has a "
         "mechanism, a projection or a calibration")
      ->check(spec_is_valid);
  app.add_option("--codec-clean", flags.codec_clean,
                 "at cut 0 behind a mechanism, how generated tokens cross: they are not noised")
      ->check(spec_is_valid)
      ->capture_default_str();
  declare_calibrations(app, flags.calibrations);
  declare_artefacts(app, flags.artefacts);
  app.add_option("--budget", flags.budget,
                 "epsilon that a mechanism may spend on this conversation; no limit when absent");
  app.add_option(
      "--period-budget", flags.period_budget,
      "epsilon that all conversations with a server, whatever its models, may spend in 30 "
      "days; no limit when absent");
  app.add_option("--delta", flags.delta, "where epsilons are stated")->capture_default_str();
  auto* verify =
      app.add_option("--verify", flags.verify.share,
                     "share of the server's answers, drawn at random, that are worked out "
                     "again after each reply: here, if the whole model is")
          ->check(CLI::Range(0.0, 1.0))
          ->capture_default_str();
  app.add_option("--verify-server", flags.verify.server,
                 "another server that works them out; it gets to see the same activations")
      ->needs(verify);
  app.add_option("--timeout", flags.timeout_s, "seconds to wait for one answer of the server")
      ->capture_default_str();
  app.add_option("--home", flags.home,
                 "folder of this device's key and ledger instead of ~/.config/isthmus");
  app.add_flag("--insecure", flags.insecure, "accept a server without a key");
  CLI::Option* plan =
      app.add_option("--plan", flags.plan.file,
                     "file of isthmus-plan that decides placement, precision, codecs and context");
  for (const char* decided : {"--local", "--cut", "--tail", "--context", "--threads", "--precision",
                              "--kv-bits", "--front-bits", "--codec", "--codec-down"}) {
    plan->excludes(decided);
  }
  app.add_option("--replan", flags.plan.replan,
                 "when replies are off the plan, make one for the next conversation with the link "
                 "as it is now, and write it to this file")
      ->needs(plan);
  app.add_option("--plan-patience", flags.plan.patience_s,
                 "seconds that replies must be off, all in the same direction")
      ->needs(plan)
      ->check(CLI::Range(0.0, 86400.0))
      ->capture_default_str();
}

void check(const ChatFlags& flags) {
  if (!flags.local && flags.servers.empty() && flags.plan.file.empty())
    throw CLI::RequiredError("--server, --local or --plan");
  if (flags.local && (flags.cut || flags.tail)) {
    throw CLI::ValidationError("--cut and --tail need --server");
  }
  if (!(flags.timeout_s >= 0.001 && flags.timeout_s <= 86400)) {
    throw CLI::ValidationError("--timeout must be in [0.001, 86400] seconds");
  }
  check(flags.engine);
  if (flags.context < 1) throw CLI::ValidationError("--context must be at least 1");
  if (const Status valid = flags.generate.validate(); !valid)
    throw CLI::ValidationError(valid.error().message);
  if (!flags.verify.server.empty()) {
    const auto address = transport::ServerAddress::parse(flags.verify.server);
    if (!address) throw CLI::ValidationError(address.error().message);
  }
  if (flags.local && flags.verify.share > 0)
    throw CLI::ValidationError("--verify needs a --server to check");
  if (flags.local) return;
  for (const std::string& server : flags.servers) {
    const auto address = transport::ServerAddress::parse(server);
    if (!address) throw CLI::ValidationError(address.error().message);
  }
}

Result<ChatFiles> read_files(const ChatFlags& flags) {
  ChatFiles files;
  if (!flags.plan.file.empty()) {
    ISTHMUS_ASSIGN(const std::string text, read_text(flags.plan.file));
    ISTHMUS_ASSIGN(files.plan, planner::parse_plan(text, flags.plan.file.string()));
    if (files.plan->placement.is_local() && flags.verify.share > 0)
      return fail(ErrorCode::kInvalidArgument,
                  "chat: the plan runs the whole model here: --verify has no server to check");
  }
  ISTHMUS_ASSIGN(files.artefacts, load_artefacts(flags.artefacts));
  return files;
}

Result<edge::DeviceOptions> device_options(const ChatFlags& flags, const ChatFiles& files) {
  edge::DeviceOptions options{.model = flags.model,
                              .cut = flags.cut,
                              .tail = flags.tail,
                              .threads = static_cast<size_t>(flags.threads),
                              .engine = flags.engine.options()};
  if (files.plan) {
    ISTHMUS_ASSIGN(const auto file, model::ModelFile::open(flags.model));
    ISTHMUS_TRY(edge::apply_plan(*files.plan, file->config(), options));
    if (options.cut && flags.servers.empty())
      return fail(ErrorCode::kInvalidArgument,
                  "chat: the plan splits the model: --server is needed");
  } else if (!flags.local && !options.cut) {
    if (files.artefacts.empty()) {
      ISTHMUS_ASSIGN(options.cut, default_cut(flags.model));
    } else {
      options.cut = files.artefacts.front()->origin().cut;
    }
  }
  if (flags.raw) {
    options.chat_format = text::ChatFormat::kRaw;
  } else if (!flags.chat_format.empty()) {
    ISTHMUS_ASSIGN(options.chat_format, text::parse_chat_format(flags.chat_format));
  }
  return options;
}

Result<edge::SessionOptions> session_options(const ChatFlags& flags, const ChatFiles& files) {
  edge::SessionOptions options{.max_tokens = flags.context, .artefacts = files.artefacts};
  if (files.plan) ISTHMUS_TRY(edge::apply_plan(*files.plan, options));
  const bool has_budget = flags.budget || flags.period_budget;
  if (flags.servers.empty()) {
    if (has_budget) return fail(ErrorCode::kInvalidArgument, "chat: a budget needs a --server");
    return options;
  }
  options.server = flags.servers.front();
  options.fallback_servers.assign(flags.servers.begin() + 1, flags.servers.end());
  options.allow_plaintext = flags.insecure;
  options.request_timeout = std::chrono::milliseconds(static_cast<int64_t>(flags.timeout_s * 1000));
  if (!flags.codec.empty()) {
    ISTHMUS_ASSIGN(options.codec, codec::CodecSpec::parse(flags.codec));
  } else if (!files.plan && !files.artefacts.empty()) {
    options.codec = files.artefacts.front()->codec();
  }
  if (!flags.codec_down.empty()) {
    ISTHMUS_ASSIGN(options.codec_down, codec::CodecSpec::parse(flags.codec_down));
  }
  options.verify = flags.verify;
  ISTHMUS_ASSIGN(options.codec_clean, codec::CodecSpec::parse(flags.codec_clean));
  ISTHMUS_ASSIGN(options.calibrations, load_calibrations(flags.calibrations));
  const transport::KeyPaths paths =
      flags.home.empty() ? transport::KeyPaths::standard() : transport::KeyPaths::in(flags.home);
  // Also without encryption: it makes the folder that the ledger is kept in.
  ISTHMUS_ASSIGN(options.keys, transport::load_or_create_keys(paths.client_key));
  if (options.codec.mechanism() == nullptr) {
    if (has_budget) {
      return fail(
          ErrorCode::kInvalidArgument,
          "chat: a budget needs a codec with a mechanism, not " + options.codec.to_string());
    }
  } else {
    ISTHMUS_ASSIGN(options.ledger, privacy::Ledger::open(ledger_options(flags, paths)));
  }
  return options;
}

}  // namespace isthmus::tools
