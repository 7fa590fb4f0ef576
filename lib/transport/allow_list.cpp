#include <fcntl.h>
#include <isthmus/transport/keys.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "file_descriptor.h"

namespace isthmus::transport {
namespace {

constexpr size_t kMaxListBytes = 1UL << 20U;  // some 25,000 keys; read whole at every handshake

Result<std::set<std::string>> parse(std::string_view text, const std::filesystem::path& file) {
  std::set<std::string> keys;
  for (size_t number = 1; !text.empty(); ++number) {
    const std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(line.size() + 1, text.size()));
    const size_t begin = line.find_first_not_of(" \t\r");
    if (begin == std::string_view::npos || line[begin] == '#') continue;
    const size_t end = std::min(line.find_first_of(" \t\r", begin), line.size());
    const std::string_view key = line.substr(begin, end - begin);
    if (!is_key(key)) {
      return fail(ErrorCode::kCorrupt, "keys: '" + file.string() + "' line " +
                                           std::to_string(number) +
                                           " does not start with a key of 40 characters of z85");
    }
    keys.emplace(key);
  }
  return keys;
}

/// Waits for the lock that keeps a reader from seeing half a line.
Status lock(const FileDescriptor& descriptor, int kind, const std::filesystem::path& file) {
  while (::flock(descriptor.get(), kind) != 0) {
    if (errno != EINTR) return io_error("lock", file);
  }
  return {};
}

}  // namespace

Result<std::set<std::string>> load_allow_list(const std::filesystem::path& file) {
  const FileDescriptor descriptor(::open(file.c_str(), O_RDONLY | O_CLOEXEC));
  if (!descriptor.valid() && errno == ENOENT) return std::set<std::string>{};
  if (!descriptor.valid()) return io_error("open", file);
  ISTHMUS_TRY(lock(descriptor, LOCK_SH, file));
  ISTHMUS_ASSIGN(const std::string text, descriptor.read_all(kMaxListBytes, file));
  return parse(text, file);
}

Status enrol(const std::filesystem::path& file, std::string_view public_key,
             std::string_view comment) {
  if (!is_key(public_key)) {
    return fail(ErrorCode::kInvalidArgument,
                "keys: '" + std::string(public_key) + "' is not 40 characters of z85");
  }
  if (std::any_of(comment.begin(), comment.end(),
                  [](char c) { return static_cast<unsigned char>(c) < ' '; })) {
    return fail(ErrorCode::kInvalidArgument, "keys: a comment may not hold control characters");
  }
  ISTHMUS_TRY(make_private_folder(file.parent_path()));
  // Appending in place, unlike a renamed copy, keeps the owner and the mode that the operator gave
  // the file.
  const FileDescriptor descriptor(
      ::open(file.c_str(), O_RDWR | O_APPEND | O_CREAT | O_CLOEXEC, S_IRUSR | S_IWUSR));
  if (!descriptor.valid()) return io_error("open", file);
  ISTHMUS_TRY(lock(descriptor, LOCK_EX, file));
  ISTHMUS_ASSIGN(const std::string text, descriptor.read_all(kMaxListBytes, file));
  ISTHMUS_ASSIGN(const auto keys, parse(text, file));
  if (keys.contains(std::string(public_key))) return {};

  std::string line(public_key);
  if (!comment.empty()) line += ' ' + std::string(comment);
  if (!text.empty() && text.back() != '\n') line.insert(0, 1, '\n');
  line += '\n';
  if (text.size() + line.size() > kMaxListBytes) {
    return fail(ErrorCode::kTooLarge, "keys: '" + file.string() + "' is full, the limit is " +
                                          std::to_string(kMaxListBytes) + " bytes");
  }
  Status written = descriptor.write_all(line, file);
  if (!written && ::ftruncate(descriptor.get(), static_cast<off_t>(text.size())) != 0) {
    return io_error("restore", file);
  }
  return written;
}

}  // namespace isthmus::transport
