// Text that a tool is told to read or to write.
#pragma once

#include <isthmus/core/error.h>

#include <filesystem>
#include <string>

namespace isthmus::tools {

/// All bytes of a file. \returns kNotFound, kIo.
[[nodiscard]] Result<std::string> read_text(const std::filesystem::path& path);

/// Writes a file, in place of one that is there once it is complete, where that can be done;
/// nothing for an empty path. \returns kIo.
[[nodiscard]] Status write_text(const std::filesystem::path& path, const std::string& text);

}  // namespace isthmus::tools
