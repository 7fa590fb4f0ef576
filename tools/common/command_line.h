// What every tool does with its command line.
#pragma once

#include <isthmus/core/error.h>
#include <isthmus/core/thread_pool.h>

#include <CLI/CLI.hpp>
#include <functional>
#include <string>

namespace isthmus::tools {

/// Adds --version, parses, checks and runs. `check` may throw CLI::ParseError, which ends in a
/// usage error as one of the parser's own does; an error of `run` is reported under the app's name.
/// \returns the exit code.
int run_tool(CLI::App& app, int argc, char** argv, const std::function<void()>& check,
             const std::function<Status()>& run);

/// An error as a CLI11 validator wants it: its text, or nothing.
template <typename T>
std::string complaint(const Result<T>& result) {
  return result ? std::string() : result.error().message;
}

/// --threads. `what` says what they are for.
void declare_threads(CLI::App& app, int& threads, const std::string& what = "CPU threads");

}  // namespace isthmus::tools
