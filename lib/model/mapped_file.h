// A file's bytes in the address space, read-only.
#pragma once

#include <isthmus/core/error.h>
#include <cstddef>
#include <filesystem>
#include <span>

namespace isthmus::model {

/// Maps a whole regular file. Move-only. The file must not shrink while it is mapped: the operating
/// system answers a read behind the new end with a signal.
class MappedFile {
 public:
  /// \returns kNotFound, or kIo when it is no regular file or cannot be mapped.
  [[nodiscard]] static Result<MappedFile> open(const std::filesystem::path& path);

  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  ~MappedFile();

  [[nodiscard]] std::span<const std::byte> bytes() const { return bytes_; }
  /// Gives back the whole pages of `piece` until they are read again. A piece outside this file is
  /// left alone.
  void release(std::span<const std::byte> piece) const;

 private:
  explicit MappedFile(std::span<const std::byte> bytes) : bytes_(bytes) {}
  std::span<const std::byte> bytes_;
};

}  // namespace isthmus::model
