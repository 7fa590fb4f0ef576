#include "terminal.h"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>

namespace isthmus::tools {

int report(std::string_view tool, const Error& error) {
  std::fprintf(stderr, "%.*s: error: %s\n", static_cast<int>(tool.size()), tool.data(),
               error.message.c_str());
  return kExitFailed;
}

Status check_output() {
  if (std::fflush(stdout) == 0 && std::ferror(stdout) == 0) return {};
  return fail(ErrorCode::kIo, "cannot write to standard output");
}

double peak_resident_mb() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_maxrss) * 1024 / 1e6;  // Linux counts KiB
}

bool is_terminal(std::FILE* stream) {
  return isatty(fileno(stream)) == 1;
}

ProgressBar::ProgressBar(std::string label)
    : label_(std::move(label)), visible_(is_terminal(stderr)) {}

ProgressBar::~ProgressBar() {
  if (visible_ && drawn_percent_ >= 0) std::fputs("\r\033[K", stderr);
}

void ProgressBar::update(double fraction) {
  constexpr int kWidth = 30;
  const int percent = static_cast<int>(std::clamp(fraction, 0.0, 1.0) * 100);
  if (!visible_ || percent == drawn_percent_) return;
  if (drawn_percent_ < 0) {
    first_time_ = clock_.now();
    first_fraction_ = fraction;
  }
  drawn_percent_ = percent;
  const auto filled = static_cast<size_t>(percent * kWidth / 100);
  const std::string bar = std::string(filled, '#') + std::string(kWidth - filled, ' ');
  std::fprintf(stderr, "\r\033[K%s [%s] %d %%", label_.c_str(), bar.c_str(), percent);
  const double elapsed_s = seconds_between(first_time_, clock_.now());
  constexpr double kLong = 5;  // shorter, a bar says enough
  if (elapsed_s > kLong && fraction > first_fraction_ && fraction < 1) {
    const double left_s = elapsed_s * (1 - fraction) / (fraction - first_fraction_);
    std::fprintf(stderr, left_s < 120 ? ", about %.0f s left" : ", about %.0f min left",
                 left_s < 120 ? left_s : left_s / 60);
  }
  std::fflush(stderr);
}

}  // namespace isthmus::tools
