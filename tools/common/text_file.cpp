#include "text_file.h"

#include <unistd.h>

#include <fstream>
#include <sstream>

namespace isthmus::tools {

Result<std::string> read_text(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return fail(ErrorCode::kNotFound, "text: cannot open '" + path.string() + "'");
  if (file.peek() == std::ifstream::traits_type::eof() && !file.bad()) return std::string();
  std::ostringstream text;
  if (text << file.rdbuf()) return std::move(text).str();
  return fail(ErrorCode::kIo, "text: cannot read '" + path.string() + "'");
}

Status write_text(const std::filesystem::path& path, const std::string& text) {
  if (path.empty()) return {};
  std::error_code failed;
  const auto type = std::filesystem::symlink_status(path, failed).type();
  // A file is replaced when the new one is complete; a pipe or a terminal is written to.
  const bool is_file =
      type == std::filesystem::file_type::regular || type == std::filesystem::file_type::not_found;
  std::filesystem::path place = path;
  if (is_file) place += ".part" + std::to_string(::getpid());
  std::ofstream file(place, std::ios::binary);
  file << text;
  file.close();
  failed.clear();
  if (file && is_file) std::filesystem::rename(place, path, failed);
  if (file && !failed) return {};
  std::error_code ignored;
  if (is_file) std::filesystem::remove(place, ignored);
  return fail(ErrorCode::kIo, "text: cannot write '" + path.string() + "'");
}

}  // namespace isthmus::tools
