// isthmus-audit as a real process, on a tiny model.
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
    std::string lesson;
    for (const char* piece : {"abcdeedcba", "abcdeacebd", "eabcdabcda", "cbdecabdce"})
      lesson += std::string(piece) + piece;
    std::ofstream(train) << lesson;
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
  const auto page = fixture.folder.path() / "report.html";
  const Finished finished =
      fixture.audit({"--cuts", "0,2", "--specs", "f32;clip:max=9|binomial:4:mu=5", "--json",
                     "--match-tokens", "3", "--html", page.string()});
  CAPTURE(finished.out, finished.err);
  REQUIRE(finished.exit_code == 0);
  const json list = json::parse(finished.out);
  const std::vector<std::string> attacks = {
      "unigram_prior", "language_prior", "nearest_neighbor", "nearest_neighbor+prior", "ridge",
      "ridge+prior",   "neural",         "neural+prior",     "causal_matching"};
  const std::vector<std::string> known = {"maximum_likelihood", "maximum_likelihood+prior"};
  // All of them for each of two specs at two cuts, and those that know the noise at the embedding.
  REQUIRE(list.size() == 4 * attacks.size() + known.size());
  for (const json& entry : list) {
    CAPTURE(entry.dump());
    const bool noised = entry.at("spec") != "f32";
    const std::string attack = entry.at("attack");
    const bool knows = std::ranges::find(known, attack) != known.end();
    CHECK((knows || std::ranges::find(attacks, attack) != attacks.end()));
    if (knows) CHECK((noised && entry.at("cut") == 0));
    CHECK(entry.at("test_tokens") == (attack == "causal_matching" ? 3 : 32));
    // The tiny model's layers make rows that are hard to tell apart.
    if (attack == "causal_matching" && !noised && entry.at("cut") == 0)
      CHECK(entry.at("top1") == 1);
    CHECK(entry.at("top5") >= entry.at("top1"));
    CHECK(entry.at("top1_interval").at(0) <= entry.at("top1"));
    CHECK(entry.at("top1_interval").at(1) >= entry.at("top1"));
    CHECK(entry.at("delta").is_number() == noised);
    if (!noised) continue;
    CHECK(entry.at("epsilon_per_row") > 0);
    CHECK(entry.at("epsilon_per_prompt") > entry.at("epsilon_per_row"));
  }
  std::ifstream file(page);
  const std::string html{std::istreambuf_iterator<char>(file), {}};
  CHECK(html.starts_with("<!doctype html>"));
  CHECK(html.ends_with("</html>\n"));
  const auto count = [&](const std::string& piece) {
    size_t found = 0;
    for (size_t at = 0; (at = html.find(piece, at)) != std::string::npos; at += piece.size())
      ++found;
    return found;
  };
  CHECK(count("<svg ") == 2);  // a chart for each spec
  CHECK(count("<tr>") == 1 + list.size());
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
