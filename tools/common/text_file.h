// Text that a tool is told to read.
#pragma once

#include <isthmus/core/error.h>

#include <filesystem>
#include <string>

namespace isthmus::tools {

/// All bytes of a file. \returns kNotFound, kIo.
[[nodiscard]] Result<std::string> read_text(const std::filesystem::path& path);

}  // namespace isthmus::tools
