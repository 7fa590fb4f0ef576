#include "artefact_flags.h"

#include <memory>
#include <utility>

namespace isthmus::tools {

CLI::Option* declare_artefacts(CLI::App& app, std::vector<std::filesystem::path>& files) {
  return app.add_option(
      "--artefact", files,
      "file that a codec's proj:<d>:<hash> names (isthmus-train makes it), or this "
      "side's half; may be repeated");
}

Result<artefact::Artefacts> load_artefacts(const std::vector<std::filesystem::path>& files) {
  artefact::Artefacts artefacts;
  for (const std::filesystem::path& file : files) {
    ISTHMUS_ASSIGN(artefact::Artefact artefact, artefact::Artefact::load(file));
    artefacts.push_back(std::make_shared<const artefact::Artefact>(std::move(artefact)));
  }
  return artefacts;
}

}  // namespace isthmus::tools
