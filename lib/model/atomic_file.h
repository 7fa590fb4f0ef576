// A new file that shows under its name only when complete.
#pragma once

#include <isthmus/core/error.h>
#include <cstddef>
#include <filesystem>
#include <span>

namespace isthmus::model {

/// Writes to a file beside `destination` and renames it at the end. Without `commit` nothing is
/// left behind. Move-only.
class AtomicFile {
 public:
  /// \returns kIo, as do the others.
  [[nodiscard]] static Result<AtomicFile> create(const std::filesystem::path& destination);

  AtomicFile(AtomicFile&& other) noexcept;
  AtomicFile& operator=(AtomicFile&&) = delete;
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;
  ~AtomicFile();

  [[nodiscard]] Status write(std::span<const std::byte> bytes);
  /// Flushes to the disk and gives the file its name, replacing what had it.
  [[nodiscard]] Status commit();

 private:
  AtomicFile(int descriptor, std::filesystem::path destination, std::filesystem::path temporary);
  [[nodiscard]] tl::unexpected<Error> system_error() const;

  int descriptor_;  // -1: nothing to clean up
  std::filesystem::path destination_;
  std::filesystem::path temporary_;
};

}  // namespace isthmus::model
