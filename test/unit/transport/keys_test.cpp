#include <isthmus/transport/keys.h>
#include <sys/stat.h>

#include <atomic>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <optional>
#include <thread>
#include <vector>

#include "support/catch.h"
#include "support/temp_folder.h"

namespace isthmus::transport {
namespace {

using std::filesystem::path;
using test::TempFolder;
using test::value_of;

void write_file(const path& file, const std::string& text, mode_t mode = 0600) {
  std::ofstream(file, std::ios::binary) << text;
  REQUIRE(::chmod(file.c_str(), mode) == 0);
}

std::string read_file(const path& file) {
  std::ifstream in(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

mode_t mode_of(const path& file) {
  struct stat info {};
  REQUIRE(::stat(file.c_str(), &info) == 0);
  return info.st_mode & 07777;
}

/// Runs `body(i)` for i in [0, count) on as many threads that start together.
template <typename Body>
void at_once(size_t count, const Body& body) {
  std::atomic<size_t> waiting = count;
  std::vector<std::thread> threads;
  for (size_t i = 0; i < count; ++i) {
    threads.emplace_back([&, i] {
      --waiting;
      while (waiting > 0) std::this_thread::yield();
      body(i);
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST_CASE("keys are 40 characters of z85, and nothing else is", "[transport][keys]") {
  const KeyPair keys = generate_keys();
  CHECK(is_key(keys.public_key));
  CHECK(is_key(keys.secret_key));
  CHECK(keys.public_key != keys.secret_key);
  CHECK(generate_keys().public_key != keys.public_key);

  const std::string good = keys.public_key;
  CHECK_FALSE(is_key(""));
  CHECK_FALSE(is_key(good.substr(1)));
  CHECK_FALSE(is_key(good + "0"));
  for (const char c : {'~', ' ', '\n', '"', '\\', '\0', '\x80'}) {
    std::string bad = good;
    bad[20] = c;
    CHECK_FALSE(is_key(bad));
  }
  CHECK_FALSE(is_key(std::string(40, '#')));  // 85^5 - 1 does not fit 32 bits
}

TEST_CASE("no public key looks like a command line's option", "[transport][keys]") {
  // One random key in 85 would; 800 without any happen by chance once in 13,000 runs.
  for (int i = 0; i < 800; ++i) REQUIRE(generate_keys().public_key.front() != '-');
}

TEST_CASE("keys are made once, in private, and stay", "[transport][keys]") {
  const TempFolder folder;
  const path file = folder.path() / "a" / "b" / "client.key";
  const KeyPair made = value_of(load_or_create_keys(file));
  CHECK(mode_of(file) == 0600);
  CHECK(mode_of(folder.path() / "a") == 0700);
  CHECK(mode_of(folder.path() / "a" / "b") == 0700);
  CHECK(read_file(file) == made.public_key + '\n' + made.secret_key + '\n');
  const KeyPair loaded = value_of(load_or_create_keys(file));
  CHECK(loaded.public_key == made.public_key);
  CHECK(loaded.secret_key == made.secret_key);
  const auto entries = std::filesystem::directory_iterator(folder.path() / "a" / "b");
  CHECK(std::distance(begin(entries), end(entries)) == 1);  // no temporary file is left
}

TEST_CASE("a key file may lie in the current folder", "[transport][keys]") {
  const TempFolder folder;
  const path before = std::filesystem::current_path();
  std::filesystem::current_path(folder.path());
  const auto keys = load_or_create_keys("bare.key");
  std::filesystem::current_path(before);
  CHECK(keys.has_value());
}

TEST_CASE("all who make the same keys at once end up with the same ones", "[transport][keys]") {
  const TempFolder folder;
  for (int round = 0; round < 10; ++round) {
    const path file = folder.path() / std::to_string(round) / "server.key";
    std::vector<std::string> secrets(8);
    at_once(secrets.size(), [&](size_t i) {
      if (auto keys = load_or_create_keys(file)) secrets[i] = keys->secret_key;
    });
    CHECK(is_key(secrets[0]));
    for (const std::string& secret : secrets) CHECK(secret == secrets[0]);
  }
}

TEST_CASE("a key file that others may use is refused", "[transport][keys]") {
  const TempFolder folder;
  const path file = folder.path() / "server.key";
  value_of(load_or_create_keys(file));
  const auto mode = GENERATE(0640, 0604, 0620, 0644, 0601);
  REQUIRE(::chmod(file.c_str(), static_cast<mode_t>(mode)) == 0);
  CHECK_FAILS_WITH(load_or_create_keys(file), ErrorCode::kInvalidArgument);
}

TEST_CASE("a broken key file is refused and left alone", "[transport][keys]") {
  const TempFolder folder;
  const path file = folder.path() / "server.key";
  const KeyPair keys = generate_keys();
  const std::string other = generate_keys().public_key;
  const std::string text = GENERATE_COPY(
      std::string(), keys.public_key + '\n', keys.public_key + '\n' + keys.secret_key,
      keys.public_key + '\n' + keys.secret_key + "\n\n",
      keys.secret_key + '\n' + keys.public_key + '\n', other + '\n' + keys.secret_key + '\n',
      std::string(40, '~') + '\n' + keys.secret_key + '\n',
      keys.public_key + '\n' + std::string(40, '~') + '\n');
  write_file(file, text);
  CHECK_FAILS_WITH(load_or_create_keys(file), ErrorCode::kCorrupt);
  CHECK(read_file(file) == text);
}

TEST_CASE("key files that cannot be read or made say so", "[transport][keys]") {
  const TempFolder folder;
  const path file = folder.path() / "file";
  write_file(file, std::string(100'000, 'x'));
  CHECK_FAILS_WITH(load_or_create_keys(file), ErrorCode::kTooLarge);
  CHECK_FAILS_WITH(load_or_create_keys(file / "below"), ErrorCode::kIo);
  CHECK_FAILS_WITH(load_allow_list(file / "below"), ErrorCode::kIo);
  CHECK_FAILS_WITH(load_allow_list(folder.path()), ErrorCode::kIo);
  CHECK_FAILS_WITH(enrol(file / "below", generate_keys().public_key, ""), ErrorCode::kIo);
}

TEST_CASE("an allow-list has one key a line, with comments", "[transport][keys]") {
  const TempFolder folder;
  const path file = folder.path() / "allowed";
  CHECK(value_of(load_allow_list(file)).empty());
  const std::string a = generate_keys().public_key;
  const std::string b = generate_keys().public_key;
  const std::string c = generate_keys().public_key;
  write_file(file, "# people\n\n" + a + "\t anna's phone \r\n  \t" + b + "\n" + a + "\n#" + c +
                       "\n   \n" + c);
  const std::map<std::string, std::string> expected = {{a, "anna's phone"}, {b, ""}, {c, ""}};
  CHECK(value_of(load_allow_list(file)) == expected);
}

TEST_CASE("a broken allow-list names the line", "[transport][keys]") {
  const TempFolder folder;
  const path file = folder.path() / "allowed";
  const std::string key = generate_keys().public_key;
  const std::string bad = GENERATE_COPY(key.substr(0, 39), key + key, std::string("hello"),
                                        key + '\0', std::string(40, '~'));
  write_file(file, key + "\n\n" + bad + "\n");
  const auto keys = load_allow_list(file);
  CHECK_FAILS_WITH(keys, ErrorCode::kCorrupt);
  CHECK(keys.error().message.find("line 3") != std::string::npos);
  CHECK_FAILS_WITH(enrol(file, generate_keys().public_key, ""), ErrorCode::kCorrupt);
  CHECK(read_file(file) == key + "\n\n" + bad + "\n");
}

TEST_CASE("enrolling adds a key once and keeps the rest of the file", "[transport][keys]") {
  const TempFolder folder;
  const path file = folder.path() / "new" / "allowed";
  const std::string a = generate_keys().public_key;
  const std::string b = generate_keys().public_key;
  value_of(enrol(file, a, "anna's phone"));
  CHECK(mode_of(file) == 0600);
  CHECK(mode_of(file.parent_path()) == 0700);
  CHECK(read_file(file) == a + " anna's phone\n");
  value_of(enrol(file, a, "again"));
  CHECK(read_file(file) == a + " anna's phone\n");

  write_file(file, "# mine\n" + a, 0640);  // as an editor may leave it
  value_of(enrol(file, b, ""));
  CHECK(read_file(file) == "# mine\n" + a + "\n" + b + "\n");
  CHECK(mode_of(file) == 0640);

  CHECK_FAILS_WITH(enrol(file, a.substr(1), ""), ErrorCode::kInvalidArgument);
  CHECK_FAILS_WITH(enrol(file, generate_keys().public_key, "two\nlines"),
                   ErrorCode::kInvalidArgument);
}

TEST_CASE("an allow-list does not grow without limit", "[transport][keys]") {
  const TempFolder folder;
  const path file = folder.path() / "allowed";
  constexpr size_t kLimit = 1UL << 20U;
  write_file(file, std::string(kLimit - 1, '\n'));
  CHECK_FAILS_WITH(enrol(file, generate_keys().public_key, ""), ErrorCode::kTooLarge);
  CHECK(std::filesystem::file_size(file) == kLimit - 1);
  write_file(file, std::string(kLimit + 1, '\n'));
  CHECK_FAILS_WITH(load_allow_list(file), ErrorCode::kTooLarge);
}

TEST_CASE("clients enrolled at once are all enrolled, and no reader sees half a line",
          "[transport][keys]") {
  const TempFolder folder;
  const path file = folder.path() / "allowed";
  std::vector<std::string> keys(16);
  for (std::string& key : keys) key = generate_keys().public_key;
  std::atomic<int> failures = 0;
  at_once(keys.size(), [&](size_t i) {
    if (!enrol(file, keys[i], "client " + std::to_string(i))) ++failures;
    if (const auto list = load_allow_list(file); !list || !list->contains(keys[i])) ++failures;
  });
  CHECK(failures == 0);
  const auto list = value_of(load_allow_list(file));
  CHECK(list.size() == keys.size());
  for (size_t i = 0; i < keys.size(); ++i) {
    CHECK(list.at(keys[i]) == "client " + std::to_string(i));
  }
}

/// Sets environment variables and puts them back.
class Environment {
 public:
  void set(const char* name, const char* value) {
    const char* old = std::getenv(name);
    before_.emplace_back(name, old == nullptr ? std::nullopt : std::optional<std::string>(old));
    value == nullptr ? ::unsetenv(name) : ::setenv(name, value, 1);
  }
  ~Environment() {
    for (auto i = before_.rbegin(); i != before_.rend(); ++i) {
      i->second ? ::setenv(i->first, i->second->c_str(), 1) : ::unsetenv(i->first);
    }
  }

 private:
  std::vector<std::pair<const char*, std::optional<std::string>>> before_;
};

TEST_CASE("keys live where the environment says", "[transport][keys]") {
  Environment environment;
  environment.set("HOME", "/home/anna");
  environment.set("XDG_CONFIG_HOME", nullptr);
  environment.set("ISTHMUS_HOME", nullptr);
  CHECK(KeyPaths::standard().client_key == "/home/anna/.config/isthmus/client.key");
  environment.set("XDG_CONFIG_HOME", "/config");
  CHECK(KeyPaths::standard().server_key == "/config/isthmus/server.key");
  environment.set("ISTHMUS_HOME", "/keys");
  CHECK(KeyPaths::standard().allow_list == "/keys/allowed-clients");
  environment.set("ISTHMUS_HOME", "");
  CHECK(KeyPaths::standard().allow_list == "/config/isthmus/allowed-clients");
}

}  // namespace
}  // namespace isthmus::transport
