#include "options.h"

#include <isthmus/artefact/artefact.h>
#include <isthmus/codec/spec.h>

#include <algorithm>
#include <string>
#include <system_error>

#include "common/command_line.h"
#include "specs.h"

namespace isthmus::tools {
namespace {

constexpr const char* kProjection = "projection";
constexpr const char* kSoftPrompt = "soft-prompt";
constexpr const char* kAdapters = "adapters";

std::string check_codec(const std::string& pattern) {
  return complaint(codec::CodecSpec::parse(with_clip(pattern, 1)));
}

void declare_start(CLI::App& app, TrainFlags& flags) {
  app.add_option("--codec", flags.codec,
                 "what stands behind the projection; '*' as a clip's max is chosen by "
                 "--clip-quantile; beside a "
                 "clip no rotate and no split")
      ->check(check_codec)
      ->capture_default_str();
  app.add_option("--clip-quantile", flags.clip_quantile,
                 "share of the latents that '*' leaves as they are")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
  auto* dims = app.add_option("--dims", flags.dims, "numbers that a row is projected to")
                   ->check(CLI::PositiveNumber)
                   ->capture_default_str();
  app.add_option(
         "--from", flags.from,
         "artefact to start from; without one: principal components of text and vocabulary, "
         "and a least-squares decoder")
      ->check(CLI::ExistingFile)
      ->excludes(dims);
  app.add_option("--start-tokens", flags.start_tokens, "how much text those are made from")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--soft-prompt", flags.soft_prompt,
                 "rows of a soft prompt; 0: none, or the one of --from")
      ->check(CLI::Range(size_t{0}, artefact::Artefact::kMaxSoftPrompt))
      ->capture_default_str();
  app.add_option("--soft-prompt-text", flags.soft_prompt_text,
                 "what it starts from, repeated to its length")
      ->capture_default_str();
  auto* rank = app.add_option("--adapter-rank", flags.adapter_rank,
                              "of what is added to the matrices of the server's first layers; 0: "
                              "nothing, or what --from has")
                   ->check(CLI::Range(size_t{0}, artefact::Artefact::kMaxRank))
                   ->capture_default_str();
  app.add_option("--adapter-layers", flags.adapter_layers, "how many layers those are")
      ->check(CLI::PositiveNumber)
      ->needs(rank)
      ->capture_default_str();
}

void declare_training(CLI::App& app, TrainFlags& flags) {
  train::TrainOptions& o = flags.options;
  app.add_option("--train", flags.train,
                 "what is trained, separated by commas: projection, soft-prompt, adapters")
      ->delimiter(',')
      ->check(CLI::IsMember({kProjection, kSoftPrompt, kAdapters}))
      ->default_str(kProjection);
  app.add_option("--prefix", flags.prefix,
                 "LEAST,MOST: only this share of a window, its beginning, passes the projection, "
                 "and only what follows is predicted; without it all rows pass and all count")
      ->delimiter(',')
      ->expected(2)
      ->check(CLI::Range(0.0, 1.0));
  app.add_flag(
      "--distil", o.distil,
      "learn to predict what the model predicts from clean rows, in place of what the text says");
  app.add_option("--window", o.window, "tokens read together")->capture_default_str();
  app.add_option("--batch", o.batch, "windows computed together")->capture_default_str();
  app.add_option("--accumulate", o.accumulate, "batches in one step")->capture_default_str();
  app.add_option("--steps", o.steps, "steps of the optimiser")->capture_default_str();
  app.add_option("--warm-up", flags.warm_up, "steps in which the rate rises")
      ->default_str(std::to_string(o.warm_up) + ", or all of fewer");
  app.add_option("--rate", o.rate, "AdamW's highest rate")->capture_default_str();
  app.add_option("--weight-decay", o.weight_decay, "AdamW's")->capture_default_str();
  app.add_option("--clip-gradient", o.clip_gradient, "largest norm of all gradients together")
      ->capture_default_str();
  app.add_option("--seed", o.seed, "of windows, prefixes and noise")->capture_default_str();
  app.add_option("--validation-windows", o.validation_windows, "held-out windows that are measured")
      ->capture_default_str();
  app.add_option("--validate-every", flags.fit.validate_every, "steps")->capture_default_str();
  app.add_option("--patience", flags.fit.patience,
                 "measurements without a better one that end the run; 0: none do")
      ->capture_default_str();
  app.add_option("--device", o.device, "cpu, cuda or cuda:N")->capture_default_str();
  app.add_option("--precision", o.precision, "of frozen weights and products: fp32 or bf16")
      ->check(CLI::IsMember({"fp32", "bf16"}))
      ->capture_default_str();
  app.add_flag("--recompute", o.recompute,
               "compute every layer twice and keep less: memory of one layer in place of all");
  declare_threads(app, o.threads);
}

}  // namespace

void declare(CLI::App& app, TrainFlags& flags) {
  app.add_option("--model", flags.model, "GGUF file or Hugging Face folder")->required();
  app.add_option("--text", flags.text,
                 "public UTF-8 text, a file or a folder of .txt files; may be repeated")
      ->check(CLI::ExistingPath)
      ->required();
  app.add_option("--held-out", flags.held_out, "share of the text, its end, that is measured on")
      ->check(CLI::Range(0.001, 0.5))
      ->capture_default_str();
  app.add_option("--cut", flags.options.cut, "layers of the front")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  declare_start(app, flags);
  declare_training(app, flags);
  app.add_option("--out", flags.out, "the artefact; written whenever it is the best so far")
      ->required();
  app.add_option("--device-part", flags.device_part, "file for the device's part alone");
  app.add_option("--server-part", flags.server_part, "file for the server's part alone");
  app.add_option("--checkpoint", flags.fit.checkpoint,
                 "written while training; a run whose checkpoint is there goes on from it, log and "
                 "all, and needs its --out");
  app.add_option("--log", flags.log, "JSON of every step and measurement");
  app.add_option("--svg", flags.svg, "file to draw the loss in");
}

void check(TrainFlags& flags) {
  const auto wanted = [&](const char* part) {
    return std::ranges::find(flags.train, part) != flags.train.end();
  };
  flags.options.train_projection = flags.train.empty() || wanted(kProjection);
  flags.options.train_soft_prompt = wanted(kSoftPrompt);
  flags.options.train_adapters = wanted(kAdapters);
  if (!flags.prefix.empty()) flags.options.prefix = {flags.prefix[0], flags.prefix[1]};
  flags.options.warm_up =
      flags.warm_up.value_or(std::min(flags.options.warm_up, flags.options.steps));
  if (const Status valid = flags.options.validate(); !valid)
    throw CLI::ValidationError(valid.error().message);
  if (flags.options.train_soft_prompt && flags.soft_prompt == 0 && flags.from.empty())
    throw CLI::ValidationError("--train soft-prompt needs --soft-prompt or --from");
  if (flags.options.train_adapters && flags.adapter_rank == 0 && flags.from.empty())
    throw CLI::ValidationError("--train adapters needs --adapter-rank or --from");
  if (!flags.options.train_adapters && flags.adapter_rank > 0)
    throw CLI::ValidationError("--adapter-rank needs --train adapters");
  for (const std::filesystem::path& written :
       {flags.out, flags.device_part, flags.server_part, flags.log, flags.svg}) {
    std::error_code error;  // of files that are not there
    if (std::filesystem::equivalent(flags.from, written, error)) {
      throw CLI::ValidationError("'" + written.string() +
                                 "' would be written over --from, which going on needs");
    }
  }
}

}  // namespace isthmus::tools
