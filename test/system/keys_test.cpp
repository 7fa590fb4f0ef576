// isthmus-keys as a real process.
#include <isthmus/transport/address.h>
#include <isthmus/transport/keys.h>

#include <algorithm>
#include <fstream>

#include "support/catch.h"
#include "support/process.h"
#include "support/temp_folder.h"

namespace isthmus {
namespace {

using test::Finished;
using test::TempFolder;
using test::value_of;

const std::string kKeys = std::string(ISTHMUS_BIN_DIR) + "/isthmus-keys";

Finished keys(const TempFolder& home, std::vector<std::string> words) {
  words.insert(words.begin(), kKeys);
  return test::run(words, {{"ISTHMUS_HOME", home.path().string()}});
}

std::string line(const Finished& finished) {
  CAPTURE(finished.err);
  REQUIRE(finished.exit_code == 0);
  REQUIRE(std::count(finished.out.begin(), finished.out.end(), '\n') == 1);
  REQUIRE(finished.out.back() == '\n');
  return finished.out.substr(0, finished.out.size() - 1);
}

TEST_CASE("keys are shown, and made on first use", "[system][keys]") {
  const TempFolder home;
  const auto paths = transport::KeyPaths::in(home.path());
  const std::string client = line(keys(home, {"show"}));
  CHECK(client == value_of(transport::load_or_create_keys(paths.client_key)).public_key);
  CHECK(line(keys(home, {"show", "--client"})) == client);
  CHECK_FALSE(std::filesystem::exists(paths.server_key));
  const std::string server = line(keys(home, {"show", "--server"}));
  CHECK(server == value_of(transport::load_or_create_keys(paths.server_key)).public_key);
  CHECK(server != client);
}

TEST_CASE("--home wins over the environment", "[system][keys]") {
  const TempFolder home;
  const TempFolder other;
  const std::string key = line(keys(home, {"--home", other.path().string(), "show"}));
  CHECK(line(keys(home, {"show", "--home", other.path().string()})) == key);
  CHECK(std::filesystem::exists(transport::KeyPaths::in(other.path()).client_key));
  CHECK(std::filesystem::is_empty(home.path()));
}

TEST_CASE("devices are enrolled and listed", "[system][keys]") {
  const TempFolder home;
  const std::string key = transport::generate_keys().public_key;
  CHECK(keys(home, {"list"}).out.empty());
  CHECK(keys(home, {"enrol", key, "--comment", "anna's phone"}).exit_code == 0);
  CHECK(line(keys(home, {"list"})) == key + " anna's phone");
  CHECK(keys(home, {"enrol", key}).exit_code == 0);
  CHECK(line(keys(home, {"list"})) == key + " anna's phone");
}

TEST_CASE("the printed address names the host, the port and the server's key", "[system][keys]") {
  const TempFolder home;
  const auto host = GENERATE(as<std::string>(), "gpu.example", "::1");
  const std::string text = line(keys(home, {"address", "--host", host, "--port", "5555"}));
  const auto address = value_of(transport::ServerAddress::parse(text));
  CHECK(address.host == host);
  CHECK(address.port == 5555);
  CHECK(address.public_key == line(keys(home, {"show", "--server"})));
}

TEST_CASE("wrong usage is exit code 2, help and version are 0", "[system][keys]") {
  const TempFolder home;
  CHECK(keys(home, {"--help"}).exit_code == 0);
  CHECK(line(keys(home, {"--version"})).starts_with("isthmus-keys "));
  const auto words =
      GENERATE(values<std::vector<std::string>>({{},
                                                 {"make"},
                                                 {"show", "--server", "--client"},
                                                 {"show", "more"},
                                                 {"enrol"},
                                                 {"list", "show"},
                                                 {"address", "--host", "h"},
                                                 {"address", "--host", "h", "--port", "65536"},
                                                 {"address", "--host", "h", "--port", "ssh"},
                                                 {"--no-such-flag"}}));
  const Finished finished = keys(home, words);
  CAPTURE(finished.out, finished.err);
  CHECK(finished.exit_code == 2);
  CHECK_FALSE(finished.err.empty());
  CHECK(std::filesystem::is_empty(home.path()));
}

TEST_CASE("a failure is exit code 1 and one line that says why", "[system][keys]") {
  const TempFolder home;
  const auto check = [&](const std::vector<std::string>& words) {
    const Finished finished = keys(home, words);
    CAPTURE(finished.out, finished.err);
    CHECK(finished.exit_code == 1);
    CHECK(finished.out.empty());
    CHECK(finished.err.starts_with("isthmus-keys: error: "));
    CHECK(std::count(finished.err.begin(), finished.err.end(), '\n') == 1);
  };
  check({"enrol", "not-a-key"});
  check({"address", "--host", "no host", "--port", "1"});
  check({"address", "--host", "h", "--port", "0"});
  const auto paths = transport::KeyPaths::in(home.path());
  std::ofstream(paths.server_key) << "broken";
  std::ofstream(paths.allow_list) << "broken";
  check({"show", "--server"});
  check({"list"});
  std::filesystem::remove(paths.server_key);
  value_of(transport::load_or_create_keys(paths.server_key));
  std::filesystem::permissions(paths.server_key, std::filesystem::perms::others_read,
                               std::filesystem::perm_options::add);
  check({"show", "--server"});
}

}  // namespace
}  // namespace isthmus
