#include "mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <functional>
#include <string>
#include <system_error>
#include <utility>

namespace isthmus::model {
namespace {

struct Descriptor {
  int number = -1;
  explicit Descriptor(int opened) : number(opened) {}
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor() {
    if (number >= 0) ::close(number);
  }
};

tl::unexpected<Error> system_error(const std::filesystem::path& path, int number) {
  return fail(
      number == ENOENT ? ErrorCode::kNotFound : ErrorCode::kIo,
      "model: cannot open '" + path.string() + "': " + std::generic_category().message(number));
}

}  // namespace

Result<MappedFile> MappedFile::open(const std::filesystem::path& path) {
  const Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  struct stat info {};
  if (file.number < 0 || ::fstat(file.number, &info) != 0) return system_error(path, errno);
  if (!S_ISREG(info.st_mode)) {
    return fail(ErrorCode::kIo, "model: '" + path.string() + "' is not a regular file");
  }
  if (info.st_size == 0) return MappedFile({});
  const auto size = static_cast<size_t>(info.st_size);
  void* data = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file.number, 0);
  if (data == MAP_FAILED) return system_error(path, errno);
  return MappedFile({static_cast<const std::byte*>(data), size});
}

MappedFile::MappedFile(MappedFile&& other) noexcept : bytes_(std::exchange(other.bytes_, {})) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(bytes_, other.bytes_);
  return *this;
}

MappedFile::~MappedFile() {
  if (!bytes_.empty()) ::munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
}

void MappedFile::release(std::span<const std::byte> piece) const {
  const std::less_equal<> before;
  if (!before(bytes_.data(), piece.data()) ||
      !before(piece.data() + piece.size(), bytes_.data() + bytes_.size())) {
    return;
  }
  // A mapping starts on a page, so offsets in the file tell pages as well as addresses do.
  const auto page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  const auto begin = static_cast<size_t>(piece.data() - bytes_.data());
  const size_t first = (begin + page - 1) / page * page;
  const size_t last = (begin + piece.size()) / page * page;
  if (first >= last) return;
  // Only memory depends on whether the system agrees.
  ::madvise(const_cast<std::byte*>(bytes_.data() + first), last - first, MADV_DONTNEED);
}

}  // namespace isthmus::model
