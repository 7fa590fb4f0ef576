#include "file_descriptor.h"

#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <system_error>

namespace isthmus::transport {

FileDescriptor::~FileDescriptor() {
  if (valid()) ::close(value_);
}

Result<std::string> FileDescriptor::read_all(size_t limit,
                                             const std::filesystem::path& name) const {
  std::string text;
  std::array<char, 4096> buffer;
  while (true) {
    const ssize_t count = ::read(value_, buffer.data(), buffer.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return io_error("read", name);
    if (count == 0) return text;
    text.append(buffer.data(), static_cast<size_t>(count));
    if (text.size() > limit) {
      return fail(ErrorCode::kTooLarge, "keys: '" + name.string() + "' is longer than " +
                                            std::to_string(limit) + " bytes");
    }
  }
}

Status FileDescriptor::write_all(std::string_view text, const std::filesystem::path& name) const {
  while (!text.empty()) {
    const ssize_t count = ::write(value_, text.data(), text.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return io_error("write", name);
    text.remove_prefix(static_cast<size_t>(count));
  }
  if (::fsync(value_) != 0) return io_error("write", name);
  return {};
}

tl::unexpected<Error> io_error(const char* verb, const std::filesystem::path& name) {
  return fail(ErrorCode::kIo, std::string("keys: cannot ") + verb + " '" + name.string() +
                                  "': " + std::generic_category().message(errno));
}

Status make_private_folder(const std::filesystem::path& folder) {
  std::filesystem::path path;
  for (const auto& part : folder) {
    path /= part;
    if (::mkdir(path.c_str(), S_IRWXU) != 0 && errno != EEXIST) {
      // A read-only or foreign parent is no obstacle where the folder is there already.
      std::error_code ignored;
      if (!std::filesystem::is_directory(path, ignored)) return io_error("make", path);
    }
  }
  return {};
}

}  // namespace isthmus::transport
