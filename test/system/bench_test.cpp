// isthmus-bench as a real process, on a tiny model.
#include <algorithm>
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

struct Fixture {
  Fixture() { std::ofstream(model, std::ios::binary) << test::tiny_gguf().bytes(); }

  [[nodiscard]] Finished bench(std::vector<std::string> flags) const {
    flags.insert(flags.begin(),
                 {std::string(ISTHMUS_BIN_DIR) + "/isthmus-bench", "--model", model.string(),
                  "--prompt", "9", "--decode", "3", "--context", "4", "--repetitions", "3"});
    return test::run(flags);
  }

  test::TempFolder folder;
  std::filesystem::path model = folder.path() / "tiny.gguf";
};

json figures(const Finished& finished) {
  CAPTURE(finished.out, finished.err);
  REQUIRE(finished.exit_code == 0);
  return json::parse(finished.out);
}

TEST_CASE("every case is run, checked and reported", "[system][bench]") {
  const Fixture fixture;
  const std::string precision = GENERATE("fast", "exact");
  const std::string threads = GENERATE("1", "2");
  CAPTURE(precision, threads);
  const json list = figures(
      fixture.bench({"--json", "--cut", "1", "--precision", precision, "--threads", threads}));
  std::vector<std::string> names;
  for (const json& entry : list) {
    CAPTURE(entry.dump());
    names.push_back(entry.at("case"));
    CHECK(entry.at("threads") == std::stoi(threads));
    const json& speed = entry.at("tokens_per_s");
    CHECK(speed.at("min") > 0);
    CHECK(speed.at("min") <= speed.at("median"));
    CHECK(speed.at("median") <= speed.at("max"));
    CHECK(entry.at("bandwidth_fraction") > 0);
    CHECK(entry.at("weight_bytes") > 0);
    CHECK(entry.at("kv_bytes_per_token") > 0);
    CHECK(entry.at("resident_bytes").is_number_unsigned());
  }
  CHECK(names == std::vector<std::string>{"whole/prompt", "whole/decode", "front/prompt",
                                          "front/decode", "back/prompt", "back/decode",
                                          "split/prompt", "split/decode"});
  // Keys and values of a front and a back are those of the whole; so are a split's.
  const auto kv = [&](size_t index) { return list.at(index).at("kv_bytes_per_token").get<int>(); };
  CHECK(kv(2) + kv(4) == kv(0));
  CHECK(kv(6) == kv(0));
}

TEST_CASE("the cut may be at either end", "[system][bench]") {
  const Fixture fixture;
  const std::string cut = GENERATE("0", "2");
  CAPTURE(cut);
  const json list = figures(fixture.bench({"--json", "--cut", cut, "--threads", "1"}));
  REQUIRE(list.size() == 8);
  const json& whole = list.at(0);
  const json& front = list.at(2);
  const json& back = list.at(4);
  CHECK(front.at("kv_bytes_per_token") == (cut == "0" ? json(0) : whole.at("kv_bytes_per_token")));
  CHECK(back.at("kv_bytes_per_token") == (cut == "0" ? whole.at("kv_bytes_per_token") : json(0)));
}

TEST_CASE("only the cases asked for are reported", "[system][bench]") {
  const Fixture fixture;
  const json list = figures(fixture.bench({"--json", "--cases", "split/decode,front/prompt"}));
  REQUIRE(list.size() == 2);
  CHECK(list.at(0).at("case") == "front/prompt");
  CHECK(list.at(1).at("case") == "split/decode");
}

TEST_CASE("the table names the machine, the sizes and each case", "[system][bench]") {
  const Fixture fixture;
  const Finished finished = fixture.bench({"--cases", "whole/decode"});
  CAPTURE(finished.out, finished.err);
  CHECK(finished.exit_code == 0);
  for (const std::string piece : {"GB/s", "kernels ", "compiler ", "tiny.gguf",
                                  "prompt 9, decode 3 behind 4", "whole/decode"}) {
    CAPTURE(piece);
    CHECK(finished.out.find(piece) != std::string::npos);
  }
  CHECK(finished.out.find("front/") == std::string::npos);
}

TEST_CASE("isthmus-bench: wrong usage is exit code 2, help and version are 0", "[system][bench]") {
  const Fixture fixture;
  const auto flags =
      GENERATE(values<std::vector<std::string>>({{"--cases", "whole"},
                                                 {"--cases", "whole/decode,tail/decode"},
                                                 {"--prompt", "0"},
                                                 {"--repetitions", "0"},
                                                 {"--cut", "-1"},
                                                 {"--codec", "int99"},
                                                 {"--precision", "sloppy"},
                                                 {"--precision", "exact", "--weight-bits", "4"},
                                                 {"--no-such-flag"}}));
  CAPTURE(flags.front());
  CHECK(fixture.bench(flags).exit_code == 2);
  CHECK(fixture.bench({"--help"}).exit_code == 0);
  CHECK(fixture.bench({"--version"}).out.starts_with("isthmus-bench "));
}

TEST_CASE("isthmus-bench: a failure is exit code 1 and one line that says why", "[system][bench]") {
  const Fixture fixture;
  const auto check_failure = [](const Finished& finished, const std::string& expected) {
    CAPTURE(finished.err);
    CHECK(finished.exit_code == 1);
    CHECK(finished.out.empty());
    CHECK(finished.err.starts_with("isthmus-bench: error: "));
    CHECK(finished.err.find(expected) != std::string::npos);
    CHECK(std::count(finished.err.begin(), finished.err.end(), '\n') == 1);
  };
  check_failure(fixture.bench({"--cut", "3"}), "bench: cut is 3, the model has 2 layers");
  std::filesystem::remove(fixture.model);
  check_failure(fixture.bench({}), "tiny.gguf");
}

}  // namespace
}  // namespace isthmus
