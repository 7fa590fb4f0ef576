// isthmus-audit as a real process, on a tiny model.
#include <isthmus/artefact/artefact.h>
#include <isthmus/core/random.h>

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
  // All of them for each of two specs at two cuts, and those that know the codec at the embedding.
  REQUIRE(list.size() == 4 * attacks.size() + 2 * known.size());
  for (const json& entry : list) {
    CAPTURE(entry.dump());
    const bool noised = entry.at("spec") != "f32";
    const std::string attack = entry.at("attack");
    const bool knows = std::ranges::find(known, attack) != known.end();
    CHECK((knows || std::ranges::find(attacks, attack) != attacks.end()));
    if (knows) CHECK(entry.at("cut") == 0);
    if (attack == "maximum_likelihood" && !noised) CHECK(entry.at("top1") == 1);
    // Accuracy before training and after each epoch, until three in a row were in vain.
    CHECK(entry.contains("held_out_top1") == (attack == "neural"));
    if (attack == "neural") CHECK(entry.at("held_out_top1").size() >= 4);
    CHECK(entry.at("test_tokens") == (attack == "causal_matching" ? 3 : 32));
    // Three tokens are no stretch of sixteen.
    CHECK(entry.at("exact_sequence").is_null() == (attack == "causal_matching"));
    CHECK(entry.at("prompt_rows") == 8);
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

TEST_CASE("isthmus-audit attacks artefacts' own codecs at their cuts", "[system][audit]") {
  const Fixture fixture;
  const auto config = test::value_of(model::ModelFile::open(fixture.model))->config();
  const auto width = static_cast<size_t>(config.hidden_size);
  constexpr size_t kDims = 6;
  Matrix encoder(kDims, width);
  Matrix decoder(width, kDims);
  for (size_t i = 0; i < kDims * width; ++i) {
    encoder.data()[i] = static_cast<float>(counter_uniform(1, i));
    decoder.data()[i] = static_cast<float>(counter_uniform(2, i) - 0.5);
  }
  std::vector<std::string> flags = {"--json"};
  const auto add = [&](int32_t cut, const std::string& codec) {
    const auto made = test::value_of(
        artefact::Artefact::make({.model = artefact::model_name(config),
                                  .cut = cut,
                                  .codec = test::value_of(codec::CodecSpec::parse(codec))},
                                 {.encoder = encoder, .decoder = decoder}));
    const auto path = fixture.folder.path() / (std::to_string(flags.size()) + ".safetensors");
    test::value_of(made.save(path));
    flags.insert(flags.end(), {"--artefact", path.string()});
    return made.codec().to_string();
  };
  // Hardly any noise, much, none, and another cut.
  const std::vector<std::string> specs = {add(0, "clip:max=250|binomial:8:mu=9000"),
                                          add(0, "clip:max=250|binomial:4:mu=0.01"), add(0, "f16"),
                                          add(2, "clip:max=250|binomial:4:mu=0.01")};
  const Finished finished = fixture.audit(flags);
  CAPTURE(finished.out, finished.err);
  REQUIRE(finished.exit_code == 0);
  const json list = json::parse(finished.out);
  const auto read = [&](const std::string& spec, const std::string& attack) {
    for (const json& entry : list)
      if (entry.at("spec") == spec && entry.at("attack") == attack) return entry;
    return json();
  };
  const json clear = read(specs[0], "maximum_likelihood");
  CHECK(clear.at("top1") > 0.8);
  CHECK(clear.at("epsilon_per_row") > 1e3);
  const json hidden = read(specs[1], "maximum_likelihood");
  CHECK(hidden.at("top1") < 0.6);
  CHECK(hidden.at("epsilon_per_row") < 0.1);
  CHECK(read(specs[2], "maximum_likelihood").at("top1") == 1);
  CHECK(read(specs[3], "ridge").at("cut") == 2);
  CHECK(read(specs[3], "maximum_likelihood").is_null());
  // Neither at another cut nor without the artefact.
  CHECK(fixture.audit({"--cuts", "1", "--specs", specs[0], flags[1], flags[2]}).exit_code == 1);
  CHECK(fixture.audit({"--cuts", "0", "--specs", specs[0]}).exit_code == 1);
  CHECK(fixture.audit({"--cuts", "0", flags[1], flags[2]}).exit_code == 2);
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

TEST_CASE("isthmus-audit looks at every cut before it reads a text", "[system][audit]") {
  Fixture fixture;
  fixture.text = fixture.folder.path() / "none.txt";
  const Finished failed = fixture.audit({"--cuts", "0,3"});
  CAPTURE(failed.err);
  CHECK(failed.exit_code == 1);
  CHECK(failed.err.find("cut is 3, the model has 2 layers") != std::string::npos);
}

TEST_CASE("isthmus-audit: no attacker learns from what it reads", "[system][audit]") {
  Fixture fixture;
  const auto refused = [&] {
    const Finished failed = fixture.audit({"--cuts", "0"});
    CAPTURE(failed.err);
    CHECK(failed.exit_code == 1);
    const std::string both = fixture.text.string() + "' is also in '" + fixture.train.string();
    CHECK(failed.err.find(both) != std::string::npos);
  };
  // The one somewhere in the other, also where a weight beside the model is fitted.
  std::ofstream(fixture.train, std::ios::app) << "aaaedcbaabecdacbdeabdecabcedacbdebacdeaaa";
  refused();
  fixture.text = fixture.train;
  refused();
}

}  // namespace
}  // namespace isthmus
