#include "workload.h"

#include <isthmus/core/random.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <sstream>
#include <string>

namespace isthmus::tools {
namespace {

using std::chrono::nanoseconds;

nanoseconds in_seconds(double seconds) {
  return std::chrono::duration_cast<nanoseconds>(std::chrono::duration<double>(seconds));
}

std::vector<std::string> fields_of(const std::string& line) {
  std::vector<std::string> fields;
  std::istringstream stream(line);
  for (std::string field; std::getline(stream, field, ',');) {
    while (!field.empty() && field.back() == '\r') field.pop_back();
    fields.push_back(field);
  }
  return fields;
}

/// Where the columns are that we read.
struct Columns {
  size_t time = 0;
  size_t request = 0;
  size_t response = 0;
  [[nodiscard]] size_t last() const { return std::max({time, request, response}); }
};

std::optional<Columns> find_columns(const std::vector<std::string>& names) {
  const auto find = [&](const char* name) {
    return static_cast<size_t>(std::find(names.begin(), names.end(), name) - names.begin());
  };
  const Columns columns{find("Timestamp"), find("Request tokens"), find("Response tokens")};
  if (columns.last() >= names.size()) return std::nullopt;
  return columns;
}

std::optional<double> number(const std::string& text) {
  try {
    size_t used = 0;
    const double value = std::stod(text, &used);
    if (used == text.size() && std::isfinite(value) && value >= 0) return value;
  } catch (const std::logic_error&) {
    // Not a number.
  }
  return std::nullopt;
}

}  // namespace

Result<std::vector<Request>> read_trace(const LoadFlags& flags) {
  std::ifstream file(flags.trace);
  if (!file) return fail(ErrorCode::kNotFound, "no trace at " + flags.trace.string());
  const auto bad = [&](size_t line) {
    return fail(ErrorCode::kCorrupt,
                flags.trace.string() + ": line " + std::to_string(line) + " is not as expected");
  };
  std::string line;
  std::getline(file, line);
  const auto columns = find_columns(fields_of(line));
  if (!columns) return bad(1);
  std::vector<Request> requests;
  std::optional<double> first;
  for (size_t number_of_line = 2; std::getline(file, line); ++number_of_line) {
    const std::vector<std::string> fields = fields_of(line);
    if (fields.empty()) continue;
    if (fields.size() <= columns->last()) return bad(number_of_line);
    const auto time = number(fields[columns->time]);
    const auto prompt = number(fields[columns->request]);
    const auto output = number(fields[columns->response]);
    if (!time || !prompt || !output) return bad(number_of_line);
    if (!first) first = *time;
    const double at = (*time - *first) / flags.trace_speed;
    if (at >= flags.duration_s) break;
    if (*output < 1) continue;
    requests.push_back({in_seconds(at),
                        static_cast<int32_t>(std::clamp<double>(*prompt, 1, flags.prompt_tokens)),
                        static_cast<int32_t>(std::clamp<double>(*output, 1, flags.output_tokens))});
  }
  return requests;
}

std::vector<Request> poisson(const LoadFlags& flags) {
  std::vector<Request> requests;
  double at = 0;
  for (uint64_t i = 0;; ++i) {
    at -= std::log(1 - counter_uniform(flags.seed, i)) / flags.rate;
    if (at >= flags.duration_s) return requests;
    requests.push_back({in_seconds(at), flags.prompt_tokens, flags.output_tokens});
  }
}

std::optional<Request> Workload::next(nanoseconds now) {
  if (!open_) {
    Request request = each_;
    request.at = now;
    return request;
  }
  const std::lock_guard lock(mutex_);
  if (taken_ == requests_.size()) return std::nullopt;
  return requests_[taken_++];
}

}  // namespace isthmus::tools
