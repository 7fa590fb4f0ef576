// The report as a page: no scripts, no other files, charts as SVG.
#include <isthmus/planner/plan_file.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "common/format.h"
#include "report.h"

namespace isthmus::tools {
namespace {

using planner::Answer;
using planner::Metric;
using planner::Plan;
using planner::Problem;

constexpr double kLeft = 80;
constexpr double kTop = 40;
constexpr double kWidth = 720;
constexpr double kHeight = 300;
// Colours that colour-blind readers can tell apart (Okabe and Ito 2008).
constexpr const char* kColours[] = {"#0072b2", "#e69f00", "#bbbbbb", "#009e73"};

std::string label(double x, double y, const std::string& text, const char* anchor = "middle") {
  return format("<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\">", x, y, anchor) + escaped(text) +
         "</text>\n";
}

/// A round number of about a fifth of `most`.
double tick_of(double most) {
  const double power = std::pow(10.0, std::floor(std::log10(most / 5)));
  for (const double step : {1.0, 2.0, 5.0}) {
    if (most / (power * step) <= 5.5) return power * step;
  }
  return 10 * power;
}

/// One chart: a frame with y ticks from 0, to be filled.
class Page {
 public:
  Page(const std::string& title, const std::string& x_label, const std::string& y_label,
       double most)
      : most_(most > 0 ? 1.05 * most : 1) {
    svg_ = format(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %.0f %.0f\" width=\"%.0f\" "
        "font-family=\"sans-serif\" font-size=\"12\">\n",
        kLeft + kWidth + 30, kTop + kHeight + 60, kLeft + kWidth + 30);
    svg_ += "<g font-weight=\"bold\" font-size=\"14\">" + label(kLeft, 22, title, "start") + "</g>";
    svg_ += label(kLeft + kWidth / 2, kTop + kHeight + 42, x_label);
    svg_ += format("<g transform=\"translate(16 %.0f) rotate(-90)\">", kTop + kHeight / 2) +
            label(0, 0, y_label) + "</g>";
    const double step = tick_of(most_);
    for (double value = 0; value <= most_; value += step) {
      svg_ += format("<line x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\" stroke=\"#dddddd\"/>\n",
                     kLeft, kLeft + kWidth, y(value), y(value));
      svg_ += label(kLeft - 6, y(value) + 4, format("%g", value), "end");
    }
  }

  [[nodiscard]] double y(double value) const { return kTop + kHeight * (1 - value / most_); }
  void bar(double x, double width, double low, double high, const char* colour) {
    svg_ += format("<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" fill=\"%s\"/>\n", x,
                   y(high), width, std::max(0.0, y(low) - y(high)), colour);
  }
  void line(double y_value, const std::string& text) {
    svg_ += format(
        "<line x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\" stroke=\"#d55e00\" "
        "stroke-dasharray=\"6 4\"/>\n",
        kLeft, kLeft + kWidth, y(y_value), y(y_value));
    // Readable over bars as well.
    svg_ += "<g stroke=\"#ffffff\" stroke-width=\"4\" paint-order=\"stroke\">" +
            label(kLeft + kWidth, y(y_value) - 6, text, "end") + "</g>";
  }
  void add(const std::string& more) { svg_ += more; }
  void legend(const std::vector<std::string>& names) {
    double x = kLeft + kWidth;
    for (size_t i = names.size(); i-- > 0;) {
      if (names[i].empty()) continue;
      x -= 8.0 * static_cast<double>(names[i].size()) + 24;
      svg_ += format("<rect x=\"%.1f\" y=\"12\" width=\"11\" height=\"11\" fill=\"%s\"/>\n", x,
                     kColours[i]);
      svg_ += label(x + 15, 22, names[i], "start");
    }
  }
  [[nodiscard]] std::string finish() const { return svg_ + "</svg>\n"; }

