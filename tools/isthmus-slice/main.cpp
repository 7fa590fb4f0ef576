// isthmus-slice: writes a GGUF that holds only the part of a model that one side needs.
#include <isthmus/model/model_file.h>

#include <CLI/CLI.hpp>
#include <filesystem>
#include <string>
#include <vector>

#include "common/command_line.h"
#include "common/layer_range.h"

namespace isthmus::tools {
namespace {

constexpr const char* kTool = "isthmus-slice";

constexpr const char* kFooter =
    "Examples, for a cut at layer 4 of 30:\n"
    "  isthmus-slice --model m.gguf --layers 0:4 --embedding --output front.gguf\n"
    "  isthmus-slice --model m.gguf --layers 4:30 --head --output back.gguf";

struct Flags {
  std::filesystem::path model;
  std::filesystem::path output;
  std::vector<std::string> layers;
  bool embedding = false;
  bool head = false;
};

model::Part part_of(const Flags& flags) {
  model::Part part;
  for (const std::string& range : flags.layers) part.layers.push_back(parse_layers(range).value());
  part.embedding = flags.embedding;
  part.head = flags.head;
  if (part.layers.empty() && !part.embedding && !part.head) {
    throw CLI::RequiredError("--layers, --embedding or --head");
  }
  return part;
}

int main(int argc, char** argv) {
  CLI::App app("Writes a GGUF that holds only the part of a model that one side needs.", kTool);
  app.footer(kFooter);
  Flags flags;
  app.add_option("--model", flags.model, "GGUF file to cut from")->required();
  app.add_option("--layers", flags.layers, "Layers FIRST to END - 1; several ranges with commas")
      ->delimiter(',')
      ->check([](const std::string& range) { return complaint(parse_layers(range)); })
      ->type_name("FIRST:END");
  app.add_flag("--embedding", flags.embedding, "Keep the embedding table (a device's front)");
  app.add_flag("--head", flags.head, "Keep the final norm and the LM head");
  app.add_option("--output", flags.output, "GGUF file to write")->required();
  model::Part part;
  return run_tool(
      app, argc, argv, [&] { part = part_of(flags); },
      [&] { return model::write_slice(flags.model, part, flags.output); });
}

}  // namespace
}  // namespace isthmus::tools

int main(int argc, char** argv) {
  return isthmus::tools::main(argc, argv);
}
