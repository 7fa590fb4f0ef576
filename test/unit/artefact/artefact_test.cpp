// Artefacts: what is written is read again, either half proves what it belongs to, and a file that
// anyone may have made is refused.
#include <isthmus/artefact/artefact.h>
#include <isthmus/model/safetensors.h>

#include <cstring>
#include <fstream>
#include <string>

#include "support/catch.h"
#include "support/temp_folder.h"
#include "support/tiny_model.h"

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

Parts some_parts(size_t prompt_rows = 3, float first = -3) {
  return {.encoder = some(kDims, kWidth, first),
          .decoder = some(kWidth, kDims, 1),
          .soft_prompt = prompt_rows > 0 ? some(prompt_rows, kWidth, 0) : Matrix()};
}

Artefact sample(size_t prompt_rows = 3, float first = -3) {
  return value_of(Artefact::make(origin(), some_parts(prompt_rows, first)));
}

const std::string kUpMatrix = "blk.2.ffn_up.weight";

Parts adapted_parts() {
  Parts parts = some_parts();
  parts.adapters["blk.2.attn_q.weight"] = {some(2, kWidth, 0), some(kWidth, 2, 1)};
  parts.adapters[kUpMatrix] = {some(3, kWidth, 0), some(20, 3, 1)};
  return parts;
}

Artefact adapted() {
  return value_of(Artefact::make(origin(), adapted_parts()));
}

bool equal(MatrixView<const float> a, MatrixView<const float> b) {
  return a.rows() == b.rows() && a.cols() == b.cols() &&
         std::equal(a.values().begin(), a.values().end(), b.values().begin());
}

/// A file of other tensors or metadata than an artefact writes.
std::vector<std::byte> file_of(const NamedMatrices& matrices,
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
  CHECK(server.adapted_end() == 0);
  CHECK_THROWS_AS(device.serialize(Half::kServer), std::invalid_argument);
  CHECK_THROWS_AS(server.serialize(), std::invalid_argument);
}

TEST_CASE("adapters are the server's", "[artefact][adapters]") {
  const Artefact whole = adapted();
  const Artefact read = value_of(Artefact::parse(whole.serialize()));
  const Artefact device = value_of(Artefact::parse(whole.serialize(Half::kDevice)));
  const Artefact server = value_of(Artefact::parse(whole.serialize(Half::kServer)));
  for (const Artefact& artefact : {read, device, server}) {
    CHECK(artefact.id() == whole.id());
    CHECK(artefact.adapted_end() == 3);
  }
  CHECK(device.parts().adapters.empty());
  for (const Artefact& artefact : {read, server}) {
    const Parts& parts = artefact.parts();
    REQUIRE(parts.adapters.size() == 2);
    CHECK(equal(parts.adapters.at(kUpMatrix).down.view(), some(3, kWidth, 0).view()));
    CHECK(equal(parts.adapters.at(kUpMatrix).up.view(), some(20, 3, 1).view()));
    CHECK(artefact.adapters()->size() == 2);
  }
}

TEST_CASE("a server's weights have the adapters of one artefact, of these very weights",
          "[artefact][adapters]") {
  const std::shared_ptr<const model::ModelFile> file =
      std::make_shared<test::TinyModel>(test::tiny_configs().front().config);
  const std::string name = model::layer_matrix(2, "attn_q");
  const model::Tensor& before = *value_of(file->find(name));
  const auto make = [&](size_t rows) {
    Parts parts = some_parts();
    parts.adapters[name] = {some(2, before.cols(), 0), some(rows, 2, 1)};
    return std::make_shared<const Artefact>(value_of(Artefact::make(origin(), parts)));
  };
  const auto plain = std::make_shared<const Artefact>(sample());
  const auto good = make(before.rows());
  CHECK(value_of(find_adapted({plain, good})) == good);
  CHECK(value_of(find_adapted({plain})) == nullptr);
  CHECK_FAILS_WITH(find_adapted({good, plain, make(3)}), ErrorCode::kInvalidArgument);

  CHECK(value_of(adapted_model(file, {plain}, "other")) == file);
  CHECK_FAILS_WITH(adapted_model(file, {plain, good}, "other"), ErrorCode::kModelMismatch);
  CHECK_FAILS_WITH(adapted_model(file, {make(before.rows() + 1)}, "00ff"),
                   ErrorCode::kModelMismatch);
  const auto model = value_of(adapted_model(file, {plain, good}, "00ff"));
  CHECK(value_of(model->find(name))->adapter == &good->parts().adapters.at(name));
}

