// isthmus-train as a real process, on a tiny model, and its artefacts in isthmus-eval's hands.
#include <isthmus/artefact/artefact.h>

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

using artefact::Artefact;
using nlohmann::json;
using test::Finished;
using test::value_of;

const std::string kBin = ISTHMUS_BIN_DIR;

struct Fixture {
  Fixture() {
    std::ofstream(model, std::ios::binary) << test::tiny_gguf().bytes();
    std::filesystem::create_directory(texts);
    for (const char* name : {"a.txt", "b.txt"})
      std::ofstream(texts / name) << "abbaabababbbaabbababababbabaababbbaaababbabbbabababababb";
    std::ofstream(texts / "c.bin") << "not text";
  }

  [[nodiscard]] Finished train(std::vector<std::string> flags) const {
    flags.insert(flags.begin(),
                 {kBin + "/isthmus-train", "--model", model.string(), "--text", texts.string(),
                  "--window", "6", "--batch", "1", "--validation-windows", "1", "--held-out", "0.2",
                  "--threads", "1", "--start-tokens", "12", "--out", out.string()});
    return test::run(flags);
  }

  test::TempFolder folder;
  std::filesystem::path model = folder.path() / "tiny.gguf";
  std::filesystem::path texts = folder.path() / "texts";
  std::filesystem::path out = folder.path() / "out.safetensors";
};

