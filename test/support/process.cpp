#include "support/process.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <thread>
#include <utility>

extern char** environ;

namespace isthmus::test {
namespace {

using std::chrono::steady_clock;

/// The files a child's standard streams are connected to; -1 leaves one as it is.
struct Streams {
  int in = -1;
  int out = -1;
  int err = -1;
};

std::vector<char*> pointers(const std::vector<std::string>& texts) {
  std::vector<char*> result;
  for (const std::string& text : texts) result.push_back(const_cast<char*>(text.c_str()));
  result.push_back(nullptr);
  return result;
}

pid_t spawn(const std::vector<std::string>& arguments,
            const std::map<std::string, std::string>& environment, const Streams& streams) {
  std::vector<std::string> variables;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string text = *entry;
    if (!environment.contains(text.substr(0, text.find('=')))) variables.push_back(text);
  }
  for (const auto& [name, value] : environment) variables.push_back(name + "=" + value);

  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  if (streams.in >= 0) posix_spawn_file_actions_adddup2(&actions, streams.in, STDIN_FILENO);
  if (streams.out >= 0) posix_spawn_file_actions_adddup2(&actions, streams.out, STDOUT_FILENO);
  if (streams.err >= 0) posix_spawn_file_actions_adddup2(&actions, streams.err, STDERR_FILENO);
  pid_t id = -1;
  const int failed = posix_spawnp(&id, arguments.front().c_str(), &actions, nullptr,
                                  pointers(arguments).data(), pointers(variables).data());
  posix_spawn_file_actions_destroy(&actions);
  if (failed != 0) throw std::runtime_error("cannot start " + arguments.front());
  return id;
}

int exit_code_of(int status) {
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/// Waits until the child ends; kills it at the deadline.
int wait_for(pid_t id, std::chrono::seconds timeout) {
  const auto deadline = steady_clock::now() + timeout;
  int status = 0;
  while (waitpid(id, &status, WNOHANG) == 0) {
    if (steady_clock::now() > deadline) {
      ::kill(id, SIGKILL);
      waitpid(id, &status, 0);
      throw std::runtime_error("a child process did not end in time");
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  return exit_code_of(status);
}

}  // namespace

Process::Process(const std::vector<std::string>& arguments,
                 const std::map<std::string, std::string>& environment) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) throw std::runtime_error("cannot make a pipe");
  out_ = ends[0];
  try {
    id_ = spawn(arguments, environment, {.out = ends[1]});
  } catch (...) {
    close(ends[0]);
    close(ends[1]);
    throw;
  }
  close(ends[1]);
}

Process::~Process() {
  if (id_ > 0) {
    ::kill(id_, SIGKILL);
    waitpid(id_, nullptr, 0);
  }
  close(out_);
}

std::string Process::read_line(std::chrono::seconds timeout) {
  const auto deadline = steady_clock::now() + timeout;
  size_t end = 0;
  while ((end = buffered_.find('\n')) == std::string::npos) {
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(deadline - steady_clock::now());
    pollfd ready{.fd = out_, .events = POLLIN, .revents = 0};
    if (left.count() <= 0 || poll(&ready, 1, static_cast<int>(left.count())) <= 0) {
      throw std::runtime_error("a child process printed no line in time");
    }
    char bytes[512];
    const ssize_t count = read(out_, bytes, sizeof bytes);
    if (count <= 0) throw std::runtime_error("a child process ended before it printed a line");
    buffered_.append(bytes, static_cast<size_t>(count));
  }
  std::string line = buffered_.substr(0, end);
  buffered_.erase(0, end + 1);
  return line;
}

void Process::signal(int number) const {
  ::kill(id_, number);
}

int Process::wait(std::chrono::seconds timeout) {
  const pid_t id = std::exchange(id_, -1);
  return wait_for(id, timeout);
}

Finished run(const std::vector<std::string>& arguments,
             const std::map<std::string, std::string>& environment, const std::string& input,
             std::chrono::seconds timeout) {
  // Files instead of pipes: nothing can fill up and block.
  std::string folder = (std::filesystem::temp_directory_path() / "isthmus-run-XXXXXX").string();
  if (mkdtemp(folder.data()) == nullptr) throw std::runtime_error("cannot make a temporary folder");
  const auto path = [&](const char* name) { return folder + "/" + name; };
  std::ofstream(path("in"), std::ios::binary) << input;
  const Streams streams{.in = open(path("in").c_str(), O_RDONLY | O_CLOEXEC),
                        .out = open(path("out").c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600),
                        .err = open(path("err").c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600)};
  const pid_t id = spawn(arguments, environment, streams);
  for (const int file : {streams.in, streams.out, streams.err}) close(file);
  const auto text = [&](const char* name) {
    std::ifstream in(path(name), std::ios::binary);
    return std::string{std::istreambuf_iterator<char>(in), {}};
  };
  Finished finished{.exit_code = wait_for(id, timeout)};
  finished.out = text("out");
  finished.err = text("err");
  std::filesystem::remove_all(folder);
  return finished;
}

}  // namespace isthmus::test
