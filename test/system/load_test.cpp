// isthmus-load against a real server.
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "server_process.h"

namespace isthmus {
namespace {

using test::Finished;

Finished load(const test::ServerProcess& server, const std::vector<std::string>& flags) {
  std::vector<std::string> words = {test::kBin + "/isthmus-load",
                                    "--model",
                                    test::kModel,
                                    "--server",
                                    server.address(),
                                    "--json",
                                    "--warm-up",
                                    "0"};
  words.insert(words.end(), flags.begin(), flags.end());
  return test::run(words, {{"ISTHMUS_HOME", server.home()}});
}

nlohmann::json report(const Finished& finished) {
  CAPTURE(finished.err);
  REQUIRE(finished.exit_code == 0);
  return nlohmann::json::parse(finished.out);
}

TEST_CASE("devices with several cuts are all served", "[system][load]") {
  test::ServerProcess server({"--allow-any-client"});
  const auto json = report(load(server, {"--devices", "6", "--cuts", "0,1,5,12,20,30", "--prompt",
                                         "20", "--output", "8", "--duration", "4", "--own-keys"}));
  CHECK(json["completed"] >= 6);
  CHECK(json["failed"].empty());
  CHECK(json["tokens_per_s"] > 1);
  CHECK(json["first_token_s"]["p50"] > 0);
  CHECK(json["first_token_s"]["p50"] <= json["first_token_s"]["p99"]);
  CHECK(json["between_tokens_s"]["max"] >= json["between_tokens_s"]["p99"]);
}

TEST_CASE("a full server refuses, or makes wait, and the report says so", "[system][load]") {
  const bool wait = GENERATE(false, true);
  CAPTURE(wait);
  std::vector<std::string> flags = {"--allow-any-client", "--max-sessions", "1"};
  if (wait) flags.emplace_back("--wait-when-full");
  test::ServerProcess server(flags);
  const auto json = report(
      load(server, {"--devices", "3", "--prompt", "10", "--output", "5", "--duration", "3"}));
  CHECK(json["completed"] >= 1);
  CHECK(json["failed"].contains("ServerFull") == !wait);
  CHECK((json["told_busy"] > 0) == wait);
}

TEST_CASE("requests come when a trace or chance says so", "[system][load]") {
  test::ServerProcess server({"--allow-any-client"});
  const test::TempFolder folder;
  const std::string trace = (folder.path() / "trace.csv").string();
  std::ofstream(trace) << "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
                          "5,ChatGPT,472,18,490,Conversation log\n"
                          "45,ChatGPT,12,0,12,Conversation log\n"  // one that failed
                          "118,ChatGPT,8,3,11,API log\n"
                          "9000,ChatGPT,8,3,11,API log\n";  // after the end
  const auto traced =
      report(load(server, {"--trace", trace, "--trace-speed", "100", "--prompt", "30", "--output",
                           "4", "--duration", "4", "--devices", "2"}));
  CHECK(traced["completed"] == 2);
  const auto random =
      report(load(server, {"--rate", "5", "--prompt", "4", "--output", "2", "--duration", "3"}));
  CHECK(random["completed"] >= 3);
  CHECK(random["completed"] <= 40);

  std::ofstream(trace) << "Timestamp,Request tokens,Response tokens\n1,2\n";
  const Finished broken = load(server, {"--trace", trace});
  CHECK(broken.exit_code == 1);
  CHECK(broken.err.find("line 2") != std::string::npos);
}

TEST_CASE("a prompt goes up in steps of the size asked for", "[system][load]") {
  test::ServerProcess server({"--allow-any-client", "--max-step-tokens", "512"});
  for (const char* chunk : {"1", "300", "4096"}) {
    CAPTURE(chunk);
    const auto json = report(load(server, {"--devices", "1", "--prompt", "300", "--output", "2",
                                           "--duration", "4", "--chunk", chunk}));
    CHECK(json["completed"] >= 1);
    CHECK(json["failed"].empty());
  }
}

TEST_CASE("an intruder's prompt is told apart from the others' tokens", "[system][load]") {
  test::ServerProcess server({"--allow-any-client"});
  const auto json = report(load(server, {"--devices", "2", "--prompt", "4", "--output", "300",
                                         "--intruder", "300", "--duration", "6"}));
  CHECK(json["intruder_s"] > 0);
  CHECK(json["between_tokens_before_s"]["p50"] > 0);
  CHECK(json["between_tokens_during_s"]["p99"] > 0);
}

TEST_CASE("requests longer than what a server grants have failed", "[system][load]") {
  test::ServerProcess server({"--allow-any-client", "--max-tokens", "100"});
  const auto json = report(load(server, {"--devices", "1", "--prompt", "60", "--output", "60",
                                         "--intruder", "300", "--duration", "2"}));
  CHECK(json["completed"] == 0);
  CHECK(json["failed"].contains("ContextFull"));
  CHECK(json["intruder_failed"] == "ContextFull");
}

TEST_CASE("loads that mean nothing are wrong usage", "[system][load]") {
  const std::vector<std::vector<std::string>> wrong = {{"--devices", "0"},
                                                       {"--rate", "1", "--trace", test::kModel},
                                                       {"--duration", "1", "--warm-up", "2"},
                                                       {"--cuts", "-1"},
                                                       {"--chunk", "0"},
                                                       {"--codec", "f31"},
                                                       {"--output", "0"}};
  for (const auto& flags : wrong) {
    CAPTURE(flags);
    std::vector<std::string> words = {test::kBin + "/isthmus-load", "--model", test::kModel,
                                      "--server", "isthmus://127.0.0.1:1"};
    words.insert(words.end(), flags.begin(), flags.end());
    CHECK(test::run(words).exit_code == 2);
  }
}

}  // namespace
}  // namespace isthmus
