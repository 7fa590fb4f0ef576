// How a reply's figures are shown.
#pragma once

#include <isthmus/edge/device.h>

#include <cstdint>
#include <optional>
#include <string>

namespace isthmus::tools {

/// What the process knows beside the reply.
struct RunFigures {
  uint64_t seed = 0;
  double load_s = 0;
  int32_t hidden_size = 0;
  double weight_mb = 0;  ///< of the layers that run here, packed
  double peak_resident_mb = 0;
  std::optional<edge::VerifyReport> verification;  ///< absent: nothing is checked
};

/// One JSON object on one line; every field is documented in this tool's README.
[[nodiscard]] std::string to_json(const edge::Reply& reply, const RunFigures& run,
                                  const std::optional<edge::PrivacyReport>& privacy);

/// A few lines for people: speed, bytes per token, where the time went.
[[nodiscard]] std::string summary(const edge::Reply& reply, const RunFigures& run);

/// "epsilon 61.2 of 100 for 37 rows": what the conversation has spent. \param budget infinite: none
[[nodiscard]] std::string spent_text(const edge::PrivacyReport& report, double budget);

}  // namespace isthmus::tools
