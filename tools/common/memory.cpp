#include "memory.h"

#include <malloc.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <optional>
#include <string>

namespace isthmus::tools {
namespace {

// The number behind `key` in lines of keys and numbers.
std::optional<uint64_t> number_behind(const std::filesystem::path& path, const std::string& key) {
  std::ifstream file(path);
  for (std::string word; file >> word;) {
    uint64_t number = 0;
    if (word == key && file >> number) return number;
  }
  return std::nullopt;
}

std::optional<uint64_t> number_in(const std::filesystem::path& path) {
  uint64_t number = 0;
  if (!(std::ifstream(path) >> number)) return std::nullopt;  // "max" is none either
  return number;
}

// What a group may still take: what it holds of files is given back when programs need it.
std::optional<uint64_t> left_in(const std::filesystem::path& group) {
  const auto most = number_in(group / "memory.max");
  const auto current = number_in(group / "memory.current");
  if (!most || !current) return std::nullopt;
  const uint64_t files = number_behind(group / "memory.stat", "inactive_file").value_or(0);
  const uint64_t held = *current - std::min(*current, files);
  return *most - std::min(*most, held);
}

// The folder of this process's group.
std::filesystem::path own_group() {
  std::ifstream file("/proc/self/cgroup");
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with("0::/")) return "/sys/fs/cgroup" + line.substr(3);
  }
  return {};
}

}  // namespace

Result<uint64_t> resident_bytes() {
  malloc_trim(0);
  std::ifstream statm("/proc/self/statm");
  uint64_t total_pages = 0;
  uint64_t resident_pages = 0;
  if (!(statm >> total_pages >> resident_pages)) {
    return fail(ErrorCode::kUnsupported, "tools: /proc/self/statm cannot be read");
  }
  return resident_pages * static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
}

Result<uint64_t> available_bytes() {
  const auto kibibytes = number_behind("/proc/meminfo", "MemAvailable:");
  if (!kibibytes) {
    return fail(ErrorCode::kUnsupported,
                "tools: /proc/meminfo does not say how much memory is available");
  }
  uint64_t available = 1024 * *kibibytes;
  // Every group above counts what those below it hold.
  for (std::filesystem::path group = own_group(); group.has_relative_path();
       group = group.parent_path()) {
    available = std::min(available, left_in(group).value_or(available));
  }
  return available;
}

}  // namespace isthmus::tools
