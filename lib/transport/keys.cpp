#include <fcntl.h>
#include <isthmus/transport/keys.h>
#include <pwd.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zmq.h>

#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <vector>

#include "file_descriptor.h"

namespace isthmus::transport {
namespace {

constexpr size_t kKeyBytes = 32;
constexpr size_t kKeyLength = 40;
constexpr size_t kMaxKeyFileBytes = 1024;

using KeyText = std::array<char, kKeyLength + 1>;  // and the final zero that libzmq writes

tl::unexpected<Error> corrupt(const std::filesystem::path& file) {
  return fail(
      ErrorCode::kCorrupt,
      "keys: '" + file.string() + "' does not hold a public key and its secret key, one a line");
}

Result<KeyPair> parse(const std::string& text, const std::filesystem::path& file) {
  if (text.size() != 2 * (kKeyLength + 1) || text[kKeyLength] != '\n' || text.back() != '\n') {
    return corrupt(file);
  }
  KeyPair keys{text.substr(0, kKeyLength), text.substr(kKeyLength + 1, kKeyLength)};
  KeyText derived{};
  if (!is_key(keys.secret_key) || zmq_curve_public(derived.data(), keys.secret_key.c_str()) != 0 ||
      keys.public_key != derived.data()) {
    return corrupt(file);
  }
  return keys;
}

Result<KeyPair> load(const FileDescriptor& descriptor, const std::filesystem::path& file) {
  struct stat info {};
  if (::fstat(descriptor.get(), &info) != 0) return io_error("examine", file);
  if ((info.st_mode & (S_IRWXG | S_IRWXO)) != 0) {
    return fail(ErrorCode::kInvalidArgument,
                "keys: others may use '" + file.string() + "'; make it private with chmod 600");
  }
  ISTHMUS_ASSIGN(const std::string text, descriptor.read_all(kMaxKeyFileBytes, file));
  return parse(text, file);
}

/// Writes the pair under a temporary name and then links it to `file`, so that nobody ever sees
/// half a file, and the first of several processes wins.
Status create(const KeyPair& keys, const std::filesystem::path& file) {
  std::string pattern = file.string() + ".XXXXXX";
  const FileDescriptor descriptor(::mkostemp(pattern.data(), O_CLOEXEC));  // mode 0600
  if (!descriptor.valid()) return io_error("create", file);
  Status written = descriptor.write_all(keys.public_key + '\n' + keys.secret_key + '\n', file);
  if (written && ::link(pattern.c_str(), file.c_str()) != 0 && errno != EEXIST) {
    written = io_error("create", file);
  }
  ::unlink(pattern.c_str());
  return written;
}

std::filesystem::path home_folder() {
  if (const char* home = std::getenv("HOME"); home != nullptr && *home != '\0') return home;
  std::vector<char> buffer(4096);
  passwd entry{};
  passwd* found = nullptr;
  if (::getpwuid_r(::geteuid(), &entry, buffer.data(), buffer.size(), &found) == 0 &&
      found != nullptr) {
    return found->pw_dir;
  }
  return ".";
}

}  // namespace

KeyPair generate_keys() {
  KeyText public_key{};
  KeyText secret_key{};
  do {
    if (zmq_curve_keypair(public_key.data(), secret_key.data()) != 0) {
      throw std::logic_error("keys: this libzmq was built without curve");
    }
    // A key that starts like an option would be mistaken for one on a command line.
  } while (public_key.front() == '-');
  return {public_key.data(), secret_key.data()};
}

bool is_key(std::string_view text) {
  if (text.size() != kKeyLength || text.find('\0') != std::string_view::npos) return false;
  std::array<uint8_t, kKeyBytes> bytes;
  return zmq_z85_decode(bytes.data(), std::string(text).c_str()) != nullptr;
}

Result<KeyPair> load_or_create_keys(const std::filesystem::path& file) {
  const auto open_existing = [&] { return ::open(file.c_str(), O_RDONLY | O_CLOEXEC); };
  const FileDescriptor existing(open_existing());
  if (existing.valid()) return load(existing, file);
  if (errno != ENOENT) return io_error("open", file);

  ISTHMUS_TRY(make_private_folder(file.parent_path()));
  ISTHMUS_TRY(create(generate_keys(), file));
  // Another process may have been first: what is in the file now counts.
  const FileDescriptor created(open_existing());
  if (!created.valid()) return io_error("open", file);
  return load(created, file);
}

KeyPaths KeyPaths::in(const std::filesystem::path& folder) {
  return {folder / "server.key", folder / "client.key", folder / "allowed-clients"};
}

KeyPaths KeyPaths::standard() {
  const auto environment = [](const char* name) {
    const char* value = std::getenv(name);
    return std::filesystem::path(value == nullptr ? "" : value);
  };
  if (const auto home = environment("ISTHMUS_HOME"); !home.empty()) return in(home);
  if (const auto config = environment("XDG_CONFIG_HOME"); !config.empty()) {
    return in(config / "isthmus");
  }
  return in(home_folder() / ".config" / "isthmus");
}

}  // namespace isthmus::transport
