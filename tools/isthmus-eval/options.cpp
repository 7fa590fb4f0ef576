#include "options.h"

#include <isthmus/codec/spec.h>

#include <algorithm>

#include "specs.h"

#include "common/artefact_flags.h"
#include "common/command_line.h"
#include "common/engine_flags.h"

namespace isthmus::tools {
namespace {

constexpr size_t kMostTokens = size_t{1} << 30;

// Empty for a spec that parses, or else why it does not.
std::string check_spec(const std::string& pattern) {
  return complaint(codec::CodecSpec::parse(with_calibration(pattern, 0)));
}

void declare_specs(CLI::App& app, EvalFlags& flags, CLI::Option* whole) {
  app.add_option(
         "--specs", flags.specs,
         "codecs to evaluate, separated by semicolons; may be repeated; klt:* and "
         "reorder:* name the calibration made at the cut; when absent what the artefacts were "
         "trained with, or a standard list")
      ->delimiter(';')
      ->check(check_spec)
      ->excludes(whole);
  declare_artefacts(app, flags.artefacts)->excludes(whole);
  app.add_option("--svg", flags.svg, "file to draw rate against quality in")->excludes(whole);
  auto* text = app.add_option("--calibration-text", flags.calibration_text,
                              "UTF-8 text to make calibrations from; not the one evaluated")
                   ->excludes(whole);
  app.add_option("--calibration-tokens", flags.calibration_tokens,
                 "how much of it, rounded down to whole windows")
      ->check(CLI::Range(size_t{2}, kMostTokens))
      ->needs(text)
      ->capture_default_str();
}

void declare_whole(CLI::App& app, EvalFlags& flags, CLI::Option* whole) {
  const auto add_bits = [&](const char* name, std::vector<int32_t>& bits, const char* text,
                            const CLI::Validator& known) {
    app.add_option(name, bits, text)
        ->delimiter(',')
        ->check(known)
        ->needs(whole)
        ->capture_default_str();
  };
  add_bits("--front-bits", flags.front_bits,
           "most bits of a weight in front of the cut: 8, 4 or 8,4", CLI::IsMember({8, 4}));
  add_bits("--back-bits", flags.back_bits,
           "most bits of a weight behind the cut, head included: 8, 4 or 8,4",
           CLI::IsMember({8, 4}));
  add_bits("--kv-bits", flags.kv_bits, "of stored keys and values: 16, 8 or 16,8",
           CLI::IsMember({16, 8}));
}

}  // namespace

void declare(CLI::App& app, EvalFlags& flags) {
  app.add_option("--model", flags.model, "GGUF file or Hugging Face folder")->required();
  app.add_option("--text", flags.text, "UTF-8 text to read")->required();
  app.add_option("--tokens", flags.tokens, "how much of it, rounded down to whole windows")
      ->check(CLI::Range(size_t{2}, kMostTokens))
      ->capture_default_str();
  app.add_option("--window", flags.window, "tokens read together, each window from position 0")
      ->check(CLI::Range(size_t{2}, size_t{1} << 20))
      ->capture_default_str();
  app.add_option(
         "--cuts", flags.cuts,
         "layers of the front, separated by commas; when absent the artefacts', or a tenth of "
         "the model's")
      ->delimiter(',')
      ->check(CLI::NonNegativeNumber);
  declare_threads(app, flags.threads);
  app.add_option("--csv", flags.csv, "file to write the table to");
  app.add_flag("--json", flags.json, "print a list with an object for each row of the table");

  app.add_option("--precision", flags.precisions,
                 "fast (packed weights, activations in one byte), fine (in two) or exact (float); "
                 "several with --whole")
      ->delimiter(',')
      ->check(CLI::IsMember({"fast", "fine", "exact"}))
      ->capture_default_str();
  auto* whole = app.add_flag("--whole", flags.whole,
                             "evaluate settings of the engine, not specs, beside the exact "
                             "engine: every combination of the bits below");
  declare_specs(app, flags, whole);
  declare_whole(app, flags, whole);
}

void check(const EvalFlags& flags) {
  const auto needs_text = [](const std::string& spec) {
    return spec.find(kThisCut) != std::string::npos;
  };
  if (flags.calibration_text.empty() && std::ranges::any_of(flags.specs, needs_text)) {
    throw CLI::ValidationError("--specs name a calibration, --calibration-text is missing");
  }
  if (!flags.whole && flags.precisions.size() != 1) {
    throw CLI::ValidationError("--precision takes one value without --whole");
  }
  const EvalFlags plain;
  check_bits(std::ranges::find(flags.precisions, "exact") != flags.precisions.end(),
             flags.front_bits != plain.front_bits || flags.back_bits != plain.back_bits ||
                 flags.kv_bits != plain.kv_bits);
}

}  // namespace isthmus::tools