 private:
  double most_;
  std::string svg_;
};

/// A bar for each plan, with its place below; the chosen one in bold.
class Bars {
 public:
  Bars(const Answer& answer) : plans_(answer.best_per_cut), chosen_(answer.plan) {}
  [[nodiscard]] double width() const {
    return kWidth / static_cast<double>(std::max<size_t>(1, plans_.size()));
  }
  [[nodiscard]] double x(size_t i) const { return kLeft + width() * static_cast<double>(i); }
  [[nodiscard]] std::string names() const {
    std::string svg;
    const size_t every = plans_.size() > 40 ? 5 : 1;
    for (size_t i = 0; i < plans_.size(); ++i) {
      const bool chosen = chosen_ && chosen_->placement.cut == plans_[i].placement.cut;
      if (i % every != 0 && !chosen) continue;
      const std::string name =
          plans_[i].placement.is_local() ? "dev" : std::to_string(plans_[i].placement.cut);
      svg += (chosen ? "<g font-weight=\"bold\" fill=\"#d55e00\">" : "<g>") +
             label(x(i) + width() / 2, kTop + kHeight + 18, name) + "</g>";
    }
    return svg;
  }

 private:
  const std::vector<Plan>& plans_;
  const std::optional<Plan>& chosen_;
};

std::string latency_chart(const Answer& answer) {
  double most = 0;
  for (const Plan& plan : answer.best_per_cut)
    most = std::max(most, 1e3 * plan.predicted.metrics[Metric::kToken]);
  Page page("time per token, best of each cut", "cut", "ms", most);
  const Bars bars(answer);
  for (size_t i = 0; i < answer.best_per_cut.size(); ++i) {
    const planner::Prediction& p = answer.best_per_cut[i].predicted;
    double low = 0;
    const double parts[] = {p.device, p.codec, p.wire, p.server};
    for (size_t part = 0; part < std::size(parts); ++part) {
      page.bar(bars.x(i) + 1, bars.width() - 2, low, low + 1e3 * parts[part], kColours[part]);
      low += 1e3 * parts[part];
    }
  }
  page.add(bars.names());
  page.legend({"device", "codec", "wire", "server"});
  return page.finish();
}

std::string memory_chart(const Problem& problem, const Answer& answer) {
  double limit = 0;
  for (const planner::Constraint& constraint : problem.constraints)
    if (constraint.metric == Metric::kDeviceMemory) limit = constraint.limit / 1e6;
  double most = 0;
  for (const Plan& plan : answer.best_per_cut) {
    most = std::max({most, plan.predicted.metrics[Metric::kDeviceMemory] / 1e6,
                     plan.predicted.metrics[Metric::kServerMemory] / 1e6});
  }
  const bool limit_shown = limit < 1.5 * most;
  Page page("memory, best of each cut", "cut", "MB", limit_shown ? std::max(most, limit) : most);
  const Bars bars(answer);
  const double half = bars.width() / 2 - 1;
  for (size_t i = 0; i < answer.best_per_cut.size(); ++i) {
    const planner::Metrics& m = answer.best_per_cut[i].predicted.metrics;
    page.bar(bars.x(i) + 1, half, 0, m[Metric::kDeviceMemory] / 1e6, kColours[0]);
    page.bar(bars.x(i) + 1 + half, half, 0, m[Metric::kServerMemory] / 1e6, kColours[3]);
  }
  if (limit_shown) page.line(limit, format("device limit %.0f MB", limit));
  page.add(bars.names());
  // Colours go by place in the list; unnamed ones are not used here.
  page.legend({"device", "", "", "server"});
  return page.finish();
}

/// A value in the unit of the chart.
double shown(Metric metric, double value) {
  switch (metric) {
    case Metric::kToken:
    case Metric::kFirstToken:
    case Metric::kThroughput:
      return 1e3 * value;
    case Metric::kDeviceMemory:
    case Metric::kServerMemory:
      return value / 1e6;
    case Metric::kQuality:
    case Metric::kAttack:
      return 100 * value;
    case Metric::kContext:
      return -value;
    default:
      return value;
  }
}

std::string axis_name(Metric metric) {
  std::string name(planner::to_string(metric));
  std::replace(name.begin(), name.end(), '_', ' ');
  switch (metric) {
    case Metric::kToken:
    case Metric::kFirstToken:
    case Metric::kThroughput:
      return name + ", ms";
    case Metric::kDeviceMemory:
    case Metric::kServerMemory:
      return name + ", MB";
    case Metric::kTraffic:
      return name + ", bytes a token";
    case Metric::kQuality:
      return name + " loss, %";
    case Metric::kAttack:
      return name + ", % of tokens read";
    default:
      return name;
  }
}

std::string front_chart(const Problem& problem, const Answer& answer) {
  if (problem.axes.size() < 2) return {};
  const Metric across = problem.axes[0];
  const Metric up = problem.axes[1];
  double widest = 0;
  double most = 0;
  for (const Plan& plan : answer.pareto) {
    widest = std::max(widest, shown(across, plan.predicted.metrics[across]));
    most = std::max(most, shown(up, plan.predicted.metrics[up]));
  }
  widest = widest > 0 ? 1.08 * widest : 1;
  Page page("Pareto front, cuts beside the points", axis_name(across), axis_name(up), most);
  const auto x = [&](double value) { return kLeft + kWidth * value / widest; };
  const double step = tick_of(widest);
  for (double value = 0; value <= widest; value += step)
    page.add(label(x(value), kTop + kHeight + 18, format("%g", value)));
  double label_end = -1;
  for (const Plan& plan : answer.pareto) {
    const double px = x(shown(across, plan.predicted.metrics[across]));
    const double py = page.y(shown(up, plan.predicted.metrics[up]));
    const bool chosen = answer.plan && answer.plan->placement == plan.placement &&
                        answer.plan->codec_up == plan.codec_up;
    page.add(format("<circle cx=\"%.1f\" cy=\"%.1f\" r=\"%d\" fill=\"%s\"/>\n", px, py,
                    chosen ? 7 : 4, chosen ? "#d55e00" : kColours[0]));
    // Names that would lie on each other are left out.
    if (!chosen && std::abs(px - label_end) < 26) continue;
    page.add(label(px + 8, py - 6, place_name(plan), "start"));
    label_end = px;
  }
  return page.finish();
}

std::string cell(const std::string& text) {
  return "<td>" + escaped(text) + "</td>";
}

std::string table(const std::vector<Plan>& plans) {
  std::string html =
      "<table><tr><th>cut</th><th>bits front, back, cache</th><th>context</th><th>codec</th>"
      "<th>token</th><th>first token</th><th>device</th><th>server</th><th>traffic</th>"
      "<th>quality loss</th><th>attack</th></tr>\n";
  for (const Plan& plan : plans) {
    const planner::Metrics& m = plan.predicted.metrics;
    html += "<tr>" + cell(place_name(plan)) +
            cell(format("%d, %d, %d", plan.front_bits, plan.back_bits, plan.kv_bits)) +
            cell(std::to_string(plan.context)) +
            cell(plan.codec_down.empty()
                     ? plan.codec_up
                     : format("%s / %s", plan.codec_up.c_str(), plan.codec_down.c_str()));
    for (const Metric metric :
         {Metric::kToken, Metric::kFirstToken, Metric::kDeviceMemory, Metric::kServerMemory,
          Metric::kTraffic, Metric::kQuality, Metric::kAttack}) {
      html += cell(planner::describe(metric, m[metric]));
    }
    html += "</tr>\n";
  }
  return html + "</table>\n";
}

}  // namespace

std::string to_html(const Problem& problem, const Answer& answer) {
  std::string html =
      "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>Isthmus plan</title>"
      "<style>body{font-family:sans-serif;max-width:60em;margin:2em auto;padding:0 1em;color:#222}"
      "table{border-collapse:collapse;font-size:13px}td,th{border-bottom:1px solid "
      "#ddd;padding:4px "
      "8px;text-align:left}svg{margin:1em 0;max-width:100%}</style></head><body>\n<h1>Isthmus "
      "plan</h1>\n";
  html += "<p>" + escaped(problem.device.machine) + " and " + escaped(problem.server.machine) +
          format(", round trip %.1f ms, up %.1f Mbit/s, down %.1f Mbit/s</p>\n",
                 1e3 * problem.link.rtt_seconds, problem.link.up_bits_per_second / 1e6,
                 problem.link.down_bits_per_second / 1e6);
  if (answer.plan) html += table({*answer.plan});
  html += "<ul>\n";
  for (const std::string& reason : planner::why(problem, answer))
    html += "<li>" + escaped(reason) + "</li>\n";
  html += "</ul>\n" + front_chart(problem, answer) + latency_chart(answer) +
          memory_chart(problem, answer) + "<h2>Pareto front</h2>\n" + table(answer.pareto) +
          "<h2>Best of each cut</h2>\n" + table(answer.best_per_cut);
  return html + "</body></html>\n";
}

}  // namespace isthmus::tools
