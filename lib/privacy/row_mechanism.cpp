#include "row_mechanism.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

namespace isthmus::privacy {
namespace {

tl::unexpected<Error> wrong_width(const char* what, size_t got, size_t width) {
  return fail(ErrorCode::kInvalidArgument, std::string("privacy: ") + what + " has " +
                                               std::to_string(got) + " numbers, the width is " +
                                               std::to_string(width));
}

Status check_finite(std::span<const float> row) {
  for (const float v : row)
    if (!std::isfinite(v)) return fail(ErrorCode::kNotFinite, "privacy: row is not finite");
  return {};
}

/// `row` scaled into the ball, then clamped into the cube. Rounding could leave a norm a few units
/// in the last place too long; the factor just below 1 takes that away.
std::vector<double> clipped(std::span<const float> row, const Clip& clip) {
  std::vector<double> out(row.begin(), row.end());
  if (std::isfinite(clip.norm_l2)) {
    double squares = 0;
    for (const double v : out) squares += v * v;
    const double norm = std::sqrt(squares);
    if (norm > clip.norm_l2)
      for (double& v : out) v *= clip.norm_l2 / norm * (1 - 1e-10);
  }
  for (double& v : out) v = std::clamp(v, -clip.coordinate, clip.coordinate);
  return out;
}

}  // namespace

double Setup::row_norm() const {
  return std::min(clip.norm_l2, clip.coordinate * std::sqrt(static_cast<double>(width)));
}

Status RowMechanism::check_sizes(size_t row, size_t codes) const {
  if (row != setup_.width) return wrong_width("row", row, setup_.width);
  if (codes != setup_.width) return wrong_width("codes", codes, setup_.width);
  return {};
}

Status RowMechanism::check_codes(std::span<const int32_t> codes) const {
  const CodeRange range = code_range();
  for (const int32_t code : codes) {
    if (code < range.first || code > range.last)
      return fail(ErrorCode::kCorrupt, "privacy: code is " + std::to_string(code) + ", must be " +
                                           std::to_string(range.first) + " to " +
                                           std::to_string(range.last));
  }
  return {};
}

Result<std::vector<double>> RowMechanism::log_probabilities(std::span<const float> row,
                                                            std::span<const int32_t> codes) const {
  const size_t width = setup_.width;
  if (codes.size() % width != 0)
    return wrong_width("the last row of codes", codes.size() % width, width);
  ISTHMUS_TRY(check_sizes(row.size(), width));
  ISTHMUS_TRY(check_finite(row));
  ISTHMUS_TRY(check_codes(codes));
  const std::vector<double> values = clipped(row, setup_.clip);
  const CodeRange range = code_range();
  if (static_cast<size_t>(range.last - range.first) < codes.size() / width)
    return tabled_sums(values, codes);
  std::vector<double> sums(codes.size() / width);
  for (size_t i = 0; i < codes.size(); ++i)
    sums[i / width] += log_probability(values[i % width], codes[i]);
  return sums;
}

/// The same, every code's logarithm taken only once for each coordinate.
std::vector<double> RowMechanism::tabled_sums(std::span<const double> clipped,
                                              std::span<const int32_t> codes) const {
  const CodeRange range = code_range();
  const auto kinds = static_cast<size_t>(range.last - range.first) + 1;
  std::vector<double> table;
  table.reserve(clipped.size() * kinds);
  for (const double value : clipped)
    for (int32_t code = range.first; code <= range.last; ++code)
      table.push_back(log_probability(value, code));
  std::vector<double> sums;
  for (; !codes.empty(); codes = codes.subspan(clipped.size())) {
    double sum = 0;
    for (size_t i = 0; i < clipped.size(); ++i)
      sum += table[i * kinds + static_cast<size_t>(codes[i] - range.first)];
    sums.push_back(sum);
  }
  return sums;
}

Status RowMechanism::randomize(std::span<const float> row, RandomSource& random,
                               std::span<int32_t> codes) const {
  ISTHMUS_TRY(check_sizes(row.size(), codes.size()));
  ISTHMUS_TRY(check_finite(row));
  draw(clipped(row, setup_.clip), random, codes);
  return {};
}

Status RowMechanism::estimate(std::span<const int32_t> codes, std::span<float> row) const {
  ISTHMUS_TRY(check_sizes(row.size(), codes.size()));
  ISTHMUS_TRY(check_codes(codes));
  for (size_t i = 0; i < codes.size(); ++i) row[i] = decode(codes[i]);
  return {};
}

PrivacyStatement RowMechanism::statement(uint64_t prompt_rows) const {
  PrivacyStatement out;
  out.mechanism = description();
  out.adjacency = "any two rows of " + std::to_string(setup_.width) + " numbers";
  if (std::isfinite(setup_.clip.coordinate))
    out.adjacency += ", each within +-" + rounded_text(setup_.clip.coordinate);
  const bool ball = uses_norm() && std::isfinite(setup_.clip.norm_l2);
  if (ball) out.adjacency += ", of norm up to " + rounded_text(setup_.clip.norm_l2);
  Setup counted = setup_;
  if (!ball) counted.clip.norm_l2 = std::numeric_limits<double>::infinity();
  out.sensitivity_l2 = 2 * counted.row_norm();
  out.delta = setup_.spec.delta;
  out.epsilon_per_row = epsilon(1, out.delta);
  out.prompt_rows = prompt_rows;
  out.epsilon_per_prompt = epsilon(prompt_rows, out.delta);
  out.composition = composition();
  return out;
}

std::string PrivacyStatement::to_string() const {
  return "mechanism    " + mechanism + "\nadjacency    " + adjacency + "\nsensitivity  " +
         rounded_text(sensitivity_l2) + " (largest Euclidean distance of two such rows)" +
         "\nper row      epsilon " + rounded_text(epsilon_per_row) + ", delta " +
         number_text(delta) + "\nper prompt   epsilon " + rounded_text(epsilon_per_prompt) +
         ", delta " + number_text(delta) + ", " + std::to_string(prompt_rows) + " rows" +
         "\ncomposition  " + composition +
         "\nnot covered  the unit is a boundary row, not a token: from layer 1 on, one token of "
         "the text influences every later row, so only the figure for the whole prompt bounds what "
         "is told about a token. Message sizes, times and the generated text are not covered, nor "
         "is what the server computes from what it was told.\n";
}

std::string rounded_text(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.4g", value);
  return text;
}

tl::unexpected<Error> refused(std::string_view field, double value, std::string_view rule) {
  return fail(ErrorCode::kInvalidArgument, "privacy: " + std::string(field) + " is " +
                                               number_text(value) + ", must be " +
                                               std::string(rule));
}

}  // namespace isthmus::privacy
