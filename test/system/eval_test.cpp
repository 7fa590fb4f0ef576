// isthmus-eval as a real process, on a tiny model.
#include <algorithm>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "support/catch.h"
#include "support/gguf_writer.h"
#include "support/process.h"
#include "support/temp_folder.h"

namespace isthmus {
namespace {

using nlohmann::json;
using test::Finished;

struct Fixture {
  Fixture() {
    std::ofstream(model, std::ios::binary) << test::tiny_gguf().bytes();
    std::ofstream(text) << "abbaabababbbaabbababababbabaababbbaaabab";
  }

  [[nodiscard]] Finished eval(std::vector<std::string> flags) const {
    flags.insert(flags.begin(),
                 {std::string(ISTHMUS_BIN_DIR) + "/isthmus-eval", "--model", model.string(),
                  "--text", text.string(), "--window", "8", "--threads", "1"});
    return test::run(flags);
  }

  test::TempFolder folder;
  std::filesystem::path model = folder.path() / "tiny.gguf";
  std::filesystem::path text = folder.path() / "text.txt";
  std::filesystem::path csv = folder.path() / "out.csv";
};

json list_of(const Finished& finished) {
  CAPTURE(finished.out, finished.err);
  REQUIRE(finished.exit_code == 0);
  return json::parse(finished.out);
}

std::vector<std::string> lines_of(const std::filesystem::path& path) {
  std::ifstream file(path);
  std::vector<std::string> lines;
  for (std::string line; std::getline(file, line);) lines.push_back(line);
  return lines;
}

TEST_CASE("isthmus-eval --whole reports every combination of bits", "[system][eval]") {
  const Fixture fixture;
  const json list =
      list_of(fixture.eval({"--whole", "--precision", "fast", "--cuts", "1,2", "--front-bits",
                            "8,4", "--kv-bits", "16,8", "--json", "--csv", fixture.csv.string()}));
  REQUIRE(list.size() == 8);
  for (const json& entry : list) {
    CAPTURE(entry.dump());
    CHECK(entry.at("predictions").get<int>() % 7 == 0);
    CHECK(entry.at("perplexity") > 1);
    CHECK(entry.at("perplexity_exact") == list.at(0).at("perplexity_exact"));
    CHECK(entry.at("kl_nats") >= 0);
    CHECK(entry.at("change_interval").size() == 2);
    CHECK(entry.at("back_bits") == 8);
  }
  CHECK(list.at(4).at("cut") == 2);
  // A later cut moves weights to the front; fewer bits are fewer bytes.
  const auto bytes = [&](size_t i, const char* half) { return list.at(i).at(half).get<int>(); };
  CHECK(bytes(4, "front_weight_bytes") > bytes(0, "front_weight_bytes"));
  CHECK(bytes(4, "back_weight_bytes") < bytes(0, "back_weight_bytes"));
  CHECK(bytes(2, "front_weight_bytes") < bytes(0, "front_weight_bytes"));
  CHECK(bytes(1, "back_kv_bytes_per_token") < bytes(0, "back_kv_bytes_per_token"));
  const auto lines = lines_of(fixture.csv);
  CHECK(lines.size() == 9);
  CHECK(lines.at(1).starts_with("1,fast,8,8,16,"));
}

TEST_CASE("isthmus-eval --whole puts precisions side by side", "[system][eval]") {
  const Fixture fixture;
  const json list = list_of(fixture.eval({"--whole", "--precision", "fast,fine,exact", "--json"}));
  REQUIRE(list.size() == 3);
  CHECK(list.at(0).at("precision") == "fast");
  CHECK(list.at(1).at("precision") == "fine");
  CHECK(list.at(2).at("change") == 0);
}

TEST_CASE("isthmus-eval reports every spec at every cut", "[system][eval]") {
  const Fixture fixture;
  const auto svg = fixture.folder.path() / "out.svg";
  const json list = list_of(
      fixture.eval({"--cuts", "0,1,2", "--specs", "f32;rotate|int2|rans", "--specs", "sint4|rans",
                    "--json", "--csv", fixture.csv.string(), "--svg", svg.string()}));
  REQUIRE(list.size() == 9);
  for (size_t i = 0; i < list.size(); ++i) {
    const json& entry = list.at(i);
    CAPTURE(entry.dump());
    CHECK(entry.at("cut") == i / 3);
    CHECK(entry.at("perplexity_raw") == list.at(0).at("perplexity_raw"));
    CHECK(entry.at("encode_us_per_token") > 0);
    CHECK(entry.at("decode_us_per_token") > 0);
    if (i % 3 != 0) continue;
    CHECK(entry.at("spec") == "f32");
    CHECK(entry.at("bits_per_coordinate") == 32);
    CHECK(entry.at("perplexity") == entry.at("perplexity_raw"));
    CHECK(entry.at("kl_nats") < 1e-6);
    CHECK(entry.at("top1_flips") == 0);
  }
  const auto lines = lines_of(fixture.csv);
  CHECK(lines.size() == 10);
  CHECK(lines.at(2).starts_with("0,\"rotate|int2|rans\","));
  const auto chart = lines_of(svg);
  CHECK(chart.front().starts_with("<svg "));
  CHECK(chart.back() == "</svg>");
  // A marker of each result, of each mean over cuts, and of each cut in the legend.
  CHECK(std::ranges::count_if(chart, [](const std::string& line) {
          return line.starts_with("<circle ");
        }) == 9 + 3 + 3);
}

TEST_CASE("isthmus-eval makes the calibration of each cut that klt:* names", "[system][eval]") {
  const Fixture fixture;
  const auto other = fixture.folder.path() / "other.txt";
  std::ofstream(other) << "aaaaaaaabbbbbbbbaaaaaaaabbbbbbbb";
  const auto eval = [&](const std::filesystem::path& calibration) {
    return fixture.eval({"--cuts", "1,2", "--specs", "klt:*|step:0.5|rans", "--calibration-text",
                         calibration.string(), "--calibration-tokens", "16", "--json"});
  };
  const json list = list_of(eval(other));
  REQUIRE(list.size() == 2);
  CHECK(list.at(0).at("spec").get<std::string>().starts_with("klt:"));
  CHECK(list.at(0).at("spec") != list.at(1).at("spec"));
  const Finished same = eval(fixture.text);
  CAPTURE(same.err);
  CHECK(same.exit_code == 1);
  CHECK(same.err.find("text.txt' is also in '") != std::string::npos);
}

TEST_CASE("isthmus-eval prints a table for each cut and one of the means", "[system][eval]") {
  const Fixture fixture;
  const Finished finished = fixture.eval({"--cuts", "0,2", "--specs", "f16;int8"});
  CAPTURE(finished.out, finished.err);
  CHECK(finished.exit_code == 0);
  for (const std::string piece :
       {"cut 0, raw boundary: perplexity ", "cut 2, raw boundary: perplexity ", "mean over cuts",
        "  f16\n", "  int8\n"}) {
    CAPTURE(piece);
    CHECK(finished.out.find(piece) != std::string::npos);
  }
}

TEST_CASE("isthmus-eval: wrong usage is exit code 2, help and version are 0", "[system][eval]") {
  const Fixture fixture;
  const auto flags = GENERATE(
      values<std::vector<std::string>>({{"--window", "1"},
                                        {"--cuts", "-1"},
                                        {"--cuts", "one"},
                                        {"--tokens", "0"},
                                        {"--front-bits", "4"},
                                        {"--whole", "--specs", "f16"},
                                        {"--whole", "--artefact", "a"},
                                        {"--precision", "fine,fast"},
                                        {"--specs", "f16;f17"},
                                        {"--specs", "klt:*|step:1"},
                                        {"--whole", "--kv-bits", "3"},
                                        {"--whole", "--precision", "fine,exact", "--kv-bits", "8"},
                                        {"--no-such-flag"}}));
  CAPTURE(flags.front());
  CHECK(fixture.eval(flags).exit_code == 2);
  CHECK(fixture.eval({"--help"}).exit_code == 0);
  CHECK(fixture.eval({"--version"}).out.starts_with("isthmus-eval "));
}

TEST_CASE("isthmus-eval: a failure is exit code 1 and one line that says why", "[system][eval]") {
  const Fixture fixture;
  const auto check_failure = [](const Finished& finished, const std::string& expected) {
    CAPTURE(finished.err);
    CHECK(finished.exit_code == 1);
    CHECK(finished.out.empty());
    CHECK(finished.err.starts_with("isthmus-eval: error: "));
    CHECK(finished.err.find(expected) != std::string::npos);
    CHECK(std::count(finished.err.begin(), finished.err.end(), '\n') == 1);
  };
  check_failure(fixture.eval({"--whole", "--cuts", "3"}), "cut is 3, the model has 2 layers");
  check_failure(fixture.eval({"--whole", "--tokens", "7"}),
                "7 tokens are asked for, a window is 8");
  std::filesystem::remove(fixture.text);
  check_failure(fixture.eval({"--whole"}), "text.txt");
}

}  // namespace
}  // namespace isthmus
