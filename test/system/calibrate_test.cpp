// isthmus-calibrate as a real process, on a tiny model, and its files in isthmus-eval's hands.
#include <isthmus/codec/calibration.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
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
using test::value_of;

struct Fixture {
  Fixture() {
    std::ofstream(model, std::ios::binary) << test::tiny_gguf().bytes();
    std::ofstream(text) << "abbaabababbbaabbababababbabaababbbaaabab";
  }

  [[nodiscard]] Finished calibrate(std::vector<std::string> flags) const {
    flags.insert(flags.begin(), {std::string(ISTHMUS_BIN_DIR) + "/isthmus-calibrate", "--model",
                                 model.string(), "--text", text.string(), "--window", "8",
                                 "--threads", "1", "--out", folder.path().string()});
    return test::run(flags);
  }

  test::TempFolder folder;
  std::filesystem::path model = folder.path() / "tiny.gguf";
  std::filesystem::path text = folder.path() / "text.txt";
};

TEST_CASE("isthmus-calibrate writes a file for each cut, the same every time",
          "[system][calibrate]") {
  const Fixture fixture;
  const Finished finished = fixture.calibrate({"--cuts", "0,2", "--json"});
  CAPTURE(finished.out, finished.err);
  REQUIRE(finished.exit_code == 0);
  const json list = json::parse(finished.out);
  REQUIRE(list.size() == 2);
  for (const json& entry : list) {
    CAPTURE(entry.dump());
    const auto calibration = value_of(codec::Calibration::load(entry.at("file")));
    CHECK(calibration.hash() == std::stoull(entry.at("hash").get<std::string>(), nullptr, 16));
    const int cut = entry.at("cut");
    CHECK(entry.at("file") ==
          (fixture.folder.path() / ("cut-" + std::to_string(cut) + ".klt")).string());
  }
  CHECK(list.at(0).at("hash") != list.at(1).at("hash"));
  const Finished again = fixture.calibrate({"--cuts", "2"});
  CHECK(again.exit_code == 0);
  CHECK(again.out.find("  2  klt:" + list.at(1).at("hash").get<std::string>() + "  ") !=
        std::string::npos);
}

TEST_CASE("isthmus-calibrate: exit codes, and one line that says why", "[system][calibrate]") {
  const Fixture fixture;
  const auto wrong = GENERATE(values<std::vector<std::string>>(
      {{}, {"--cuts", "-1"}, {"--cuts", "1", "--tokens", "1"}, {"--cuts", "1", "--loud"}}));
  CHECK(fixture.calibrate(wrong).exit_code == 2);
  CHECK(fixture.calibrate({"--help"}).exit_code == 0);
  CHECK(fixture.calibrate({"--version"}).out.starts_with("isthmus-calibrate "));
  const auto check_failure = [](const Finished& finished, const std::string& expected) {
    CAPTURE(finished.err);
    CHECK(finished.exit_code == 1);
    CHECK(finished.err.starts_with("isthmus-calibrate: error: "));
    CHECK(finished.err.find(expected) != std::string::npos);
    CHECK(std::count(finished.err.begin(), finished.err.end(), '\n') == 1);
  };
  check_failure(fixture.calibrate({"--cuts", "3"}), "cut is 3, the model has 2 layers");
  check_failure(fixture.calibrate({"--cuts", "1", "--tokens", "7"}), "a window is 8");
  std::filesystem::create_directory(fixture.folder.path() / "cut-1.klt");
  check_failure(fixture.calibrate({"--cuts", "1"}), "cannot write");
}

}  // namespace
}  // namespace isthmus
