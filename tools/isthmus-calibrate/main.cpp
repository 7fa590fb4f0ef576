// isthmus-calibrate: makes the files that klt:<hash> and reorder:<hash> name, one for each cut,
// from public text.
#include <isthmus/audit/evaluate.h>
#include <isthmus/codec/calibration.h>
#include <isthmus/engine/cpu_engine.h>
#include <isthmus/model/model_file.h>
#include <isthmus/text/tokenizer.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "common/command_line.h"
#include "common/engine_flags.h"
#include "common/format.h"
#include "common/terminal.h"
#include "common/text_file.h"

namespace isthmus::tools {
namespace {

using nlohmann::json;

constexpr const char* kTool = "isthmus-calibrate";

constexpr const char* kFooter =
    "Everything in a calibration can be read by everyone who has the file: use public text. Device "
    "and server need\n"
    "the same file.";

struct Flags {
  std::filesystem::path model;
  std::filesystem::path text;
  size_t tokens = 16'384;
  size_t window = 512;
  std::vector<int32_t> cuts;
  std::filesystem::path folder = ".";
  EngineFlags engine;
  int threads = 0;
  bool json = false;
};

/// One calibration that was written.
struct Made {
  int32_t cut = 0;
  uint64_t hash = 0;
  std::filesystem::path file;
};

void declare(CLI::App& app, Flags& flags) {
  app.add_option("--model", flags.model, "GGUF file or Hugging Face folder")->required();
  app.add_option("--text", flags.text, "public UTF-8 text, of the kind that will be sent")
      ->required();
  app.add_option("--tokens", flags.tokens, "how much of it, rounded down to whole windows")
      ->check(CLI::Range(size_t{2}, size_t{1} << 30))
      ->capture_default_str();
  app.add_option("--window", flags.window, "tokens read together, each window from position 0")
      ->check(CLI::Range(size_t{2}, size_t{1} << 20))
      ->capture_default_str();
  app.add_option("--cuts", flags.cuts, "layers of the front, separated by commas")
      ->delimiter(',')
      ->check(CLI::NonNegativeNumber)
      ->required();
  app.add_option("--out", flags.folder, "folder for the files, cut-1.klt and so on")
      ->check(CLI::ExistingDirectory)
      ->capture_default_str();
  declare_precision(app, flags.engine);
  declare_threads(app, flags.threads);
  app.add_flag("--json", flags.json, "print a list of cut, hash and file");
}

Result<audit::TextWindows> read_windows(const Flags& flags, const model::ModelFile& file) {
  ISTHMUS_ASSIGN(const auto tokenizer, text::Tokenizer::make(file.tokenizer()));
  ISTHMUS_ASSIGN(const std::string text, read_text(flags.text));
  return audit::make_windows(text, tokenizer, flags.window, flags.tokens);
}

Result<std::vector<Made>> make_files(const Flags& flags) {
  ISTHMUS_ASSIGN(const auto file, model::ModelFile::open(flags.model));
  const int32_t deepest = *std::ranges::max_element(flags.cuts);
  const int32_t layers = file->config().layer_count;
  if (deepest > layers) {
    return fail(ErrorCode::kInvalidArgument, "calibrate: cut is " + std::to_string(deepest) +
                                                 ", the model has " + std::to_string(layers) +
                                                 " layers");
  }
  ISTHMUS_ASSIGN(const audit::TextWindows text, read_windows(flags, *file));
  ThreadPool pool(static_cast<size_t>(flags.threads));
  model::Part front{.embedding = true};
  if (deepest > 0) front.layers.emplace_back(0, deepest);
  ISTHMUS_ASSIGN(const auto engine,
                 engine::load_cpu_engine(file, front, pool, flags.engine.options()));
  ProgressBar bar("calibrating");
  std::vector<Made> made;
  for (const int32_t cut : flags.cuts) {
    bar.update(static_cast<double>(made.size()) / static_cast<double>(flags.cuts.size()));
    ISTHMUS_ASSIGN(const Matrix rows, audit::boundary_rows({engine.get(), nullptr, cut}, text));
    ISTHMUS_ASSIGN(const auto calibration, codec::calibrate(rows.view()));
    const auto path = flags.folder / ("cut-" + std::to_string(cut) + ".klt");
    ISTHMUS_TRY(calibration.save(path.string()));
    made.push_back({cut, calibration.hash(), path});
  }
  return made;
}

std::string to_text(const std::vector<Made>& made) {
  std::string text = "cut  calibration           file\n";
  for (const Made& m : made) {
    text += format("%3d  klt:%016llx  %s\n", m.cut, static_cast<unsigned long long>(m.hash),
                   m.file.c_str());
  }
  return text;
}

std::string to_json(const std::vector<Made>& made) {
  json list = json::array();
  for (const Made& m : made) {
    list.push_back({{"cut", m.cut},
                    {"hash", format("%016llx", static_cast<unsigned long long>(m.hash))},
                    {"file", m.file.string()}});
  }
  return list.dump(1) + "\n";
}

Status run(const Flags& flags) {
  ISTHMUS_ASSIGN(const std::vector<Made> made, make_files(flags));
  std::fputs((flags.json ? to_json(made) : to_text(made)).c_str(), stdout);
  return check_output();
}

int main(int argc, char** argv) {
  CLI::App app("Makes calibration files, which let boundaries be sent in fewer bits.", kTool);
  app.footer(kFooter);
  Flags flags;
  declare(app, flags);
  return run_tool(
      app, argc, argv, [] {}, [&] { return run(flags); });
}

}  // namespace
}  // namespace isthmus::tools

int main(int argc, char** argv) {
  return isthmus::tools::main(argc, argv);
}
