#include "calibration_flags.h"

#include <utility>

namespace isthmus::tools {

void declare_calibrations(CLI::App& app, std::vector<std::filesystem::path>& files) {
  app.add_option("--calibration", files,
                 "file that a codec's klt:<hash> or reorder:<hash> names (isthmus-calibrate makes "
                 "it); may be repeated");
}

Result<std::vector<std::shared_ptr<const codec::Calibration>>> load_calibrations(
    const std::vector<std::filesystem::path>& files) {
  std::vector<std::shared_ptr<const codec::Calibration>> calibrations;
  for (const std::filesystem::path& file : files) {
    ISTHMUS_ASSIGN(codec::Calibration calibration, codec::Calibration::load(file.string()));
    calibrations.push_back(std::make_shared<const codec::Calibration>(std::move(calibration)));
  }
  return calibrations;
}

}  // namespace isthmus::tools
