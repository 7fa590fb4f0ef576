#include "text_file.h"

#include <fstream>
#include <iterator>

namespace isthmus::tools {

Result<std::string> read_text(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return fail(ErrorCode::kNotFound, "text: cannot open '" + path.string() + "'");
  std::string text{std::istreambuf_iterator<char>(file), {}};
  if (file.bad()) return fail(ErrorCode::kIo, "text: cannot read '" + path.string() + "'");
  return text;
}

Status write_text(const std::filesystem::path& path, const std::string& text) {
  if (path.empty()) return {};
  std::ofstream file(path, std::ios::binary);
  file << text << std::flush;
  if (file) return {};
  return fail(ErrorCode::kIo, "text: cannot write '" + path.string() + "'");
}

}  // namespace isthmus::tools
