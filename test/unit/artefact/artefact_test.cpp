// Artefacts: what is written is read again, either half proves what it belongs to, and a file that
// anyone may have made is refused.
#include <isthmus/artefact/artefact.h>
#include <isthmus/model/safetensors.h>

#include <cstring>
#include <fstream>
#include <string>

#include "support/catch.h"
#include "support/temp_folder.h"

namespace isthmus::artefact {
namespace {

using test::value_of;

constexpr size_t kWidth = 12;
constexpr size_t kDims = 4;

Matrix some(size_t rows, size_t cols, float first) {
  Matrix matrix(rows, cols);
  float value = first;
  for (float& entry : matrix.view().values()) entry = value += 0.125F;
  return matrix;
}

Origin origin() {
  return {.model = "llama-3x12x99",
          .fingerprint = "00ff",
          .cut = 2,
          .codec = value_of(codec::CodecSpec::parse("clip:max=0.5|binomial:4:mu=52")),
          .data = "abc",
          .command = "isthmus-train \"--model\" m"};
}

Artefact sample(size_t prompt_rows = 3, float first = -3) {
  return value_of(Artefact::make(origin(), some(kDims, kWidth, first), some(kWidth, kDims, 1),
                                 prompt_rows > 0 ? some(prompt_rows, kWidth, 0) : Matrix()));
}

bool equal(MatrixView<const float> a, MatrixView<const float> b) {
  return a.rows() == b.rows() && a.cols() == b.cols() &&
         std::equal(a.values().begin(), a.values().end(), b.values().begin());
}

/// A file of other tensors or metadata than an artefact writes.
std::vector<std::byte> file_of(const std::map<std::string, Matrix>& matrices,
                               const std::map<std::string, std::string>& metadata) {
  std::vector<model::Tensor> tensors;
  for (const auto& [name, matrix] : matrices) {
    tensors.push_back({.name = name,
                       .type = DType::kF32,
                       .shape = {matrix.rows(), matrix.cols()},
                       .data = std::as_bytes(matrix.view().values())});
  }
  return model::safetensors::write(tensors, metadata);
}

TEST_CASE("an artefact is read as it was written", "[artefact]") {
  const size_t prompt_rows = GENERATE(0, 3);
  const Artefact made = sample(prompt_rows);
  const Artefact read = value_of(Artefact::parse(made.serialize()));
  CHECK(read.id() == made.id());
  CHECK(read.projection()->id() == made.id());
  CHECK(read.origin().model == origin().model);
  CHECK(read.origin().fingerprint == origin().fingerprint);
  CHECK(read.origin().cut == origin().cut);
  CHECK(read.origin().codec == origin().codec);
  CHECK(read.origin().data == origin().data);
  CHECK(read.origin().command == origin().command);
  CHECK(equal(read.encoder(), some(kDims, kWidth, -3).view()));  // eighths are exact in halves
  CHECK(equal(read.decoder(), some(kWidth, kDims, 1).view()));
  CHECK(read.soft_prompt().rows() == prompt_rows);
  CHECK(read.serialize() == made.serialize());
  CHECK(read.codec().to_string().starts_with("proj:4:"));
  CHECK(read.codec().project->artefact == read.id());
  CHECK(read.has_soft_prompt() == (prompt_rows > 0));
  const Artefacts artefacts = {std::make_shared<const Artefact>(sample(2)),
                               std::make_shared<const Artefact>(made)};
  CHECK(find(read.codec(), artefacts) == artefacts[1]);
  CHECK(find(origin().codec, artefacts) == nullptr);
  CHECK(find(sample(5).codec(), artefacts) == nullptr);
}

TEST_CASE("each half holds its own part under the whole's name", "[artefact]") {
  const Artefact whole = sample();
  const Artefact device = value_of(Artefact::parse(whole.serialize(Half::kDevice)));
  const Artefact server = value_of(Artefact::parse(whole.serialize(Half::kServer)));
  CHECK(device.id() == whole.id());
  CHECK(server.id() == whole.id());
  CHECK(device.projection()->has_encoder());
  CHECK_FALSE(device.projection()->has_decoder());
  CHECK(device.soft_prompt().empty());
  CHECK(device.has_soft_prompt());
  CHECK_FALSE(server.projection()->has_encoder());
  CHECK(equal(server.decoder(), whole.decoder()));
  CHECK(equal(server.soft_prompt(), whole.soft_prompt()));
  CHECK_THROWS_AS(device.serialize(Half::kServer), std::invalid_argument);
  CHECK_THROWS_AS(server.serialize(), std::invalid_argument);
}

TEST_CASE("an artefact's name depends on everything in it", "[artefact]") {
  const uint64_t id = sample().id();
  CHECK(sample(0).id() != id);
  CHECK(sample(3, -2.875F).id() != id);
  Origin other = origin();
  other.cut = 1;
  CHECK(value_of(Artefact::make(other, some(kDims, kWidth, -3), some(kWidth, kDims, 1),
                                some(3, kWidth, 0)))
            .id() != id);
}

TEST_CASE("an artefact belongs to one shape of model and one cut", "[artefact]") {
  model::ModelConfig config;
  config.architecture = "llama";
  config.layer_count = 3;
  config.hidden_size = 12;
  config.vocab_size = 99;
  CHECK(sample().check(config, 2));
  CHECK_FAILS_WITH(sample().check(config, 1), ErrorCode::kModelMismatch);
  config.vocab_size = 98;
  CHECK_FAILS_WITH(sample().check(config, 2), ErrorCode::kModelMismatch);
}

TEST_CASE("files are written whole and read again", "[artefact]") {
  const test::TempFolder folder;
  const auto path = folder.path() / "a.safetensors";
  const Artefact made = sample();
  value_of(made.save(path));
  CHECK(value_of(Artefact::load(path)).id() == made.id());
  value_of(made.save(path, Half::kServer));
  CHECK_FALSE(value_of(Artefact::load(path)).projection()->has_encoder());
  CHECK_FAILS_WITH(Artefact::load(folder.path() / "none"), ErrorCode::kNotFound);
  CHECK_FAILS_WITH(made.save(folder.path() / "no" / "folder"), ErrorCode::kIo);
}

TEST_CASE("an artefact cut short anywhere is refused", "[artefact][broken]") {
  const auto bytes = sample().serialize();
  for (size_t length = 0; length < bytes.size(); ++length) {
    CAPTURE(length);
    const std::vector<std::byte> part(bytes.begin(),
                                      bytes.begin() + static_cast<std::ptrdiff_t>(length));
    REQUIRE_FALSE(Artefact::parse(part));
  }
}

TEST_CASE("an artefact with one bit changed is another one or none", "[artefact][broken]") {
  const Artefact made = sample();
  const auto bytes = made.serialize();
  for (size_t i = 0; i < bytes.size(); ++i) {
    CAPTURE(i);
    auto changed = bytes;
    changed[i] ^= std::byte{1};
    const auto read = Artefact::parse(changed);
    // White space, and the spelling of numbers, are all that may differ under one name.
    if (read && read->id() == made.id()) REQUIRE(read->serialize() == bytes);
  }
}

TEST_CASE("an artefact broken in one field is refused", "[artefact][broken]") {
  const auto bytes = sample().serialize();
  const auto good = value_of(model::safetensors::metadata(bytes));
  const std::map<std::string, Matrix> matrices = {{"encoder", some(kDims, kWidth, -3)},
                                                  {"decoder", some(kWidth, kDims, 1)},
                                                  {"soft_prompt", some(3, kWidth, 0)}};
  REQUIRE(Artefact::parse(file_of(matrices, good)));
  for (const auto& [key, value] : good) {
    CAPTURE(key);
    auto metadata = good;
    metadata.erase(key);
    CHECK_FAILS_WITH(Artefact::parse(file_of(matrices, metadata)), ErrorCode::kCorrupt);
  }
  const auto with = [&](const std::string& key, const std::string& value) {
    auto metadata = good;
    metadata[key] = value;
    return Artefact::parse(file_of(matrices, metadata));
  };
  CHECK_FAILS_WITH(with("format", "isthmus-artefact-2"), ErrorCode::kUnsupported);
  CHECK_FAILS_WITH(with("cut", "-1"), ErrorCode::kCorrupt);
  CHECK_FAILS_WITH(with("cut", "2x"), ErrorCode::kCorrupt);
  CHECK_FAILS_WITH(with("codec", "int9"), ErrorCode::kUnsupported);
  CHECK_FAILS_WITH(with("codec", "proj:4:0123456789abcdef|int4"), ErrorCode::kCorrupt);
  CHECK_FAILS_WITH(with("encoder", good.at("decoder")), ErrorCode::kCorrupt);

  const auto replaced = [&](const std::string& name, const Matrix& matrix) {
    auto others = matrices;
    others[name] = matrix;
    return Artefact::parse(file_of(others, good));
  };
  CHECK_FAILS_WITH(replaced("encoder", some(kDims, kWidth, -2)), ErrorCode::kCorrupt);
  CHECK_FAILS_WITH(replaced("adapters", some(1, 1, 0)), ErrorCode::kCorrupt);
  auto none = matrices;
  none.erase("encoder");
  none.erase("decoder");
  CHECK_FAILS_WITH(Artefact::parse(file_of(none, good)), ErrorCode::kCorrupt);
  auto promptless = matrices;
  promptless.erase("soft_prompt");
  CHECK_FAILS_WITH(Artefact::parse(file_of(promptless, good)), ErrorCode::kCorrupt);
}

TEST_CASE("parts that do not fit each other are refused", "[artefact]") {
  const auto make = [](const Matrix& encoder, const Matrix& decoder, const Matrix& prompt) {
    return Artefact::make(origin(), encoder, decoder, prompt);
  };
  const Matrix encoder = some(kDims, kWidth, 0);
  const Matrix decoder = some(kWidth, kDims, 0);
  CHECK(make(encoder, decoder, {}));
  CHECK_FAILS_WITH(make(encoder, encoder, {}), ErrorCode::kInvalidArgument);
  CHECK_FAILS_WITH(make(encoder, decoder, some(2, kWidth - 1, 0)), ErrorCode::kInvalidArgument);
  CHECK_FAILS_WITH(make(encoder, decoder, Matrix(Artefact::kMaxSoftPrompt + 1, kWidth)),
                   ErrorCode::kInvalidArgument);
  Matrix huge = encoder;
  huge.row(0)[0] = 1e6F;  // past half precision
  CHECK_FAILS_WITH(make(huge, decoder, {}), ErrorCode::kNotFinite);
  Origin projecting = origin();
  projecting.codec.project = codec::Project{.dims = 4, .artefact = 1};
  CHECK_FAILS_WITH(Artefact::make(projecting, encoder, decoder, {}), ErrorCode::kInvalidArgument);
  Origin bytes = origin();
  bytes.command = std::string(1, '\xff');
  CHECK_FAILS_WITH(Artefact::make(bytes, encoder, decoder, {}), ErrorCode::kInvalidArgument);
}

}  // namespace
}  // namespace isthmus::artefact
