// Real child processes for tests: start, read what they print, signal, wait. Everything has a
// deadline.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <map>
#include <string>
#include <vector>

namespace isthmus::test {

/// A running program. Killed when destroyed. \throws std::runtime_error when it cannot be started
/// or a deadline passes.
class Process {
 public:
  /// `environment` is added to this process's own.
  Process(const std::vector<std::string>& arguments,
          const std::map<std::string, std::string>& environment = {});
  ~Process();
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  /// The next line of standard output, without its end.
  [[nodiscard]] std::string read_line(std::chrono::seconds timeout = std::chrono::seconds(60));
  void signal(int number) const;
  /// Waits for the end and returns the exit code, or 128 + the number of the signal that ended it.
  int wait(std::chrono::seconds timeout = std::chrono::seconds(60));

  [[nodiscard]] pid_t id() const { return id_; }

 private:
  pid_t id_ = -1;
  int out_ = -1;
  std::string buffered_;
};

/// What a program that ran to its end left behind.
struct Finished {
  int exit_code = 0;
  std::string out;
  std::string err;
};

/// Runs a program to its end, with `input` as its standard input.
[[nodiscard]] Finished run(const std::vector<std::string>& arguments,
                           const std::map<std::string, std::string>& environment = {},
                           const std::string& input = {},
                           std::chrono::seconds timeout = std::chrono::seconds(120));

}  // namespace isthmus::test