std::string contents(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

TEST_CASE("isthmus-train writes an artefact, its halves, a log and a chart", "[system][train]") {
  const Fixture fixture;
  const auto path = [&](const char* name) { return (fixture.folder.path() / name).string(); };
  const std::vector<std::string> flags = {"--dims",
                                          "4",
                                          "--steps",
                                          "3",
                                          "--validate-every",
                                          "1",
                                          "--train",
                                          "projection,soft-prompt",
                                          "--soft-prompt",
                                          "2",
                                          "--soft-prompt-text",
                                          "ab",
                                          "--device-part",
                                          path("device"),
                                          "--server-part",
                                          path("server"),
                                          "--log",
                                          path("log"),
                                          "--svg",
                                          path("svg"),
                                          "--checkpoint",
                                          path("checkpoint")};
  const Finished finished = fixture.train(flags);
  CAPTURE(finished.out, finished.err);
  REQUIRE(finished.exit_code == 0);
  const Artefact whole = value_of(Artefact::load(fixture.out));
  CHECK(whole.encoder().rows() == 4);
  CHECK(whole.soft_prompt().rows() == 2);
  CHECK(whole.origin().command.find("--soft-prompt-text ab") != std::string::npos);
  CHECK(whole.origin().codec.mechanism() != nullptr);
  CHECK(value_of(Artefact::load(path("device"))).id() == whole.id());
  CHECK(value_of(Artefact::load(path("server"))).id() == whole.id());
  CHECK(finished.out.find(whole.codec().to_string()) != std::string::npos);
  const json log = json::parse(contents(path("log")));
  CHECK(log.at("steps").size() == 3);
  CHECK(log.at("validations").size() == 4);
  CHECK(log.at("codec") == whole.codec().to_string());
  CHECK(log.at("tokens_per_step") == 6);
  CHECK_FALSE(log.at("ended_early"));
  CHECK(finished.err ==
        "best after " + std::to_string(log.at("best_step").get<int>()) + " of 3 steps\n");
  CHECK(contents(path("svg")).starts_with("<svg"));

  // Once more there is nothing to do: nothing is forgotten, and parts that are gone come back.
  for (const char* name : {"device", "log"}) std::filesystem::remove(path(name));
  const Finished again = fixture.train(flags);
  CAPTURE(again.out, again.err);
  CHECK(again.exit_code == 0);
  CHECK(again.out == whole.codec().to_string() + "\n");
  CHECK(value_of(Artefact::load(path("device"))).id() == whole.id());
  const json log_again = json::parse(contents(path("log")));
  for (const char* kept : {"codec", "steps", "validations"})
    CHECK(log_again.at(kept) == log.at(kept));
  std::filesystem::rename(fixture.out, path("elsewhere"));
  CHECK(fixture.train(flags).exit_code == 1);
  std::filesystem::rename(path("elsewhere"), fixture.out);

  const auto codec_measured = [&] {
    const Finished measured =
        test::run({kBin + "/isthmus-eval", "--model", fixture.model.string(), "--text",
                   (fixture.texts / "a.txt").string(), "--window", "8", "--tokens", "16",
                   "--artefact", fixture.out.string(), "--json"});
    CAPTURE(measured.out, measured.err);
    REQUIRE(measured.exit_code == 0);
    return json::parse(measured.out).at(0).at("spec").get<std::string>();
  };
  CHECK(codec_measured() == whole.codec().to_string());

  // From the artefact, another soft prompt, which may not be written over it; and the checkpoint is
  // of another run.
  const auto from = [&](const std::string& start, std::vector<std::string> more) {
    more.insert(more.begin(), {"--from", start, "--steps", "1"});
    return fixture.train(more).exit_code;
  };
  CHECK(from(fixture.out.string(), {"--train", "soft-prompt"}) == 2);
  CHECK(value_of(Artefact::load(fixture.out)).id() == whole.id());
  const auto begin_from = [&](const char* name) {
    std::filesystem::rename(fixture.out, path(name));
    return path(name);
  };
  const std::string first = begin_from("first");
  std::filesystem::create_symlink(first, path("link"));
  CHECK(from(first, {"--train", "soft-prompt", "--device-part", path("link")}) == 2);
  CHECK(from(first, {"--train", "soft-prompt"}) == 0);
  CHECK(fixture.train({"--dims", "4", "--steps", "3", "--checkpoint", path("checkpoint")})
            .exit_code == 1);

  // Adapters on top, and on from there.
  CHECK(from(begin_from("second"), {"--train", "projection,adapters", "--adapter-rank", "2",
                                    "--adapter-layers", "1"}) == 0);
  const Artefact adapted = value_of(Artefact::load(fixture.out));
  CHECK(adapted.parts().adapters.size() == model::kLayerMatrices.size());
  CHECK(adapted.adapted_end() == 1);
  CHECK(codec_measured() == adapted.codec().to_string());
  CHECK(from(begin_from("third"), {"--train", "adapters"}) == 0);
  CHECK(value_of(Artefact::load(fixture.out)).id() != adapted.id());
}

TEST_CASE("isthmus-train tells when patience ended a run", "[system][train]") {
  const Fixture fixture;
  const auto log = fixture.folder.path() / "log";
  const Finished finished =
      fixture.train({"--dims", "4", "--codec", "int4", "--steps", "9", "--validate-every", "1",
                     "--patience", "1", "--rate", "1e-9", "--log", log.string()});
  CAPTURE(finished.err);
  REQUIRE(finished.exit_code == 0);
  const json told = json::parse(contents(log));
  CHECK(told.at("ended_early"));
  CHECK(finished.err == "best after " + std::to_string(told.at("best_step").get<int>()) + " of " +
                            std::to_string(told.at("steps").size()) +
                            " steps, ended early: nothing better came\n");
}

TEST_CASE("the command in an artefact makes it again in a shell", "[system][train]") {
  const Fixture fixture;
  REQUIRE(fixture
              .train({"--dims", "4", "--steps", "1", "--soft-prompt", "2", "--soft-prompt-text",
                      "it's a b", "--codec", "clip:max=*|binomial:4:mu=52"})
              .exit_code == 0);
  const Artefact made = value_of(Artefact::load(fixture.out));
  std::filesystem::remove(fixture.out);
  const Finished again = test::run({"/bin/sh", "-c", made.origin().command});
  CAPTURE(made.origin().command, again.err);
  REQUIRE(again.exit_code == 0);
  CHECK(value_of(Artefact::load(fixture.out)).id() == made.id());
}

TEST_CASE("isthmus-train reads the .txt files of a folder that can be read", "[system][train]") {
  const Fixture fixture;
  const auto trains = [&] { return fixture.train({"--dims", "4", "--steps", "1"}); };
  std::filesystem::create_symlink("nowhere", fixture.texts / "gone.txt");
  CHECK(trains().exit_code == 0);
  std::filesystem::create_symlink("circle.txt", fixture.texts / "circle.txt");
  const Finished failed = trains();
  CAPTURE(failed.err);
  CHECK(failed.exit_code == 1);
  CHECK(failed.err.find("circle.txt") != std::string::npos);
}

TEST_CASE("isthmus-train: exit codes, and one line that says why", "[system][train]") {
  const Fixture fixture;
  const auto wrong = GENERATE(values<std::vector<std::string>>({{"--codec", "int9"},
                                                                {"--dims", "0"},
                                                                {"--train", "everything"},
                                                                {"--train", "soft-prompt"},
                                                                {"--train", "adapters"},
                                                                {"--prefix", "0.5"},
                                                                {"--adapter-rank", "2"},
                                                                {"--codec", "clip:l2=*|sint4"},
                                                                {"--window", "1"},
                                                                {"--steps", "3", "--warm-up", "4"},
                                                                {"--loud"}}));
  CAPTURE(wrong);
  CHECK(fixture.train(wrong).exit_code == 2);
  CHECK(fixture.train({"--help"}).exit_code == 0);
  CHECK(fixture.train({"--version"}).out.starts_with("isthmus-train "));
  const Finished failed = fixture.train({"--dims", "9"});  // rows have 8 numbers
  CHECK(failed.exit_code == 1);
  CHECK(failed.err.starts_with("isthmus-train: error: "));
  CHECK(fixture.train({"--codec", "int4", "--prefix", "0.1,0.5"}).exit_code == 1);
  CHECK(std::count(failed.err.begin(), failed.err.end(), '\n') == 1);
}

}  // namespace
}  // namespace isthmus
