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

namespace {

bool write(const std::filesystem::path& path, const std::string& text) {
  std::ofstream file(path, std::ios::binary);
  file << text;
  file.close();
  return file.good();
}

/// Puts a complete new file in the place of one that is there, or of none; with its permissions.
bool replace(const std::filesystem::path& path, const std::string& text) {
  namespace fs = std::filesystem;
  std::error_code error;
  const fs::file_status old = fs::symlink_status(path, error);
  if (old.type() != fs::file_type::regular && old.type() != fs::file_type::not_found) return false;
  fs::path next = path;
  next += ".part" + std::to_string(::getpid());
  error.clear();
  if (write(next, text)) {
    if (old.type() == fs::file_type::regular) fs::permissions(next, old.permissions(), error);
    if (!error) fs::rename(next, path, error);
    if (!error) return true;
  }
  std::error_code ignored;
  fs::remove(next, ignored);
  return false;
}

}  // namespace

Status write_text(const std::filesystem::path& path, const std::string& text) {
  // In place: pipes and terminals, links, files that are mounted or whose folder takes no other.
  if (path.empty() || replace(path, text) || write(path, text)) return {};
  return fail(ErrorCode::kIo, "text: cannot write '" + path.string() + "'");
}

}  // namespace isthmus::tools
