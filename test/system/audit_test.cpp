// isthmus-audit as a real process, on a tiny model.
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

// A model of six tokens, of which a text uses all that are not control tokens.
struct Fixture {
  Fixture() {
    auto file = test::tiny_gguf();
    file.set("tokenizer.ggml.tokens",
             std::vector<std::string>{"a", "b", "c", "d", "e", "<|endoftext|>"});
    file.set("tokenizer.ggml.token_type", std::vector<int32_t>{1, 1, 1, 1, 1, 3});
    file.set("tokenizer.ggml.merges", std::vector<std::string>{});
    file.set("tokenizer.ggml.bos_token_id", 5U);
    file.set("tokenizer.ggml.eos_token_id", 5U);
    std::ofstream(model, std::ios::binary) << file.bytes();
    std::ofstream(train) << "abcdeedcbaabcdeacebdabcdeeabcdabcdacbdecabdceabcde";
    std::ofstream(text) << "edcbaabecdacbdeabdecabcedacbdebacdea";
  }

  [[nodiscard]] Finished audit(std::vector<std::string> flags) const {
    flags.insert(flags.begin(), {std::string(ISTHMUS_BIN_DIR) + "/isthmus-audit", "--model",
                                 model.string(), "--train-text", train.string(), "--test-text",
                                 text.string(), "--window", "8", "--threads", "1"});
    return test::run(flags);
  }

  test::TempFolder folder;
  std::filesystem::path model = folder.path() / "tiny.gguf";
  std::filesystem::path train = folder.path() / "train.txt";
  std::filesystem::path text = folder.path() / "text.txt";
};

TEST_CASE("isthmus-audit reports every attack, with a mechanism's promise", "[system][audit]") {
  const Fixture fixture;
  const Finished finished =
      fixture.audit({"--cuts", "0,2", "--specs", "f32;clip:max=9|binomial:4:mu=5", "--json"});
  CAPTURE(finished.out, finished.err);
  REQUIRE(finished.exit_code == 0);
  const json list = json::parse(finished.out);
  REQUIRE(list.size() == 12);
  for (size_t i = 0; i < list.size(); ++i) {
    const json& entry = list.at(i);
    CAPTURE(entry.dump());
    CHECK(entry.at("cut") == (i < 6 ? 0 : 2));
    CHECK(entry.at("test_tokens") == 32);
    CHECK(entry.at("top5") >= entry.at("top1"));
    CHECK(entry.at("top1_interval").at(0) <= entry.at("top1"));
    CHECK(entry.at("top1_interval").at(1) >= entry.at("top1"));
    const bool noised = i % 6 >= 3;
    CHECK(entry.at("delta").is_number() == noised);
    if (!noised) continue;
    CHECK(entry.at("epsilon_per_row") > 0);
    CHECK(entry.at("epsilon_per_prompt") > entry.at("epsilon_per_row"));
  }
  CHECK(list.at(0).at("attack") == "unigram_prior");
  CHECK(list.at(1).at("attack") == "nearest_neighbor");
  CHECK(list.at(2).at("attack") == "ridge");
}

TEST_CASE("isthmus-audit: exit codes, and one line that says why", "[system][audit]") {
  const Fixture fixture;
  const auto wrong = GENERATE(values<std::vector<std::string>>(
      {{}, {"--cuts", "-1"}, {"--cuts", "1", "--specs", "f17"}, {"--cuts", "1", "--loud"}}));
  CHECK(fixture.audit(wrong).exit_code == 2);
  CHECK(fixture.audit({"--help"}).exit_code == 0);
  CHECK(fixture.audit({"--version"}).out.starts_with("isthmus-audit "));
  const Finished outside = fixture.audit({"--cuts", "3"});
  CAPTURE(outside.err);
  CHECK(outside.exit_code == 1);
  CHECK(outside.err.starts_with("isthmus-audit: error: "));
  CHECK(std::count(outside.err.begin(), outside.err.end(), '\n') == 1);
}

}  // namespace
}  // namespace isthmus
