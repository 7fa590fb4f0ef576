// Device and server with the halves of one artefact, over a real socket.
#include <isthmus/artefact/artefact.h>

#include <limits>
#include <string>

#include "support/temp_folder.h"
#include "tiny_split.h"

namespace isthmus {
namespace {

using artefact::Artefact;
using artefact::Half;
using test::InProcessServer;
using test::load_device;
using test::session_options;
using test::TinyFolder;
using test::value_of;

/// Rows of `rows` numbers go through unchanged: the first of them, or all.
Matrix unit(size_t rows, size_t cols) {
  Matrix matrix(rows, cols);
  for (size_t i = 0; i < std::min(rows, cols); ++i) matrix.row(i)[i] = 1;
  return matrix;
}

Artefact make(const model::ModelConfig& config, int32_t cut, size_t dims, size_t prompt_rows,
              const std::string& codec) {
  const auto width = static_cast<size_t>(config.hidden_size);
  Matrix prompt(prompt_rows, width);
  for (float& value : prompt.view().values()) value = 0.25F;
  return value_of(Artefact::make(
      {.model = artefact::model_name(config),
       .fingerprint = "",
       .cut = cut,
       .codec = value_of(codec::CodecSpec::parse(codec)),
       .data = "",
       .command = ""},
      {.encoder = unit(dims, width), .decoder = unit(width, dims), .soft_prompt = prompt}));
}

/// Takes every number through unchanged, and makes a layer's matrices half as large again. The
/// factors are of full rank: the matrix itself, and halves on a diagonal.
Artefact make_adapted(const std::filesystem::path& path, int32_t cut, int32_t layer) {
  const auto file = value_of(model::ModelFile::open(path));
  ThreadPool pool(1);
  const auto width = static_cast<size_t>(file->config().hidden_size);
  artefact::Parts parts{.encoder = unit(width, width), .decoder = unit(width, width)};
  for (const std::string_view matrix : model::kLayerMatrices) {
    const std::string name = model::layer_matrix(layer, matrix);
    const model::Tensor& tensor = *value_of(file->find(name));
    model::LowRank& adapter = parts.adapters[name];
    adapter.down = Matrix(tensor.rows(), tensor.cols());
    value_of(model::read_rows(tensor, 0, adapter.down.view()));
    adapter.up = Matrix(tensor.rows(), tensor.rows());
    for (size_t i = 0; i < tensor.rows(); ++i) adapter.up.row(i)[i] = 0.5F;
  }
  return value_of(
      Artefact::make({.model = artefact::model_name(file->config()),
                      .fingerprint = value_of(model::fingerprint(*file, pool)).to_string(),
                      .cut = cut,
                      .codec = codec::CodecSpec{codec::Format::kF32},
                      .data = "",
                      .command = ""},
                     std::move(parts)));
}

/// The half that one side would read from its file.
std::shared_ptr<const Artefact> half(const Artefact& whole, Half which) {
  return std::make_shared<const Artefact>(value_of(Artefact::parse(whole.serialize(which))));
}

server::ServerOptions server_with(const Artefact& whole) {
  server::ServerOptions options;
  options.artefacts = {half(whole, Half::kServer)};
  return options;
}

edge::SessionOptions device_with(const Artefact& whole, const transport::ServerAddress& address) {
  edge::SessionOptions options = session_options(address);
  options.artefacts = {half(whole, Half::kDevice)};
  options.codec = whole.codec();
  options.codec_down = codec::CodecSpec{codec::Format::kF32};
  return options;
}

TEST_CASE("a projection to as many numbers changes no token", "[integration][artefact]") {
  const TinyFolder model;
  const int32_t cut = GENERATE(0, 2);
  const auto tail = GENERATE(std::optional<int32_t>(), 3);
  edge::Device device = load_device(model.path(), cut, tail);
  const Artefact whole = make(device.config(), cut, 48, 0, "f32");
  const InProcessServer server(model.path(), server_with(whole));
  edge::Session session = value_of(device.open_session(device_with(whole, server.address())));
  CHECK(test::converse(session, 0.9F) == test::converse_locally(model.path(), 0.9F));
}

TEST_CASE("rows that come back cross no projection", "[integration][artefact]") {
  const TinyFolder model;
  edge::Device device = load_device(model.path(), 0, 3);
  const Artefact whole = make(device.config(), 0, 48, 0, "f32");
  const InProcessServer server(model.path(), server_with(whole));
  edge::SessionOptions options = device_with(whole, server.address());
  SECTION("by themselves") {
    options.codec_down.reset();
    edge::Session session = value_of(device.open_session(options));
    CHECK(value_of(session.say("some words", {.max_tokens = 3})).token_ids.size() == 3);
  }
  SECTION("nor when told to") {
    options.codec_down = options.codec;
    CHECK_FAILS_WITH(device.open_session(options), ErrorCode::kUnsupported);
  }
}

TEST_CASE("a mechanism behind a projection is charged for its latents' rows",
          "[integration][artefact][privacy]") {
  const TinyFolder model;
  edge::Device device = load_device(model.path(), 0);
  const Artefact whole = make(device.config(), 0, 12, 3, "clip:max=0.5|binomial:4:mu=20|rans");
  const InProcessServer server(model.path(), server_with(whole));
  edge::SessionOptions options = device_with(whole, server.address());
  options.codec_clean = {codec::Format::kF32};
  const test::TempFolder folder;
  options.ledger = value_of(privacy::Ledger::open({.file = folder.path() / "ledger"}));
  edge::Session session = value_of(device.open_session(options));
  for (int turn = 0; turn < 2; ++turn) {
    const edge::Reply reply = value_of(session.say("some words", {.max_tokens = 5}));
    CHECK(reply.token_ids.size() == 5);
    CHECK(reply.released_rows == reply.prompt_token_ids.size());  // generated ones go up clean
  }
  const edge::PrivacyReport report = *value_of(session.privacy());
  const auto mechanism = value_of(privacy::make_mechanism(
      value_of(privacy::MechanismSpec::parse("binomial:4:mu=20")), 12, {.coordinate = 0.5}));
  CHECK(report.statement.epsilon_per_row == mechanism->epsilon(1, 1e-5));
}

TEST_CASE("a server with adapters makes the tokens of a model whose weights are such",
          "[integration][artefact][adapters]") {
  const TinyFolder model;
  const int32_t cut = GENERATE(0, 2);
  constexpr int32_t kLayer = 2;
  const auto tail = GENERATE(std::optional<int32_t>(), 3);
  edge::Device device = load_device(model.path(), cut, tail);
  const Artefact whole = make_adapted(model.path(), cut, kLayer);
  const InProcessServer server(model.path(), server_with(whole));
  edge::Session session = value_of(device.open_session(device_with(whole, server.address())));
  const std::vector<int32_t> tokens = test::converse(session, 0.9F);
  CHECK(tokens != test::converse_locally(model.path(), 0.9F));
  const TinyFolder scaled;
  const std::string layer = "model.layers." + std::to_string(kLayer) + ".";
  for (const char* matrix : {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj",
                             "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"})
    scaled.scale(layer + matrix + ".weight", 1.5F);
  CHECK(tokens == test::converse_locally(scaled.path(), 0.9F));
}

TEST_CASE("a server with adapters serves nobody who does not know",
          "[integration][artefact][adapters]") {
  const TinyFolder model;
  edge::Device device = load_device(model.path(), 1);
  const Artefact whole = make_adapted(model.path(), 1, 2);
  const InProcessServer server(model.path(), server_with(whole));
  CHECK_FAILS_WITH(device.open_session(session_options(server.address())),
                   ErrorCode::kModelMismatch);
  SECTION("nor a tail that has those layers") {
    edge::Device tailed = load_device(model.path(), 1, 2);
    CHECK_FAILS_WITH(tailed.open_session(device_with(whole, server.address())),
                     ErrorCode::kUnsupported);
  }
  SECTION("nor is it checked against layers without them") {
    edge::SessionOptions options = device_with(whole, server.address());
    options.verify = {.share = 1};
    CHECK_FAILS_WITH(device.open_session(options), ErrorCode::kUnsupported);
  }
}

TEST_CASE("what an artefact is not for is refused on both sides", "[integration][artefact]") {
  const TinyFolder model;
  edge::Device device = load_device(model.path(), 2);
  const Artefact whole = make(device.config(), 2, 12, 0, "int4");
  const InProcessServer bare(model.path());
  SECTION("the server has none of that name") {
    CHECK_FAILS_WITH(device.open_session(device_with(whole, bare.address())), ErrorCode::kNotFound);
  }
  SECTION("the device has none") {
    edge::SessionOptions options = device_with(whole, bare.address());
    options.artefacts = {};
    CHECK_FAILS_WITH(device.open_session(options), ErrorCode::kNotFound);
  }
  SECTION("the device has the server's half") {
    const InProcessServer server(model.path(), server_with(whole));
    edge::SessionOptions options = device_with(whole, server.address());
    options.artefacts = {half(whole, Half::kServer)};
    edge::Session session = value_of(device.open_session(options));
    CHECK_FAILS_WITH(session.say("words"), ErrorCode::kNotFound);
  }
  SECTION("it was made for another cut") {
    edge::Device other = load_device(model.path(), 1);
    CHECK_FAILS_WITH(other.open_session(device_with(whole, bare.address())),
                     ErrorCode::kModelMismatch);
  }
  SECTION("a tail would miss its soft prompt") {
    const Artefact prompted = make(device.config(), 2, 12, 4, "int4");
    edge::Device tailed = load_device(model.path(), 2, 3);
    CHECK_FAILS_WITH(tailed.open_session(device_with(prompted, bare.address())),
                     ErrorCode::kUnsupported);
  }
}

}  // namespace
}  // namespace isthmus
