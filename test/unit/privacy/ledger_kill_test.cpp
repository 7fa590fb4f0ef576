// A process that charges and sends is killed at each of its system calls in turn, and at random.
// What it said it sent must be on the ledger afterwards. The linker sends the library's own calls
// through the functions below (CMakeLists.txt): the library has no seam for it.
#include <isthmus/privacy/ledger.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <optional>
#include <vector>

#include "ledger_file.h"
#include "support/catch.h"
#include "support/temp_folder.h"

namespace {

int calls_left = -1;  // until the kill; negative: none
std::vector<char>* trace = nullptr;

/// Before and after each call: a kill lands between any two of them.
void step() {
  if (calls_left < 0) return;
  if (calls_left-- == 0) kill(getpid(), SIGKILL);
}

void note(char call) {
  if (trace != nullptr) trace->push_back(call);
}

}  // namespace

// NOLINTBEGIN(bugprone-reserved-identifier,readability-identifier-naming): the linker's names.
extern "C" {
ssize_t __real_write(int, const void*, size_t);
int __real_fsync(int);
int __real_rename(const char*, const char*);

ssize_t __wrap_write(int descriptor, const void* bytes, size_t count) {
  step();
  // Torn: a kill in the middle of a write leaves half of it.
  if (calls_left == 0) {
    (void)__real_write(descriptor, bytes, count / 2);
    step();
  }
  const ssize_t written = __real_write(descriptor, bytes, count);
  note('w');
  step();
  return written;
}
int __wrap_fsync(int descriptor) {
  step();
  const int result = __real_fsync(descriptor);
  note('s');
  step();
  return result;
}
int __wrap_rename(const char* from, const char* to) {
  step();
  const int result = __real_rename(from, to);
  note('r');
  step();
  return result;
}
}
// NOLINTEND(bugprone-reserved-identifier,readability-identifier-naming)

namespace isthmus::privacy {
namespace {

const LedgerKey kKey{"model", "server"};

std::unique_ptr<Mechanism> mechanism() {
  return *make_mechanism(*MechanismSpec::parse("dgauss:mu=1"), 16, {.coordinate = 1});
}

uint64_t rows_on_disk(const std::filesystem::path& file) {
  auto locked = test::value_of(LedgerFile::lock(file));
  uint64_t rows = 0;
  for (const LedgerEntry& entry : test::value_of(locked.read()).entries)
    if (entry.scope == Scope::kTotal) rows += entry.rows;
  return rows;
}

/// The child's life: open, begin, charge one row at a time and say each as sent.
void charge_and_send(const LedgerOptions& options, int report, int rows) {
  const auto m = mechanism();
  auto ledger = Ledger::open(options);
  if (!ledger) return;
  auto conversation = (*ledger)->begin(kKey);
  if (!conversation) return;
  for (int i = 0; i < rows; ++i) {
    if (!conversation->charge(*m, 1)) return;
    (void)__real_write(report, "x", 1);
  }
}

struct Outcome {
  bool killed = false;
  uint64_t sent = 0;
};

/// A kill from outside, some time after the child said that it sent so much.
struct LaterKill {
  uint64_t after_sent = 0;
  useconds_t delay_us = 0;
};

/// Runs the child until it ends or is killed: by itself at call `kill_at`, or from outside.
Outcome run_child(const LedgerOptions& options, int kill_at, int rows,
                  std::optional<LaterKill> later = std::nullopt) {
  int ends[2];
  REQUIRE(pipe(ends) == 0);
  const pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    close(ends[0]);
    calls_left = kill_at;
    charge_and_send(options, ends[1], rows);
    _exit(0);
  }
  close(ends[1]);
  Outcome out;
  char byte;
  do {
    if (later && out.sent == later->after_sent) {
      usleep(later->delay_us);
      kill(child, SIGKILL);
    }
  } while (read(ends[0], &byte, 1) == 1 && ++out.sent > 0);
  close(ends[0]);
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  out.killed = WIFSIGNALED(status);
  return out;
}

TEST_CASE("a kill at any system call leaves at least what was sent on the ledger",
          "[privacy][ledger][kill]") {
  const test::TempFolder folder;
  LedgerOptions options{.file = folder.path() / "ledger", .block_rows = 3};
  constexpr int kRows = 10;
  uint64_t sent = 0;
  uint64_t runs = 0;
  for (int kill_at = 0;; ++kill_at) {
    const uint64_t before = runs == 0 ? 0 : rows_on_disk(options.file);
    const Outcome outcome = run_child(options, kill_at, kRows);
    ++runs;
    sent += outcome.sent;
    const uint64_t after = rows_on_disk(options.file);
    CAPTURE(kill_at, sent, before, after);
    REQUIRE(after >= sent);
    REQUIRE(after - before <= kRows + 4);  // a block and the row that asked for it at most
    if (!outcome.killed) {
      CHECK(outcome.sent == kRows);
      break;
    }
  }
  CHECK(runs > 20);  // open, begin, three blocks, the way back: each of several calls
}

TEST_CASE("a kill at any time leaves at least what was sent on the ledger",
          "[privacy][ledger][kill]") {
  const test::TempFolder folder;
  LedgerOptions options{.file = folder.path() / "ledger", .block_rows = 2};
  uint64_t sent = 0;
  uint64_t killed = 0;
  for (unsigned i = 0; i < 40; ++i) {
    const Outcome outcome = run_child(options, -1, 1'000'000, LaterKill{i % 8, 97 * i});
    sent += outcome.sent;
    killed += outcome.killed ? 1 : 0;
    CAPTURE(i, sent);
    REQUIRE(rows_on_disk(options.file) >= sent);
  }
  CHECK(killed == 40);
  CHECK(sent > 0);
}

TEST_CASE("the new file is on disk before its name, and its name before charge returns",
          "[privacy][ledger][kill]") {
  const test::TempFolder folder;
  const LedgerOptions options{.file = folder.path() / "ledger", .block_rows = 2};
  const auto m = mechanism();
  const auto ledger = test::value_of(Ledger::open(options));
  auto conversation = test::value_of(ledger->begin(kKey));
  std::vector<char> calls;
  trace = &calls;
  const Status charged = conversation.charge(*m, 1);
  trace = nullptr;
  REQUIRE(charged);
  CHECK(std::string(calls.begin(), calls.end()) == "wsrs");  // write, sync, rename, sync the folder
  calls.clear();
  trace = &calls;
  const Status ahead = conversation.charge(*m, 2);
  trace = nullptr;
  REQUIRE(ahead);
  CHECK(calls.empty());  // reserved ahead
}

}  // namespace
}  // namespace isthmus::privacy
