#include "atomic_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <string>
#include <system_error>
#include <utility>

namespace isthmus::model {

Result<AtomicFile> AtomicFile::create(const std::filesystem::path& destination) {
  std::filesystem::path temporary = destination;
  temporary += ".part" + std::to_string(::getpid());  // two processes do not meet
  const int descriptor = ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  AtomicFile file(descriptor, destination, std::move(temporary));
  if (descriptor < 0) return file.system_error();
  return file;
}

AtomicFile::AtomicFile(int descriptor, std::filesystem::path destination,
                       std::filesystem::path temporary)
    : descriptor_(descriptor),
      destination_(std::move(destination)),
      temporary_(std::move(temporary)) {}

AtomicFile::AtomicFile(AtomicFile&& other) noexcept
    : descriptor_(std::exchange(other.descriptor_, -1)),
      destination_(std::move(other.destination_)),
      temporary_(std::move(other.temporary_)) {}

AtomicFile::~AtomicFile() {
  if (descriptor_ < 0) return;
  ::close(descriptor_);
  ::unlink(temporary_.c_str());
}

Status AtomicFile::write(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(descriptor_, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return system_error();
    bytes = bytes.subspan(static_cast<size_t>(written));
  }
  return {};
}

Status AtomicFile::commit() {
  if (::fsync(descriptor_) != 0) return system_error();
  if (::rename(temporary_.c_str(), destination_.c_str()) != 0) return system_error();
  ::close(std::exchange(descriptor_, -1));
  return {};
}

tl::unexpected<Error> AtomicFile::system_error() const {
  return fail(ErrorCode::kIo, "model: cannot write '" + destination_.string() +
                                  "': " + std::generic_category().message(errno));
}

}  // namespace isthmus::model