TEST_CASE("an artefact's name depends on everything in it", "[artefact]") {
  const uint64_t id = sample().id();
  CHECK(sample(0).id() != id);
  CHECK(sample(3, -2.875F).id() != id);
  Origin other = origin();
  other.cut = 1;
  CHECK(value_of(Artefact::make(other, some_parts())).id() != id);
  CHECK(adapted().id() != id);
  Parts parts = adapted_parts();
  parts.adapters[kUpMatrix].up.row(7)[1] += 1;
  CHECK(value_of(Artefact::make(origin(), parts)).id() != adapted().id());
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

TEST_CASE("layers that read what the server alone has stay there", "[artefact]") {
  constexpr int32_t kLayers = 9;
  Parts parts = adapted_parts();  // of layer 2, the last of them
  parts.soft_prompt = {};
  for (const auto& [artefact, least] :
       {std::pair(sample(0), 0), std::pair(value_of(Artefact::make(origin(), parts)), 3),
        std::pair(adapted(), kLayers), std::pair(sample(), kLayers)}) {
    const Artefact device = value_of(Artefact::parse(artefact.serialize(Half::kDevice)));
    CHECK(device.least_tail(kLayers) == least);
    for (int32_t tail = 0; tail <= kLayers; ++tail) {
      CAPTURE(tail, least);
      if (tail >= least)
        CHECK(device.check_tail(tail, kLayers));
      else
        CHECK_FAILS_WITH(device.check_tail(tail, kLayers), ErrorCode::kUnsupported);
    }
  }
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
  const auto bytes = adapted().serialize();
  for (size_t length = 0; length < bytes.size(); ++length) {
    CAPTURE(length);
    const std::vector<std::byte> part(bytes.begin(),
                                      bytes.begin() + static_cast<std::ptrdiff_t>(length));
    REQUIRE_FALSE(Artefact::parse(part));
  }
}

TEST_CASE("an artefact with one bit changed is another one or none", "[artefact][broken]") {
  const Artefact made = adapted();
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

TEST_CASE("F32 tensors say no more than their name pins", "[artefact][broken]") {
  const Artefact made = adapted();
  const auto bytes =
      file_of(to_named(adapted_parts()), value_of(model::safetensors::metadata(made.serialize())));
  const NamedMatrices good = to_named(made.parts());
  for (size_t i = 0; i < bytes.size(); ++i) {
    auto changed = bytes;
    changed[i] ^= std::byte{1};
    const auto read = Artefact::parse(changed);
    if (!read || read->id() != made.id()) continue;
    CAPTURE(i);
    for (const auto& [name, matrix] : to_named(read->parts()))
      REQUIRE(equal(matrix.view(), good.at(name).view()));
  }
}

TEST_CASE("an artefact broken in one field is refused", "[artefact][broken]") {
  const auto bytes = adapted().serialize();
  const auto good = value_of(model::safetensors::metadata(bytes));
  const NamedMatrices matrices = to_named(adapted_parts());
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
  for (const auto& [name, matrix] : matrices) {
    CAPTURE(name);
    if (half_of(name) == Half::kDevice) continue;  // without it this is the server's half
    auto others = matrices;
    others.erase(name);
    CHECK_FAILS_WITH(Artefact::parse(file_of(others, good)), ErrorCode::kCorrupt);
  }
}

/// A file whose metadata are right for its tensors, whatever those are.
std::vector<std::byte> consistent_file_of(const NamedMatrices& matrices) {
  auto metadata = value_of(model::safetensors::metadata(sample().serialize()));
  // A tensor's hash says nothing of its name, so an adapter's can be taken.
  const std::string name = "blk.2.attn_q.weight";
  for (const auto& [key, matrix] : matrices) {
    const bool is_tall = matrix.rows() > Artefact::kMaxRank;
    Parts parts = some_parts(0);
    parts.adapters[name] = is_tall ? model::LowRank{some(matrix.cols(), 1, 0), matrix}
                                   : model::LowRank{matrix, some(1, matrix.rows(), 0)};
    const auto hashes = value_of(
        model::safetensors::metadata(value_of(Artefact::make(origin(), parts)).serialize()));
    metadata[key] = hashes.at(name + std::string(is_tall ? kUp : kDown));
  }
  return file_of(matrices, metadata);
}

TEST_CASE("adapters that no model could have are refused", "[artefact][adapters][broken]") {
  const auto refused = [](const std::string& name, const model::LowRank& adapter) {
    Parts parts = some_parts();
    parts.adapters[name] = adapter;
    CAPTURE(name);
    CHECK_FAILS_WITH(Artefact::make(origin(), parts), ErrorCode::kInvalidArgument);
    CHECK_FAILS_WITH(Artefact::parse(consistent_file_of(to_named(parts))), ErrorCode::kCorrupt);
  };
  const model::LowRank good{some(2, kWidth, 0), some(kWidth, 2, 1)};
  Parts parts = some_parts();
  parts.adapters["blk.2.attn_q.weight"] = good;
  REQUIRE(Artefact::parse(consistent_file_of(to_named(parts))));
  refused("blk.1.attn_q.weight", good);  // in front of the cut
  refused("blk.02.attn_q.weight", good);
  refused("blk.2.attn_norm.weight", good);
  refused("output.weight", good);
  refused("", good);
  refused("blk.2.attn_q.weight", {good.down, some(kWidth, 3, 1)});
  CHECK_FAILS_WITH(Artefact::make(origin(),
                                  [&] {
                                    Parts empty = some_parts();
                                    empty.adapters["blk.2.attn_q.weight"] = {};
                                    return empty;
                                  }()),
                   ErrorCode::kInvalidArgument);
  const size_t most = Artefact::kMaxRank + 1;
  refused("blk.2.attn_q.weight", {some(most, kWidth, 0), some(kWidth, most, 1)});
}

TEST_CASE("parts that do not fit each other are refused", "[artefact]") {
  const auto make = [](const Matrix& encoder, const Matrix& decoder, const Matrix& prompt) {
    return Artefact::make(origin(),
                          {.encoder = encoder, .decoder = decoder, .soft_prompt = prompt});
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
  CHECK_FAILS_WITH(Artefact::make(projecting, some_parts()), ErrorCode::kInvalidArgument);
  Origin bytes = origin();
  bytes.command = std::string(1, '\xff');
  CHECK_FAILS_WITH(Artefact::make(bytes, some_parts()), ErrorCode::kInvalidArgument);
}

}  // namespace
}  // namespace isthmus::artefact
