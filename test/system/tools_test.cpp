// The command-line tools as real processes: output, exit codes, and what happens when things go
// wrong.
#include <signal.h>

#include <isthmus/edge/device.h>
#include <isthmus/transport/address.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "server_process.h"

namespace isthmus {
namespace {

using test::Finished;
using test::kBin;
using test::kModel;

const std::string kChat = kBin + "/isthmus-chat";
const std::string kServer = kBin + "/isthmus-server";

Finished chat(const test::ServerProcess& server, std::vector<std::string> flags,
              const std::string& input = {}) {
  std::vector<std::string> words = {kChat, "--model", kModel, "--server", server.address()};
  words.insert(words.end(), flags.begin(), flags.end());
  return test::run(words, {{"ISTHMUS_HOME", server.home()}}, input);
}

void check_failure(const Finished& finished, const std::string& expected) {
  CAPTURE(finished.out, finished.err);
  CHECK(finished.exit_code == 1);
  CHECK(finished.err.starts_with("isthmus-"));
  CHECK(finished.err.find(expected) != std::string::npos);
  CHECK(std::count(finished.err.begin(), finished.err.end(), '\n') == 1);
}

TEST_CASE("wrong usage is exit code 2, help and version are 0", "[system][tools]") {
  CHECK(test::run({kChat}).exit_code == 2);
  CHECK(test::run({kChat, "--model", kModel}).exit_code == 2);
  CHECK(test::run({kChat, "--model", kModel, "--local", "--cut", "3"}).exit_code == 2);
  CHECK(test::run({kChat, "--model", kModel, "--local", "--no-such-flag"}).exit_code == 2);
  CHECK(test::run({kServer}).exit_code == 2);
  for (const std::string& tool : {kChat, kServer}) {
    CHECK(test::run({tool, "--help"}).exit_code == 0);
    const Finished version = test::run({tool, "--version"});
    CHECK(version.exit_code == 0);
    CHECK(version.out.find("isthmus-") == 0);
  }
}

TEST_CASE("isthmus-chat --json prints one object with every promised field", "[system][tools]") {
  test::ServerProcess server({"--allow-any-client"});
  const Finished finished =
      chat(server, {"--prompt", "Name a fruit.", "--json", "--max-tokens", "8", "--cut", "2"});
  CAPTURE(finished.out, finished.err);
  REQUIRE(finished.exit_code == 0);
  const auto object = nlohmann::json::parse(finished.out);
  CHECK(object.at("prompt_token_ids").size() > 3);
  CHECK(object.at("token_ids").size() <= 8);
  CHECK_FALSE(object.at("text").get<std::string>().empty());
  CHECK(object.at("time_to_first_token_s").get<double>() > 0);
  CHECK(object.at("tokens_per_s").get<double>() > 0);
  // A boundary row is 576 numbers: by default they take at least 4.8 times less than 16 bits each.
  const auto rows = object.at("prompt_token_ids").size() + object.at("token_ids").size() - 1;
  const auto boundary_bytes = object.at("boundary_bytes_up").get<uint64_t>();
  CHECK(boundary_bytes * 48 < rows * 576 * 2 * 10);
  CHECK(object.at("bytes_up").get<uint64_t>() > boundary_bytes);
  CHECK(object.at("bytes_up").get<uint64_t>() < boundary_bytes + rows * 200);
  CHECK(object.at("bytes_down").get<uint64_t>() > 0);
  for (const char* part : {"device", "codec", "wire", "server"})
    CHECK(object.at("time_s").at(part).get<double>() > 0);
}

TEST_CASE("the artefacts that come with the source work across two processes", "[system][tools]") {
  const auto path = [](const char* name) {
    return ISTHMUS_SOURCE_DIR "/examples/artefacts/" + std::string(name) + ".safetensors";
  };
  const auto ask = [&](const std::string& artefact) {
    test::ServerProcess server({"--allow-any-client", "--artefact", artefact});
    const Finished finished = chat(server, {"--artefact", artefact, "--json", "--max-tokens", "32",
                                            "--prompt", "What is the capital of France?"});
    CAPTURE(finished.out, finished.err);
    REQUIRE(finished.exit_code == 0);
    return nlohmann::json::parse(finished.out);
  };
  const auto small = ask(path("smollm2-135m-cut1-int4"));
  CHECK(small.at("text").get<std::string>().find("Paris") != std::string::npos);
  const auto rows = small.at("prompt_token_ids").size() + small.at("token_ids").size() - 1;
  CHECK(small.at("boundary_bytes_up").get<uint64_t>() < rows * 70);
  const auto noised = ask(path("smollm2-135m-cut0-mu52"));
  CHECK(noised.at("released_rows") == noised.at("prompt_token_ids").size());
  CHECK(std::abs(noised.at("privacy").at("epsilon_per_row").get<double>() - 1280) < 10);
}

TEST_CASE("a server's answers are checked here or on another server", "[system][tools]") {
  test::ServerProcess server({"--allow-any-client"});
  test::ServerProcess other({"--allow-any-client"});
  std::vector<std::string> flags = {
      "--prompt", "Name a fruit.", "--json", "--cut", "2", "--max-tokens", "8", "--verify", "1"};
  if (GENERATE(false, true)) flags.insert(flags.end(), {"--verify-server", other.address()});
  const Finished finished = chat(server, flags);
  CAPTURE(finished.out, finished.err);
  REQUIRE(finished.exit_code == 0);
  const auto object = nlohmann::json::parse(finished.out);
  const auto& verification = object.at("verification");
  CHECK(verification.at("compared") == object.at("token_ids").size());
  CHECK(verification.at("other_tokens") == 0);
  CHECK(verification.at("suspicious") == false);
  CHECK(verification.at("problem") == "");
}

TEST_CASE("split and local chats print the same text, over several turns", "[system][tools]") {
  test::ServerProcess server({"--allow-any-client"});
  const std::string conversation = "My name is Ada.\nWhat is my name?\n";
  const std::vector<std::string> common = {"--max-tokens", "24", "--codec", "f32"};
  std::vector<std::string> local = {kChat, "--model", kModel, "--local"};
  local.insert(local.end(), common.begin(), common.end());
  const Finished alone = test::run(local, {}, conversation);
  const Finished split = chat(server, common, conversation);
  CAPTURE(alone.err, split.err);
  REQUIRE(alone.exit_code == 0);
  REQUIRE(split.exit_code == 0);
  CHECK(alone.out == split.out);
  CHECK(alone.out.find("Ada") != std::string::npos);
  CHECK(split.err.find("bytes per token") != std::string::npos);
}

TEST_CASE("a seeded choice is the same on the device and on the server", "[system][tools]") {
  test::ServerProcess server({"--allow-any-client"});
  const std::vector<std::string> flags = {"--prompt",
                                          "Tell me a story.",
                                          "--max-tokens",
                                          "24",
                                          "--temperature",
                                          "0.9",
                                          "--top-p",
                                          "0.95",
                                          "--repetition-penalty",
                                          "1.1",
                                          "--seed",
                                          "7",
                                          "--codec",
                                          "f32"};
  std::vector<std::string> with_tail = flags;
  with_tail.insert(with_tail.end(), {"--tail", "30"});
  const Finished on_server = chat(server, flags);
  const Finished on_device = chat(server, with_tail);
  REQUIRE(on_server.exit_code == 0);
  CHECK_FALSE(on_server.out.empty());
  CHECK(on_server.out == on_device.out);
}

TEST_CASE("a client that is not enrolled, and a server with another key, are refused",
          "[system][tools]") {
  test::ServerProcess server;
  check_failure(chat(server, {"--prompt", "hi"}), "key");

  test::ServerProcess open_server({"--allow-any-client"});
  std::string wrong = open_server.address();
  wrong =
      wrong.substr(0, wrong.find("key=")) + server.address().substr(server.address().find("key="));
  check_failure(test::run({kChat, "--model", kModel, "--server", wrong, "--prompt", "hi"},
                          {{"ISTHMUS_HOME", open_server.home()}}),
                "key");
}

TEST_CASE("an address where nobody listens is one clear line", "[system][tools]") {
  test::TempFolder home;
  const std::string key = transport::generate_keys().public_key;
  const std::string address =
      transport::ServerAddress{.host = "127.0.0.1", .port = 1, .public_key = key}.to_string();
  check_failure(test::run({kChat, "--model", kModel, "--server", address, "--prompt", "hi"},
                          {{"ISTHMUS_HOME", home.path().string()}}),
                "isthmus-chat: error:");
}

TEST_CASE("a full server says so, and has room again when a session ends", "[system][tools]") {
  test::ServerProcess server({"--allow-any-client", "--max-sessions", "1"});
  const edge::SessionOptions options{.server = server.address(), .keys = server.client_keys()};
  edge::Device device = test::value_of(edge::Device::load({.model = kModel, .cut = 0}));
  {
    const edge::Session session = test::value_of(device.open_session(options));
    CHECK_FAILS_WITH(device.open_session(options), ErrorCode::kServerFull);
  }
  CHECK(device.open_session(options).has_value());
}

TEST_CASE("SIGTERM stops a server with exit code 0", "[system][tools]") {
  test::ServerProcess server;
  server.process().signal(SIGTERM);
  CHECK(server.process().wait() == 0);
}

TEST_CASE("a server that is told to stop finishes what it has begun", "[system][tools]") {
  test::ServerProcess server({"--allow-any-client"});
  edge::Device device = test::value_of(edge::Device::load({.model = kModel, .cut = 1}));
  const edge::SessionOptions options{.server = server.address(), .keys = server.client_keys()};
  edge::Session session = test::value_of(device.open_session(options));
  // SIGTERM comes while a reply is on its way: whatever was asked is answered, and what was not
  // asked yet ends in a typed error.
  const auto reply =
      session.say("hi", {.max_tokens = 50}, [&, count = 0](std::string_view) mutable {
        if (++count == 5) server.process().signal(SIGTERM);
        return true;
      });
  CHECK(server.process().wait() == 0);
  if (!reply) {
    CAPTURE(reply.error().message);
    CHECK((reply.error().code == ErrorCode::kDraining ||
           reply.error().code == ErrorCode::kServerLost));
  }
}

TEST_CASE("a killed server is a typed error, and so is a turn after it", "[system][tools]") {
  test::ServerProcess server({"--allow-any-client"});
  edge::SessionOptions options{.server = server.address(), .keys = server.client_keys()};
  options.reconnect_timeout = std::chrono::milliseconds(500);
  edge::Device device = test::value_of(edge::Device::load({.model = kModel, .cut = 1}));
  edge::Session session = test::value_of(device.open_session(options));
  CHECK(session.say("hi", {.max_tokens = 2}).has_value());
  server.process().signal(SIGKILL);
  CHECK_FAILS_WITH(session.say("again", {.max_tokens = 2}), ErrorCode::kServerLost);
  CHECK_FAILS_WITH(session.say("again", {.max_tokens = 2}), ErrorCode::kServerLost);
}

TEST_CASE("a CUDA device that is not there is one clear line", "[system][tools]") {
  if (std::filesystem::exists("/dev/nvidiactl")) return;  // there is one; check-gpu's tests use it
  check_failure(test::run({kServer, "--model", kModel, "--device", "cuda"}), "cuda");
}

TEST_CASE("output that cannot be written is a failure", "[system][tools]") {
  check_failure(
      test::run({"sh", "-c",
                 "exec \"$0\" --model \"$1\" --local --prompt hi --max-tokens 2 --json >/dev/full",
                 kChat, kModel}),
      "standard output");
}

TEST_CASE("a folder in place of a text file is one clear line", "[system][tools]") {
  const test::TempFolder folder;
  check_failure(
      test::run({kChat, "--model", kModel, "--plan", folder.path().string(), "--prompt", "hi"}),
      "cannot read");
}

TEST_CASE("values out of range are wrong usage", "[system][tools]") {
  const std::vector<std::vector<std::string>> chats = {
      {"--threads", "100000"},  {"--threads", "-1"},   {"--timeout", "nan"},
      {"--timeout", "-5"},      {"--codec", "f31"},    {"--chat-format", "morse"},
      {"--temperature", "-1"},  {"--max-tokens", "0"}, {"--context", "0"},
      {"--precision", "vague"}, {"--stop", ""}};
  for (const auto& flags : chats) {
    CAPTURE(flags);
    std::vector<std::string> words = {kChat, "--model", kModel, "--local", "--prompt", "hi"};
    words.insert(words.end(), flags.begin(), flags.end());
    CHECK(test::run(words).exit_code == 2);
  }
  CHECK(test::run({kChat, "--model", kModel, "--server", "nonsense", "--prompt", "hi"}).exit_code ==
        2);
  const std::vector<std::vector<std::string>> servers = {
      {"--bind", "nonsense"},      {"--layers", "3"},      {"--max-sessions", "0"},
      {"--token-budget", "3"},     {"--kv-memory", "-1"},  {"--max-in-flight", "0"},
      {"--threads", "5000000000"}, {"--device", "abacus"}, {"--precision", "vague"},
      {"--bind", ":5755"},         {"--metrics", ":9464"}};
  for (const auto& flags : servers) {
    CAPTURE(flags);
    std::vector<std::string> words = {kServer, "--model", kModel};
    words.insert(words.end(), flags.begin(), flags.end());
    CHECK(test::run(words).exit_code == 2);
  }
}

TEST_CASE("bits that an engine would not heed are wrong usage", "[system][tools]") {
  const std::vector<std::vector<std::string>> servers = {
      {"--device", "torch", "--kv-bits", "8"},
      {"--device", "cuda", "--back-bits", "8"},
      {"--device", "cuda:1", "--plan", "a.json"},
      {"--precision", "exact", "--kv-bits", "16"},
      {"--precision", "exact", "--back-bits", "4"}};
  for (const auto& flags : servers) {
    CAPTURE(flags);
    std::vector<std::string> words = {kServer, "--model", kModel};
    words.insert(words.end(), flags.begin(), flags.end());
    CHECK(test::run(words).exit_code == 2);
  }
  for (const char* bits : {"--kv-bits", "--front-bits"}) {
    CHECK(test::run({kChat, "--model", kModel, "--local", "--prompt", "hi", "--precision", "exact",
                     bits, "8"})
              .exit_code == 2);
  }
}

TEST_CASE("without encryption both sides must be told so", "[system][tools]") {
  test::ServerProcess server({"--insecure"});
  CHECK(server.address().find("key=") == std::string::npos);
  check_failure(chat(server, {"--prompt", "hi", "--max-tokens", "2"}), "key");
  CHECK(chat(server, {"--prompt", "hi", "--max-tokens", "2", "--insecure"}).exit_code == 0);
}

TEST_CASE("a budget without a mechanism is no budget", "[system][tools]") {
  test::ServerProcess server;
  check_failure(chat(server, {"--prompt", "hi", "--codec", "f16", "--budget", "3"}), "mechanism");
  check_failure(test::run({kChat, "--model", kModel, "--local", "--prompt", "hi", "--budget", "3"}),
                "--server");
}

TEST_CASE("device and server run from slices of the model", "[system][tools]") {
  const test::TempFolder folder;
  const std::string front = (folder.path() / "front.gguf").string();
  const std::string back = (folder.path() / "back.gguf").string();
  const std::string slice = kBin + "/isthmus-slice";
  REQUIRE(test::run({slice, "--model", kModel, "--layers", "0:4", "--embedding", "--output", front})
              .exit_code == 0);
  REQUIRE(test::run({slice, "--model", kModel, "--layers", "4:30", "--head", "--output", back})
              .exit_code == 0);

  test::ServerProcess server({"--allow-any-client"}, back);
  const std::vector<std::string> flags = {"--prompt", "Name a fruit.", "--max-tokens",
                                          "16",       "--codec",       "f32"};
  std::vector<std::string> split = {kChat, "--model", front, "--server", server.address()};
  split.insert(split.end(), flags.begin(), flags.end());
  std::vector<std::string> whole = {kChat, "--model", kModel, "--local"};
  whole.insert(whole.end(), flags.begin(), flags.end());
  const Finished sliced = test::run(split, {{"ISTHMUS_HOME", server.home()}});
  CAPTURE(sliced.err);
  REQUIRE(sliced.exit_code == 0);
  CHECK(sliced.out == test::run(whole).out);
  // A layer that neither side holds is named.
  check_failure(chat(server, {"--prompt", "hi", "--cut", "2"}), "layer");
}

}  // namespace
}  // namespace isthmus
