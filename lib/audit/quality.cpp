#include <isthmus/audit/quality.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <stdexcept>
#include <string>

namespace isthmus::audit {
namespace {

// Two-sided 95 % quantile of Student's t; past 30 degrees of freedom within 0.003.
double student_quantile(size_t degrees) {
  constexpr double kTable[] = {12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306,
                               2.262,  2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120,
                               2.110,  2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064,
                               2.060,  2.056, 2.052, 2.048, 2.045, 2.042};
  constexpr size_t kEntries = std::size(kTable);
  return degrees <= kEntries ? kTable[degrees - 1] : 1.96 + 2.4 / static_cast<double>(degrees);
}

double mean(std::span<const double> values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

// Half the width of the interval of the mean.
std::optional<double> half_width(std::span<const double> values) {
  if (values.size() < 2) return std::nullopt;
  const double center = mean(values);
  double squares = 0;
  for (const double value : values) squares += (value - center) * (value - center);
  const auto count = static_cast<double>(values.size());
  return student_quantile(values.size() - 1) * std::sqrt(squares / (count - 1) / count);
}

// Of each window, how much its mean NLL is above the reference's.
std::vector<double> window_differences(const PredictionLog& log) {
  if (log.predictions.empty() || log.per_window == 0 ||
      log.predictions.size() % log.per_window != 0) {
    throw std::invalid_argument("audit: a log of " + std::to_string(log.predictions.size()) +
                                " predictions is no whole windows of " +
                                std::to_string(log.per_window));
  }
  std::vector<double> differences(log.windows());
  for (size_t i = 0; i < log.predictions.size(); ++i) {
    const Prediction& prediction = log.predictions[i];
    differences[i / log.per_window] += prediction.nll - prediction.nll_reference;
  }
  for (double& difference : differences) difference /= static_cast<double>(log.per_window);
  return differences;
}

}  // namespace

Result<TextWindows> make_windows(std::string_view text, const text::Tokenizer& tokenizer,
                                 size_t window, size_t max_tokens) {
  if (window < 2) {
    return fail(ErrorCode::kInvalidArgument,
                "audit: a window is " + std::to_string(window) + " tokens, it needs 2");
  }
  if (max_tokens < window) {
    return fail(ErrorCode::kInvalidArgument, "audit: " + std::to_string(max_tokens) +
                                                 " tokens are asked for, a window is " +
                                                 std::to_string(window));
  }
  TextWindows windows{.tokens = tokenizer.encode(text), .window = window};
  const size_t available = std::min(windows.tokens.size(), max_tokens);
  if (available < window) {
    return fail(ErrorCode::kInvalidArgument, "audit: the text gives " + std::to_string(available) +
                                                 " tokens, a window is " + std::to_string(window));
  }
  windows.tokens.resize(available / window * window);
  return windows;
}

bool overlap(const TextWindows& text, const TextWindows& other) {
  // Shorter ones stand in many texts.
  constexpr size_t kTelling = 32;
  const size_t length =
      std::min({std::max(text.window, kTelling), text.tokens.size(), other.tokens.size()});
  if (length == 0) return false;
  using Span = std::span<const int32_t>;
  const auto before = [](Span a, Span b) { return std::ranges::lexicographical_compare(a, b); };
  std::vector<Span> windows;
  for (size_t first = 0; first + length <= text.tokens.size(); first += text.window)
    windows.push_back(Span(text.tokens).subspan(first, length));
  std::ranges::sort(windows, before);
  for (size_t first = 0; first + length <= other.tokens.size(); ++first) {
    const Span stretch = Span(other.tokens).subspan(first, length);
    if (std::ranges::binary_search(windows, stretch, before)) return true;
  }
  return false;
}

Quality summarize(const PredictionLog& log) {
  const std::vector<double> differences = window_differences(log);
  Quality quality{.predictions = log.predictions.size()};
  double nll = 0;
  double nll_reference = 0;
  size_t flips = 0;
  for (const Prediction& prediction : log.predictions) {
    nll += prediction.nll;
    nll_reference += prediction.nll_reference;
    quality.kl_nats += prediction.kl;
    flips += prediction.flipped ? 1 : 0;
  }
  const auto count = static_cast<double>(log.predictions.size());
  quality.perplexity = std::exp(nll / count);
  quality.perplexity_reference = std::exp(nll_reference / count);
  quality.kl_nats /= count;
  quality.top1_flips = static_cast<double>(flips) / count;
  const double difference = mean(differences);
  quality.change = std::expm1(difference);
  if (const auto half = half_width(differences)) {
    quality.change_interval = {std::expm1(difference - *half), std::expm1(difference + *half)};
  }
  return quality;
}

MeanChange mean_change(std::span<const PredictionLog* const> logs) {
  if (logs.empty()) throw std::invalid_argument("audit: the mean of no logs");
  // To first order, a window moves the mean of the changes by the mean of what it adds to each.
  std::vector<double> windows(logs.front()->windows());
  MeanChange result;
  for (const PredictionLog* log : logs) {
    const std::vector<double> differences = window_differences(*log);
    if (differences.size() != windows.size()) {
      throw std::invalid_argument("audit: logs of different texts are averaged");
    }
    const double factor = std::exp(mean(differences)) / static_cast<double>(logs.size());
    for (size_t i = 0; i < windows.size(); ++i) windows[i] += factor * differences[i];
    result.change += std::expm1(mean(differences)) / static_cast<double>(logs.size());
  }
  if (const auto half = half_width(windows)) {
    result.interval = {result.change - *half, result.change + *half};
  }
  return result;
}

}  // namespace isthmus::audit
