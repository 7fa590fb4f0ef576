// What the command-line tools share: errors, progress, memory, and knowing whether a person is
// watching.
#pragma once

#include <isthmus/core/clock.h>
#include <isthmus/core/error.h>

#include <cstdio>
#include <functional>
#include <string>
#include <string_view>

namespace isthmus::tools {

inline constexpr int kExitDone = 0;
inline constexpr int kExitFailed = 1;
inline constexpr int kExitUsage = 2;

/// Prints "<tool>: error: <message>" to stderr and returns kExitFailed.
int report(std::string_view tool, const Error& error);

/// Whether everything printed to standard output has been written. \returns kIo otherwise.
[[nodiscard]] Status check_output();

/// The most memory this process has had resident so far, in MB (10^6 bytes), touched pages of
/// mapped files included.
[[nodiscard]] double peak_resident_mb();

[[nodiscard]] bool is_terminal(std::FILE* stream);

/// Draws "<label> [#####     ] 50 %, about 40 s left" on stderr while something goes on, and wipes
/// it at the end. Silent without a terminal.
class ProgressBar {
 public:
  explicit ProgressBar(std::string label);
  ~ProgressBar();
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;
  void update(double fraction);

 private:
  std::string label_;
  bool visible_;
  int drawn_percent_ = -1;
  SteadyClock clock_;
  Clock::TimePoint first_time_;  ///< of the first update, from which the rest is estimated
  double first_fraction_ = 0;
};

}  // namespace isthmus::tools
