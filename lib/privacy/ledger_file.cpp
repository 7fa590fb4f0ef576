#include "ledger_file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <thread>
#include <utility>

namespace isthmus::privacy {
namespace {

constexpr std::chrono::seconds kLockPatience(10);

tl::unexpected<Error> io_error(const char* verb, const std::filesystem::path& file) {
  const int number = errno;
  return fail(ErrorCode::kIo, std::string("ledger: cannot ") + verb + " '" + file.string() +
                                  "': " + std::strerror(number));
}

/// Closes at the end of the scope.
class Descriptor {
 public:
  explicit Descriptor(int value) : value_(value) {}
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor() {
    if (value_ >= 0) close(value_);
  }
  [[nodiscard]] bool valid() const { return value_ >= 0; }
  [[nodiscard]] int get() const { return value_; }

 private:
  int value_;
};

Status write_all(int descriptor, std::string_view text, const std::filesystem::path& file) {
  while (!text.empty()) {
    const ssize_t written = write(descriptor, text.data(), text.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return io_error("write", file);
    text.remove_prefix(static_cast<size_t>(written));
  }
  if (fsync(descriptor) != 0) return io_error("sync", file);
  return {};
}

Status sync_folder(const std::filesystem::path& file) {
  const auto folder = file.has_parent_path() ? file.parent_path() : std::filesystem::path(".");
  const Descriptor descriptor(open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!descriptor.valid() || fsync(descriptor.get()) != 0) return io_error("sync", folder);
  return {};
}

Result<bool> is_empty(int descriptor, const std::filesystem::path& file) {
  struct stat about {};
  if (fstat(descriptor, &about) != 0) return io_error("read", file);
  return about.st_size == 0;
}

}  // namespace

Result<LedgerFile> LedgerFile::lock(const std::filesystem::path& file) {
  const std::filesystem::path lock_path = file.string() + ".lock";
  const int descriptor = ::open(lock_path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (descriptor < 0) return io_error("open", lock_path);
  LedgerFile locked(descriptor, file);
  const auto deadline = std::chrono::steady_clock::now() + kLockPatience;
  while (flock(descriptor, LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK && errno != EINTR) return io_error("lock", lock_path);
    if (std::chrono::steady_clock::now() > deadline)
      return fail(ErrorCode::kTimeout,
                  "ledger: '" + lock_path.string() + "' is held by another process for 10 s");
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return locked;
}

LedgerFile::LedgerFile(LedgerFile&& other) noexcept
    : lock_(std::exchange(other.lock_, -1)), file_(std::move(other.file_)) {}

LedgerFile::~LedgerFile() {
  if (lock_ >= 0) close(lock_);  // frees the lock
}

Result<LedgerState> LedgerFile::read() const {
  const Descriptor descriptor(open(file_.c_str(), O_RDONLY | O_CLOEXEC));
  if (!descriptor.valid()) {
    if (errno != ENOENT) return io_error("open", file_);
    ISTHMUS_ASSIGN(const bool unused, is_empty(lock_, file_));
    if (unused) return LedgerState();
    return fail(ErrorCode::kCorrupt, "ledger: '" + file_.string() +
                                         "' is gone although it was used; removing its .lock file "
                                         "too begins anew and forgets what was told");
  }
  std::string text;
  std::array<char, 1 << 14> chunk;
  for (;;) {
    const ssize_t count = ::read(descriptor.get(), chunk.data(), chunk.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return io_error("read", file_);
    if (count == 0) break;
    text.append(chunk.data(), static_cast<size_t>(count));
    if (text.size() > kMaxLedgerBytes)
      return fail(ErrorCode::kTooLarge, "ledger: '" + file_.string() + "' has more than " +
                                            std::to_string(kMaxLedgerBytes) + " bytes");
  }
  return parse_ledger(text);
}

Status LedgerFile::write(const LedgerState& state) {
  const std::string text = format_ledger(state);
  if (text.size() > kMaxLedgerBytes)
    return fail(ErrorCode::kTooLarge, "ledger: state takes " + std::to_string(text.size()) +
                                          " bytes, limit " + std::to_string(kMaxLedgerBytes));
  // The old file stays whole until the new one is: a kill at any point leaves one or the other.
  const std::filesystem::path next = file_.string() + ".new";
  {
    const Descriptor descriptor(open(next.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
    if (!descriptor.valid()) return io_error("create", next);
    ISTHMUS_TRY(write_all(descriptor.get(), text, next));
  }
  if (rename(next.c_str(), file_.c_str()) != 0) return io_error("replace", file_);
  ISTHMUS_TRY(sync_folder(file_));
  ISTHMUS_ASSIGN(const bool unmarked, is_empty(lock_, file_));
  if (unmarked) return write_all(lock_, "used\n", file_);
  return {};
}

}  // namespace isthmus::privacy
