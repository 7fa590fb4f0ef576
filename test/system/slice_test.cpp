// isthmus-slice as a real process.
#include <isthmus/model/model_file.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "support/catch.h"
#include "support/gguf_writer.h"
#include "support/process.h"
#include "support/temp_folder.h"

namespace isthmus {
namespace {

using test::Finished;
using test::value_of;

// The tiny model on disk, and the tool run on it.
struct Fixture {
  Fixture() { std::ofstream(source, std::ios::binary) << test::tiny_gguf().bytes(); }

  Finished slice(std::vector<std::string> flags) {
    flags.insert(flags.begin(), {std::string(ISTHMUS_BIN_DIR) + "/isthmus-slice", "--model",
                                 source.string(), "--output", target.string()});
    return test::run(flags);
  }

  test::TempFolder folder;
  std::filesystem::path source = folder.path() / "whole.gguf";
  std::filesystem::path target = folder.path() / "slice.gguf";
};

TEST_CASE("a slice holds what the flags say", "[system][slice]") {
  Fixture fixture;
  const Finished finished = fixture.slice({"--layers", "0:1,1:2", "--embedding", "--head"});
  CAPTURE(finished.err);
  CHECK(finished.exit_code == 0);
  CHECK(finished.out.empty());
  const auto model = value_of(model::ModelFile::open(fixture.target));
  const model::Part part = model::available_part(*model);
  CHECK(part.has_layer(0));
  CHECK(part.has_layer(1));
  CHECK(part.embedding);
  CHECK(part.head);

  CHECK(fixture.slice({"--layers", "1:2"}).exit_code == 0);
  const model::Part back = model::available_part(*value_of(model::ModelFile::open(fixture.target)));
  CHECK_FALSE(back.has_layer(0));
  CHECK(back.has_layer(1));
  CHECK_FALSE(back.embedding);
}

TEST_CASE("isthmus-slice: wrong usage is exit code 2, help and version are 0", "[system][slice]") {
  Fixture fixture;
  const std::string range = GENERATE("", "1", "1:", ":1", "a:b", "0:1:2", "0-1", "99999999999:1");
  CAPTURE(range);
  CHECK(fixture.slice({"--layers", range}).exit_code == 2);
  CHECK(fixture.slice({}).exit_code == 2);
  CHECK(fixture.slice({"--embedding", "--no-such-flag"}).exit_code == 2);
  CHECK_FALSE(std::filesystem::exists(fixture.target));
  CHECK(fixture.slice({"--help"}).exit_code == 0);
  const Finished version = fixture.slice({"--version"});
  CHECK(version.exit_code == 0);
  CHECK(version.out.starts_with("isthmus-slice "));
}

TEST_CASE("isthmus-slice: a failure is exit code 1 and one line that says why", "[system][slice]") {
  Fixture fixture;
  const auto check_failure = [](const Finished& finished, const std::string& expected) {
    CAPTURE(finished.err);
    CHECK(finished.exit_code == 1);
    CHECK(finished.err.starts_with("isthmus-slice: error: "));
    CHECK(finished.err.find(expected) != std::string::npos);
    CHECK(std::count(finished.err.begin(), finished.err.end(), '\n') == 1);
  };
  check_failure(fixture.slice({"--layers", "0:3"}), "layers [0, 3)");
  std::filesystem::resize_file(fixture.source, 100);
  check_failure(fixture.slice({"--embedding"}), "gguf: ");
  std::filesystem::remove(fixture.source);
  check_failure(fixture.slice({"--embedding"}), "whole.gguf");
}

}  // namespace
}  // namespace isthmus
