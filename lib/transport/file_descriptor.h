// An owned POSIX file descriptor and what the key files need of it.
#pragma once

#include <isthmus/core/error.h>
#include <filesystem>
#include <string>
#include <string_view>
#include <utility>

namespace isthmus::transport {

class FileDescriptor {
 public:
  /// \param value as returned by open; negative: none
  explicit FileDescriptor(int value) : value_(value) {}
  FileDescriptor(FileDescriptor&& other) noexcept : value_(std::exchange(other.value_, -1)) {}
  FileDescriptor& operator=(FileDescriptor&&) = delete;
  ~FileDescriptor();

  [[nodiscard]] bool valid() const { return value_ >= 0; }
  [[nodiscard]] int get() const { return value_; }

  /// All that follows the read position. \returns kTooLarge past `limit` bytes, kIo.
  [[nodiscard]] Result<std::string> read_all(size_t limit, const std::filesystem::path& name) const;
  /// Writes all of `text` and waits until it is on disk. \returns kIo.
  [[nodiscard]] Status write_all(std::string_view text, const std::filesystem::path& name) const;

 private:
  int value_;
};

/// kIo with what errno says: "keys: cannot <verb> '<name>': ...".
[[nodiscard]] tl::unexpected<Error> io_error(const char* verb, const std::filesystem::path& name);

/// Makes a folder, and those above it, for its owner alone; leaves one that exists as it is.
[[nodiscard]] Status make_private_folder(const std::filesystem::path& folder);

}  // namespace isthmus::transport
