#include "options.h"

#include <isthmus/codec/codec.h>

#include <algorithm>
#include <utility>

#include "common/command_line.h"
#include "synthetic_model.h"

namespace isthmus::tools {
namespace {

constexpr std::pair<Segment, std::string_view> kSegments[] = {{Segment::kWhole, "whole"},
                                                              {Segment::kFront, "front"},
                                                              {Segment::kBack, "back"},
                                                              {Segment::kSplit, "split"}};
constexpr std::pair<Phase, std::string_view> kPhases[] = {{Phase::kPrompt, "prompt"},
                                                          {Phase::kDecode, "decode"}};

template <typename Names, typename Value>
std::string name_of(const Names& names, Value value) {
  const auto* found = std::find_if(std::begin(names), std::end(names),
                                   [&](const auto& entry) { return entry.first == value; });
  return std::string(found->second);
}

std::vector<Case> all_cases() {
  std::vector<Case> cases;
  for (const auto& segment : kSegments) {
    for (const auto& phase : kPhases) cases.push_back({segment.first, phase.first});
  }
  return cases;
}

}  // namespace

Result<Case> Case::parse(std::string_view text) {
  for (const Case& known : all_cases()) {
    if (known.to_string() == text) return known;
  }
  return fail(ErrorCode::kInvalidArgument,
              "bench: '" + std::string(text) +
                  "' is no case, those are whole, front, back or split, then /prompt or /decode");
}

std::string Case::to_string() const {
  return name_of(kSegments, segment) + "/" + name_of(kPhases, phase);
}

std::vector<Case> BenchFlags::chosen_cases() const {
  if (cases.empty()) return all_cases();
  std::vector<Case> chosen;
  chosen.reserve(cases.size());
  for (const std::string& name : cases) chosen.push_back(Case::parse(name).value());
  return chosen;
}

void declare(CLI::App& app, BenchFlags& flags) {
  constexpr int32_t kMostTokens = 1 << 20;
  auto* subject = app.add_option_group("subject");
  subject->add_option("--model", flags.model, "GGUF file or Hugging Face folder");
  subject
      ->add_option("--shape", flags.shape, "random weights of this shape: layers Q4_0, head Q8_0")
      ->check(CLI::IsMember(synthetic_shapes()));
  subject->require_option(1);
  declare_threads(app, flags.threads, "CPU threads, on each side of a split");
  app.add_option("--prompt", flags.prompt, "tokens of a prompt")
      ->check(CLI::Range(1, kMostTokens))
      ->capture_default_str();
  app.add_option("--decode", flags.decode, "tokens decoded one after the other")
      ->check(CLI::Range(1, kMostTokens))
      ->capture_default_str();
  app.add_option("--context", flags.context, "tokens held when decoding starts")
      ->check(CLI::Range(1, kMostTokens))
      ->capture_default_str();
  app.add_option("--repetitions", flags.repetitions, "timed runs of each case")
      ->check(CLI::Range(1, 10'000))
      ->capture_default_str();
  app.add_option("--cut", flags.cut, "layers of the front; a tenth of the model's when absent")
      ->check(CLI::NonNegativeNumber);
  app.add_option("--cases", flags.cases,
                 "which to run, separated by commas: whole, front, back or split, then /prompt or "
                 "/decode; all when absent")
      ->delimiter(',')
      ->check([](const std::string& name) { return complaint(Case::parse(name)); });
  app.add_option("--codec", flags.codec, "how activations cross in the split cases")
      ->check([](const std::string& spec) { return complaint(codec::CodecSpec::parse(spec)); })
      ->capture_default_str();
  declare_precision(app, flags.engine);
  declare_storage(app, flags.engine, "--weight-bits");
  app.add_flag("--json", flags.json, "print a list with an object for each case");
}

}  // namespace isthmus::tools
