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

using AllowList = std::map<std::string, std::string>;

constexpr std::string_view kBlanks = " \t\r";
constexpr size_t kMaxListBytes = 1UL << 20U;  // some 25,000 keys; read whole at every handshake

std::string_view trimmed(std::string_view text) {
  const size_t begin = std::min(text.find_first_not_of(kBlanks), text.size());
  const size_t end = text.find_last_not_of(kBlanks) + 1;  // npos + 1 is 0
  return text.substr(begin, end - std::min(begin, end));
}

Result<AllowList> parse(std::string_view text, const std::filesystem::path& file) {
  AllowList keys;
  for (size_t number = 1; !text.empty(); ++number) {
    const size_t length = std::min(text.find('\n'), text.size());
    const std::string_view line = trimmed(text.substr(0, length));
    text.remove_prefix(std::min(length + 1, text.size()));
    if (line.empty() || line.front() == '#') continue;
    const std::string_view key = line.substr(0, line.find_first_of(kBlanks));
    if (!is_key(key)) {
      return fail(ErrorCode::kCorrupt, "keys: '" + file.string() + "' line " +
                                           std::to_string(number) +
                                           " does not start with a key of 40 characters of z85");
    }
    keys.emplace(key, trimmed(line.substr(key.size())));
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

Result<AllowList> load_allow_list(const std::filesystem::path& file) {
  const FileDescriptor descriptor(::open(file.c_str(), O_RDONLY | O_CLOEXEC));
  if (!descriptor.valid() && errno == ENOENT) return AllowList{};
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
