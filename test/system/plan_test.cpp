// isthmus-plan with a real server and the real model: profiles, link, plan, and a chat that follows
// it.
#include <isthmus/planner/plan_file.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <numeric>

#include "server_process.h"

namespace isthmus {
namespace {

using nlohmann::json;
using test::Finished;
using test::kBin;
using test::kModel;
using test::value_of;

const std::string kPlan = kBin + "/isthmus-plan";
// The second is "split:4|rotate|int4|rans", written in another way.
const std::string kPlainSpecs = "f16;split:4|rotate:0|int4|rans";
const std::string kNoise = "clip:max=2|binomial:4:mu=52|rans";
const std::string kSpecs = kPlainSpecs + ";" + kNoise;

std::string read(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

void check_failure(const Finished& finished, const std::string& expected) {
  CAPTURE(finished.out, finished.err);
  CHECK(finished.exit_code == 1);
  CHECK(finished.err.starts_with("isthmus-plan: error: "));
  CHECK(finished.err.find(expected) != std::string::npos);
  CHECK(std::count(finished.err.begin(), finished.err.end(), '\n') == 1);
}

/// A profile of this machine, measured once for all tests.
const std::string& profile_path() {
  static const test::TempFolder folder;
  static const std::string path = [] {
    const std::string file = (folder.path() / "machine.json").string();
    const Finished finished =
        test::run({kPlan, "profile", "--model", kModel, "--threads", "1", "--repetitions", "3",
                   "--weight-bits", "8", "--kv-bits", "16", "--specs", kSpecs, "--pause-ms", "0",
                   "--output", file});
    CAPTURE(finished.err);
    REQUIRE(finished.exit_code == 0);
    return file;
  }();
  return path;
}

/// Everything that a plan needs, with a link through a real server's channel.
struct Fixture {
  Fixture() : server({"--allow-any-client", "--profile", profile_path()}) {
    const Finished probed = ask("link", {"--probes", "10", "--output", link});
    CAPTURE(probed.err);
    REQUIRE(probed.exit_code == 0);
  }
  Finished ask(const std::string& what, std::vector<std::string> flags = {}) const {
    flags.insert(flags.begin(), {kPlan, what, "--server", server.address()});
    return test::run(flags, {{"ISTHMUS_HOME", server.home()}});
  }
  Finished plan(std::vector<std::string> flags) const { return plan_over(link, std::move(flags)); }
  Finished plan_over(const std::string& link_path, std::vector<std::string> flags) const {
    flags.insert(flags.begin(),
                 {kPlan, "--device", profile_path(), "--server-profile", profile_path(), "--link",
                  link_path, "--prompt", "32", "--reply", "8", "--specs", kPlainSpecs});
    return test::run(flags);
  }

  test::TempFolder folder;
  test::ServerProcess server;
  std::string link = (folder.path() / "link.json").string();
  std::string output = (folder.path() / "plan.json").string();
};

TEST_CASE("a measured profile is complete and plausible", "[system][plan]") {
  const auto profile = value_of(planner::parse_machine(read(profile_path()), "machine.json"));
  CHECK(profile.model.layer_count == 30);
  CHECK(profile.codecs.size() == 3);
  CHECK(profile.find_codec(kNoise)->up_only);
  CHECK_FALSE(profile.find_codec("f16")->up_only);
  REQUIRE(profile.weight_count);
  CHECK(profile.weight_count->layers == 106'168'320);
  CHECK(profile.weight_count->head == 28'311'552);  // 49,152 x 576
  const planner::WeightCost& weights = profile.weights.front();
  CHECK(weights.time.at(30, 1) > weights.time.at(2, 1));
  CHECK(weights.time.at(30, 128) > weights.time.at(30, 8));
  // 576 numbers of two bytes, and a scale.
  CHECK(profile.find_codec("f16")->bytes(3, 1) > 2 * 576);
  CHECK(profile.find_codec("f16")->bytes(3, 1) < 2 * 576 + 16);
  CHECK(profile.find_codec("split:4|rotate|int4|rans")->bytes(3, 1) < 400);
  CHECK(profile.base_bytes > 1e6);
  CHECK(profile.base_bytes < 60e6);  // nothing of what only the measurement needs
}

TEST_CASE("the profile of a machine that is not at hand comes from its description",
          "[system][plan]") {
  const auto derive = [](const std::string& gop_s) {
    return test::run({kPlan, "derive", "--profile", profile_path(), "--machine", "board",
                      "--read-gb-s", "5", "--gop-s", gop_s, "--free-mb", "500"});
  };
  const Finished finished = derive("20");
  REQUIRE(finished.exit_code == 0);
  const auto profile = value_of(planner::parse_machine(finished.out, "derived"));
  CHECK(profile.machine == "board");
  CHECK(profile.free_bytes == 500e6);
  // Decoding reads all weights of the layers, at 5 GB/s; the call comes on top.
  const planner::WeightCost& weights = profile.weights.front();
  const double bytes = std::accumulate(weights.layer_bytes.begin(), weights.layer_bytes.end(), 0.0);
  CHECK(weights.time.at(30, 1) == Approx(bytes / 5e9 + 20e-6));
  check_failure(derive("0"), "operations_per_second is 0");
}

TEST_CASE("a server gives its profile, and a probe the link", "[system][plan]") {
  const Fixture fixture;
  const Finished asked = fixture.ask("server");
  CHECK(asked.exit_code == 0);
  CHECK(asked.out == read(profile_path()));
  const auto link = value_of(planner::parse_link(read(fixture.link), "link"));
  CHECK(link.rtt_seconds > 0);
  CHECK(link.rtt_seconds < 1);
  CHECK(link.up_bits_per_second > 1e6);
  const test::ServerProcess without({"--allow-any-client"});
  const Finished none = test::run({kPlan, "server", "--server", without.address()},
                                  {{"ISTHMUS_HOME", without.home()}});
  check_failure(none, "the server has no profile");
}

TEST_CASE("a chat follows its plan", "[system][plan]") {
  const Fixture fixture;
  const std::string html = (fixture.folder.path() / "plan.html").string();
  const std::string csv = (fixture.folder.path() / "plan.csv").string();
  const Finished planned = fixture.plan({"--no-local", "--no-tail", "--min-cut", "4", "--output",
                                         fixture.output, "--html", html, "--csv", csv});
  CAPTURE(planned.out, planned.err);
  REQUIRE(planned.exit_code == 0);
  const auto plan = value_of(planner::parse_plan(read(fixture.output), "plan.json"));
  CHECK(plan.placement.cut >= 4);
  CHECK(read(html).find("<svg") != std::string::npos);
  CHECK(read(csv).find("best_per_cut,4,") != std::string::npos);
  const std::vector<std::string> say = {"--prompt", "Name a fruit.", "--max-tokens", "4", "--json"};
  std::vector<std::string> chat = {kBin + "/isthmus-chat",   "--model", kModel,        "--server",
                                   fixture.server.address(), "--plan",  fixture.output};
  chat.insert(chat.end(), say.begin(), say.end());
  const Finished said = test::run(chat, {{"ISTHMUS_HOME", fixture.server.home()}});
  CAPTURE(said.err);
  REQUIRE(said.exit_code == 0);
  // So does a server that holds no more than the plan needs of it.
  const test::ServerProcess planned_server({"--allow-any-client", "--plan", fixture.output});
  chat[4] = planned_server.address();
  const Finished there = test::run(chat, {{"ISTHMUS_HOME", planned_server.home()}});
  CAPTURE(there.err);
  REQUIRE(there.exit_code == 0);
  CHECK(json::parse(there.out).at("token_ids") == json::parse(said.out).at("token_ids"));
  chat[4] = fixture.server.address();
  // The same as with the plan's settings by hand.
  chat.resize(5);
  chat.insert(chat.end(), {"--cut", std::to_string(plan.placement.cut), "--codec", plan.codec_up,
                           "--threads", "1"});
  chat.insert(chat.end(), say.begin(), say.end());
  const Finished by_hand = test::run(chat, {{"ISTHMUS_HOME", fixture.server.home()}});
  REQUIRE(by_hand.exit_code == 0);
  const json a = json::parse(said.out);
  const json b = json::parse(by_hand.out);
  CHECK(a.at("token_ids") == b.at("token_ids"));
  CHECK(a.at("weight_mb") == b.at("weight_mb"));
}

TEST_CASE("a server that a plan leaves the head alone holds nothing else", "[system][plan]") {
  const Fixture fixture;
  const Finished planned =
      fixture.plan({"--no-local", "--no-tail", "--min-cut", "30", "--output", fixture.output});
  REQUIRE(planned.exit_code == 0);
  const test::ServerProcess server({"--allow-any-client", "--plan", fixture.output});
  const auto chat = [&](const std::vector<std::string>& flags) {
    std::vector<std::string> words = {
        kBin + "/isthmus-chat", "--model",      kModel, "--server", server.address(), "--prompt",
        "Name a fruit.",        "--max-tokens", "4"};
    words.insert(words.end(), flags.begin(), flags.end());
    return test::run(words, {{"ISTHMUS_HOME", server.home()}});
  };
  const Finished said = chat({"--plan", fixture.output});
  CAPTURE(said.err);
  CHECK(said.exit_code == 0);
  CHECK_FALSE(said.out.empty());
  CHECK(chat({"--cut", "29"}).exit_code == 1);
}

TEST_CASE("an exact server does not follow a plan of packed weights", "[system][plan]") {
  const Fixture fixture;
  REQUIRE(fixture.plan({"--no-local", "--output", fixture.output}).exit_code == 0);
  const Finished refused = test::run({kBin + "/isthmus-server", "--model", kModel, "--precision",
                                      "exact", "--plan", fixture.output});
  CHECK(refused.exit_code == 1);
  CHECK(refused.err.find("counts on --precision fine") != std::string::npos);
}

TEST_CASE("a chat whose plan no longer holds makes the next one", "[system][plan]") {
  const Fixture fixture;
  // A link that is said to take a second, which it does not.
  auto link = value_of(planner::parse_link(read(fixture.link), "link"));
  link.rtt_seconds = link.rtt_p95_seconds = 1;
  const std::string slow = (fixture.folder.path() / "slow.json").string();
  std::ofstream(slow) << to_json(link);
  const Finished planned =
      fixture.plan_over(slow, {"--no-local", "--no-tail", "--output", fixture.output});
  REQUIRE(planned.exit_code == 0);
  const auto plan = value_of(planner::parse_plan(read(fixture.output), "plan.json"));
  REQUIRE(plan.token_seconds > 1);
  const std::string next_path = (fixture.folder.path() / "next.json").string();
  const Finished said =
      test::run({kBin + "/isthmus-chat", "--model", kModel, "--server", fixture.server.address(),
                 "--plan", fixture.output, "--replan", next_path, "--plan-patience", "0",
                 "--prompt", "Name a fruit.", "--max-tokens", "4"},
                {{"ISTHMUS_HOME", fixture.server.home()}});
  CAPTURE(said.err);
  REQUIRE(said.exit_code == 0);
  CHECK(said.err.find("the plan said 1") != std::string::npos);
  CHECK(said.err.find(next_path) != std::string::npos);
  const auto next = value_of(planner::parse_plan(read(next_path), "next.json"));
  CHECK(next.token_seconds < 0.9);
  const auto problem = value_of(planner::parse_problem(read(next_path), "next.json"));
  CHECK(problem.link.rtt_seconds < 0.9);
  CHECK(problem.link.up_bits_per_second == link.up_bits_per_second);
}

TEST_CASE("what cannot be planned ends in one line and exit code 1", "[system][plan]") {
  const Fixture fixture;
  check_failure(fixture.plan({"--limit", "attack=50%"}), "no audit was given");
  check_failure(fixture.plan({"--limit", "token=1s", "--limit", "token=2s"}), "limited twice");
  check_failure(fixture.plan({"--evidence", profile_path()}), "is not a list");
  check_failure(fixture.plan_over(profile_path(), {}), "is a profile of a machine");
  check_failure(fixture.plan_over("/no/such/file", {}), "/no/such/file");
  check_failure(fixture.plan({"--limit", "device_memory=1kB", "--limit", "server_memory=1kB"}),
                "no candidate keeps every limit");
  check_failure(test::run({kPlan, "link", "--server", "isthmus://127.0.0.1:1", "--insecure",
                           "--timeout", "1"}),
                "");
  CHECK(test::run({kPlan}).exit_code == 2);
  CHECK(fixture.plan({"--limit", "beauty=3"}).exit_code == 2);
  CHECK(fixture.plan({"--limit", "token=3 apples"}).exit_code == 2);
  const Finished megabytes = fixture.plan({"--limit", "token=100MB"});
  CHECK(megabytes.exit_code == 2);
  CHECK(megabytes.err.find("out of: s, ms, none") != std::string::npos);
  CHECK(fixture.plan({"--limit", "context=5%"}).exit_code == 2);
  CHECK(test::run({kPlan, "profile", "--model", kModel, "--output", fixture.output, "--precision",
                   "exact", "--weight-bits", "4"})
            .exit_code == 2);
  for (const char* known : {"--watts-computing", "--watts-waiting"}) {
    const Finished half =
        test::run({kPlan, "profile", "--model", kModel, "--output", fixture.output, known, "3"});
    CHECK(half.exit_code == 2);
    CHECK(half.err.find("--watts-") != std::string::npos);
  }
  check_failure(fixture.plan({"--specs-down", kNoise}), "no mechanism");
}

}  // namespace
}  // namespace isthmus
