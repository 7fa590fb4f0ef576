#include "chart.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string_view>

#include "format.h"

namespace isthmus::tools {
namespace {

constexpr double kLeft = 70;
constexpr double kTop = 44;
constexpr double kWidth = 600;
constexpr double kHeight = 420;
constexpr double kLegend = kLeft + kWidth + 24;
constexpr double kTotalWidth = 1000;
constexpr double kLine = 17;

// Colours that colour-blind readers can tell apart (Okabe and Ito 2008), then greys.
constexpr const char* kColours[] = {"#0072b2", "#e69f00", "#009e73", "#cc79a7",
                                    "#56b4e9", "#d55e00", "#b8a500", "#777777",
                                    "#8c564b", "#e377c2", "#aaaaaa"};

std::string label(double x, double y, std::string_view text, const char* attributes) {
  return format("<text x=\"%.1f\" y=\"%.1f\" %s>", x, y, attributes) + escaped(text) + "</text>\n";
}

std::string line(double x1, double y1, double x2, double y2, const char* colour) {
  return format("<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" stroke=\"%s\"/>\n", x1, y1,
                x2, y2, colour);
}

const char* colour_of(size_t series) {
  return kColours[std::min(series, std::size(kColours) - 1)];
}

/// Where numbers lie on the page.
class Axes {
  static constexpr double kMargin = 1.1;  // of the x axis beside the outermost points

 public:
  explicit Axes(const Chart& chart)
      : linear_(chart.linear), floor_(chart.floor), ceiling_(chart.floor * 10) {
    for (const ChartPoint& point : chart.points) {
      left_ = std::min(left_, point.x);
      right_ = std::max(right_, point.x);
      ceiling_ = std::max({ceiling_, point.y, point.high});
    }
    if (linear_) {
      const double margin = std::max((right_ - left_) * (kMargin - 1) / 2, 0.5);
      left_ -= margin;
      right_ += margin;
      return;
    }
    left_ /= kMargin;
    right_ *= kMargin;
    ceiling_ = std::pow(10.0, std::ceil(std::log10(ceiling_)));
  }

  double x(double value) const {
    if (linear_) return kLeft + kWidth * (value - left_) / (right_ - left_);
    return kLeft + kWidth * std::log(value / left_) / std::log(right_ / left_);
  }
  double y(double value) const {
    if (linear_) return kTop + kHeight * (1 - value / 100);
    const double share = std::log(std::max(value, floor_) / floor_) / std::log(ceiling_ / floor_);
    return kTop + kHeight * (1 - share);
  }
  bool below(double value) const { return !linear_ && value < floor_; }

  std::string grid() const { return linear_ ? linear_grid() : logarithmic_grid(); }

 private:
  std::string linear_grid() const {
    std::string svg;
    const double step = right_ - left_ > 12 ? 5 : 1;
    for (double tick = std::ceil(left_ / step) * step; tick <= right_; tick += step) {
      svg += line(x(tick), kTop, x(tick), kTop + kHeight, "#efefef");
      svg += label(x(tick), kTop + kHeight + 18, format("%g", tick), "text-anchor=\"middle\"");
    }
    for (int tick = 0; tick <= 100; tick += 10) {
      svg += line(kLeft, y(tick), kLeft + kWidth, y(tick), tick % 50 == 0 ? "#c8c8c8" : "#efefef");
      svg += label(kLeft - 6, y(tick) + 4, format("%d", tick), "text-anchor=\"end\"");
    }
    return svg;
  }

  std::string logarithmic_grid() const {
    std::string svg;
    for (double power = std::exp2(std::floor(std::log2(left_))); power <= right_; power *= 2) {
      for (const double tick : {power, 1.5 * power}) {
        if (tick < left_ || tick > right_) continue;
        svg += line(x(tick), kTop, x(tick), kTop + kHeight, tick == power ? "#c8c8c8" : "#efefef");
        svg += label(x(tick), kTop + kHeight + 18, format("%g", tick), "text-anchor=\"middle\"");
      }
    }
    for (double decade = std::pow(10.0, std::floor(std::log10(floor_))); decade <= ceiling_ * 1.001;
         decade *= 10) {
      for (const int digit : {1, 2, 5}) {
        const double tick = decade * digit;
        if (tick < floor_ * 0.999 || tick > ceiling_ * 1.001) continue;
        svg += line(kLeft, y(tick), kLeft + kWidth, y(tick), digit == 1 ? "#c8c8c8" : "#efefef");
        svg += label(kLeft - 6, y(tick) + 4, format("%g", tick), "text-anchor=\"end\"");
      }
    }
    return svg;
  }

  bool linear_;
  double floor_;
  double ceiling_;
  double left_ = std::numeric_limits<double>::infinity();
  double right_ = 0;
};

std::string marker(const Axes& axes, const ChartPoint& point) {
  const double x = axes.x(point.x);
  const double y = axes.y(point.y);
  const bool large = !point.number.empty();
  const char* colour = large ? "#000000" : colour_of(point.series);
  std::string svg;
  if (point.high > point.low) svg += line(x, axes.y(point.low), x, axes.y(point.high), colour);
  svg += format("<circle cx=\"%.1f\" cy=\"%.1f\" r=\"%d\" stroke=\"%s\" fill=\"%s\"/>\n", x, y,
                large ? 5 : 4, colour, axes.below(point.y) ? "#ffffff" : colour);
  if (large) svg += label(x + 8, y - 6, point.number, "font-weight=\"bold\"");
  return svg;
}

std::string legend(const Chart& chart) {
  std::string svg;
  double y = kTop + 8;
  for (size_t i = 0; i < chart.series.size(); ++i, y += kLine) {
    svg +=
        format("<circle cx=\"%.1f\" cy=\"%.1f\" r=\"4\" fill=\"%s\"/>\n", kLegend, y, colour_of(i));
    svg += label(kLegend + 10, y + 4, chart.series[i], "");
  }
  y += kLine;
  for (const std::string& note : chart.notes) {
    svg += label(kLegend - 4, y, note, "");
    y += kLine;
  }
  return svg;
}

}  // namespace

std::string to_svg(const Chart& chart) {
  const Axes axes(chart);
  const double legend_height =
      kTop + kLine * static_cast<double>(chart.series.size() + chart.notes.size() + 2);
  const double height = std::max(kTop + kHeight + 60, legend_height);
  std::string svg = format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %.0f %.0f\" width=\"%.0f\" "
      "font-family=\"sans-serif\" font-size=\"12\">\n"
      "<rect width=\"100%%\" height=\"100%%\" fill=\"#ffffff\"/>\n",
      kTotalWidth, height, kTotalWidth);
  svg += label(kLeft, 24, chart.title, "font-size=\"15\" font-weight=\"bold\"");
  svg += axes.grid();
  svg += label(kLeft + kWidth / 2, kTop + kHeight + 40, chart.x_label, "text-anchor=\"middle\"");
  const double middle = kTop + kHeight / 2;
  svg += label(18, middle, chart.y_label,
               format("text-anchor=\"middle\" transform=\"rotate(-90 18 %.1f)\"", middle).c_str());
  // Large markers last, so that none hides under a small one.
  for (const bool large : {false, true}) {
    for (const ChartPoint& point : chart.points) {
      if (point.number.empty() != large) svg += marker(axes, point);
    }
  }
  return svg + legend(chart) + "</svg>\n";
}

}  // namespace isthmus::tools
