// --calibration: the files that a codec's klt:<hash> or reorder:<hash> names.
#pragma once

#include <isthmus/codec/calibration.h>
#include <isthmus/core/error.h>

#include <CLI/CLI.hpp>
#include <filesystem>
#include <memory>
#include <vector>

namespace isthmus::tools {

void declare_calibrations(CLI::App& app, std::vector<std::filesystem::path>& files);

/// \returns the errors of Calibration::load.
[[nodiscard]] Result<std::vector<std::shared_ptr<const codec::Calibration>>> load_calibrations(
    const std::vector<std::filesystem::path>& files);

}  // namespace isthmus::tools
