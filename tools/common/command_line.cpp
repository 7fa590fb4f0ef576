#include "command_line.h"

#include <new>
#include <system_error>

#include "terminal.h"

namespace isthmus::tools {

int run_tool(CLI::App& app, int argc, char** argv, const std::function<void()>& check,
             const std::function<Status()>& run) {
  app.set_version_flag("--version", app.get_name() + " " ISTHMUS_VERSION);
  try {
    app.parse(argc, argv);
    check();
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? kExitDone : kExitUsage;
  }
  try {
    if (const Status status = run(); !status) return report(app.get_name(), status.error());
  } catch (const std::bad_alloc&) {
    return report(app.get_name(), {ErrorCode::kOutOfMemory, "there is not enough memory"});
  } catch (const std::system_error& error) {  // of files and threads
    return report(app.get_name(), {ErrorCode::kIo, error.what()});
  }
  return kExitDone;
}

void declare_threads(CLI::App& app, int& threads, const std::string& what) {
  app.add_option("--threads", threads, what + "; 0: one per hardware thread")
      ->check(CLI::Range(0, static_cast<int>(ThreadPool::kMaxThreads)))
      ->capture_default_str();
}

}  // namespace isthmus::tools
