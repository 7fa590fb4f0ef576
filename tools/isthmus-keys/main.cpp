// isthmus-keys: this machine's keys, the server's allow-list, and connection strings.
#include <isthmus/transport/address.h>
#include <isthmus/transport/keys.h>

#include <CLI/CLI.hpp>
#include <cstdio>

#include "common/command_line.h"
#include "common/terminal.h"

namespace isthmus::tools {
namespace {

using transport::KeyPaths;

constexpr const char* kTool = "isthmus-keys";

struct Flags {
  std::string home;
  bool server = false;
  std::string key;
  std::string comment;
  std::string host;
  uint16_t port = 0;
};

Status show(const KeyPaths& paths, const Flags& flags) {
  const auto& file = flags.server ? paths.server_key : paths.client_key;
  ISTHMUS_ASSIGN(const auto keys, transport::load_or_create_keys(file));
  std::printf("%s\n", keys.public_key.c_str());
  return {};
}

Status enrol(const KeyPaths& paths, const Flags& flags) {
  return transport::enrol(paths.allow_list, flags.key, flags.comment);
}

Status list(const KeyPaths& paths, const Flags&) {
  ISTHMUS_ASSIGN(const auto clients, transport::load_allow_list(paths.allow_list));
  for (const auto& [key, comment] : clients) {
    std::printf("%s%s%s\n", key.c_str(), comment.empty() ? "" : " ", comment.c_str());
  }
  return {};
}

Status print_address(const KeyPaths& paths, const Flags& flags) {
  transport::ServerAddress address{flags.host, flags.port, {}};
  // Whatever the flags say, what is printed can be connected to.
  ISTHMUS_TRY(transport::ServerAddress::parse(address.to_string()));
  ISTHMUS_ASSIGN(const auto keys, transport::load_or_create_keys(paths.server_key));
  address.public_key = keys.public_key;
  std::printf("%s\n", address.to_string().c_str());
  return {};
}

int main(int argc, char** argv) {
  CLI::App app("Shows and enrols the keys that devices and servers know each other by.", kTool);
  app.require_subcommand(1);
  app.fallthrough();
  Flags flags;
  app.add_option("--home", flags.home,
                 "folder of keys and allow-list instead of ~/.config/isthmus");

  Status (*command)(const KeyPaths&, const Flags&) = nullptr;
  const auto add = [&](const char* name, const char* help, auto function) {
    CLI::App* sub = app.add_subcommand(name, help);
    sub->callback([&command, function] { command = function; });
    return sub;
  };
  CLI::App* shown = add("show", "print this machine's public key, made on first use", show);
  auto* server = shown->add_flag("--server", flags.server, "the key of a server run here");
  shown->add_flag("--client")
      ->description("the key that devices run here connect with (the default)")
      ->excludes(server);
  CLI::App* enrolled = add("enrol", "let a device connect to the server run here", enrol);
  enrolled->add_option("KEY", flags.key, "the device's public key")->required();
  enrolled->add_option("--comment", flags.comment, "whose key it is");
  add("list", "print the enrolled keys and their comments", list);
  CLI::App* addressed =
      add("address", "print the string that devices connect to this server with", print_address);
  addressed->add_option("--host", flags.host, "name or address that devices reach it at")
      ->required();
  addressed->add_option("--port", flags.port, "port that it is bound to")->required();

  return run_tool(
      app, argc, argv, [] {},
      [&] {
        return command(flags.home.empty() ? KeyPaths::standard() : KeyPaths::in(flags.home), flags);
      });
}

}  // namespace
}  // namespace isthmus::tools

int main(int argc, char** argv) {
  return isthmus::tools::main(argc, argv);
}
