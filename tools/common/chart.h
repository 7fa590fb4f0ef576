// A small scatter chart as SVG: enough for rate against quality.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

namespace isthmus::tools {

struct ChartPoint {
  double x = 1;
  double y = 0;
  size_t series = 0;   ///< decides the colour; index into Chart::series
  std::string number;  ///< written beside a large marker; empty: a small marker
  double low = 0;      ///< a whisker from here
  double high = 0;     ///< to here, where it is above `low`
};

/// Points over logarithmic axes, or over linear ones from 0 to 100 (y) and from the least to the
/// largest x. What is below `floor` on a logarithmic axis is drawn on it, hollow.
struct Chart {
  std::string title;
  std::string x_label;
  std::string y_label;
  bool linear = false;
  double floor = 1e-3;  ///< lowest y shown; above 0; logarithmic only
  std::vector<std::string> series;
  std::vector<ChartPoint> points;
  std::vector<std::string> notes;  ///< lines of text under the legend
};

[[nodiscard]] std::string to_svg(const Chart& chart);

}  // namespace isthmus::tools
