// A real isthmus-server on a free loopback port, with keys of its own.
#pragma once

#include <isthmus/transport/keys.h>

#include <string>
#include <vector>

#include "support/catch.h"
#include "support/process.h"
#include "support/temp_folder.h"

namespace isthmus::test {

inline const std::string kBin = ISTHMUS_BIN_DIR;
inline const std::string kModel = ISTHMUS_MODEL_PATH;

class ServerProcess {
 public:
  explicit ServerProcess(const std::vector<std::string>& flags = {},
                         const std::string& model = kModel)
      : client_keys_(value_of(transport::load_or_create_keys(paths().client_key))),
        process_(command(flags, model), {{"ISTHMUS_HOME", home_.path().string()}}),
        address_(process_.read_line()) {}

  [[nodiscard]] const std::string& address() const { return address_; }
  [[nodiscard]] std::string home() const { return home_.path().string(); }
  [[nodiscard]] const transport::KeyPair& client_keys() const { return client_keys_; }
  [[nodiscard]] Process& process() { return process_; }

  void enrol_client() const {
    value_of(transport::enrol(paths().allow_list, client_keys_.public_key, "test"));
  }

 private:
  [[nodiscard]] transport::KeyPaths paths() const { return transport::KeyPaths::in(home_.path()); }
  static std::vector<std::string> command(const std::vector<std::string>& flags,
                                          const std::string& model) {
    std::vector<std::string> words = {
        kBin + "/isthmus-server", "--model", model, "--bind", "127.0.0.1:0", "--quiet"};
    words.insert(words.end(), flags.begin(), flags.end());
    return words;
  }

  TempFolder home_;
  transport::KeyPair client_keys_;
  Process process_;
  std::string address_;
};

}  // namespace isthmus::test
