// --artefact: the files that a codec's proj:<d>:<hash> names.
#pragma once

#include <isthmus/artefact/artefact.h>
#include <isthmus/core/error.h>

#include <CLI/CLI.hpp>
#include <filesystem>
#include <vector>

namespace isthmus::tools {

CLI::Option* declare_artefacts(CLI::App& app, std::vector<std::filesystem::path>& files);

/// \returns the errors of Artefact::load.
[[nodiscard]] Result<artefact::Artefacts> load_artefacts(
    const std::vector<std::filesystem::path>& files);

}  // namespace isthmus::tools
