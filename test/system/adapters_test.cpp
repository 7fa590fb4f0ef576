// Two processes and a real model whose back an artefact adapts.
#include <isthmus/artefact/artefact.h>
#include <isthmus/core/random.h>
#include <isthmus/edge/device.h>
#include <isthmus/engine/cpu_engine.h>
#include <isthmus/engine/sampler.h>
#include <isthmus/model/fingerprint.h>

#include <string>
#include <vector>

#include "server_process.h"
#include "support/tiny_model.h"

namespace isthmus {
namespace {

using artefact::Artefact;
using test::value_of;

constexpr int32_t kCut = 2;
constexpr int32_t kTokens = 24;

Matrix unit(size_t size) {
  Matrix matrix(size, size);
  for (size_t i = 0; i < size; ++i) matrix.row(i)[i] = 1;
  return matrix;
}

Matrix some(size_t rows, size_t cols, uint64_t seed, double size) {
  Matrix matrix(rows, cols);
  for (size_t i = 0; i < rows * cols; ++i)
    matrix.data()[i] = static_cast<float>(size * (2 * counter_uniform(seed, i) - 1));
  return matrix;
}

/// Rows pass as they are; the first two layers behind the cut are changed by chance.
Artefact make_artefact(const model::ModelFile& file, const std::string& fingerprint) {
  const auto width = static_cast<size_t>(file.config().hidden_size);
  artefact::Parts parts{.encoder = unit(width), .decoder = unit(width)};
  uint64_t seed = 0;
  for (const int32_t layer : {kCut, kCut + 1}) {
    for (const std::string_view matrix : model::kLayerMatrices) {
      const std::string name = model::layer_matrix(layer, matrix);
      const model::Tensor& tensor = *value_of(file.find(name));
      parts.adapters[name] = {some(2, tensor.cols(), ++seed, 0.3),
                              some(tensor.rows(), 2, ++seed, 0.3)};
    }
  }
  return value_of(Artefact::make({.model = artefact::model_name(file.config()),
                                  .fingerprint = fingerprint,
                                  .cut = kCut,
                                  .codec = codec::CodecSpec{codec::Format::kF32},
                                  .data = "",
                                  .command = ""},
                                 std::move(parts)));
}

/// The likeliest tokens behind a prompt, by all layers of a model in one engine.
std::vector<int32_t> greedy(const std::shared_ptr<const model::ModelFile>& file,
                            std::vector<int32_t> next, size_t count) {
  ThreadPool pool(1);
  const auto engine =
      value_of(engine::load_cpu_engine(file, test::whole_model(file->config()), pool));
  const auto cache = value_of(engine->make_cache({0, file->config().layer_count}, 512));
  std::vector<int32_t> generated;
  while (generated.size() < count) {
    const engine::Slice slice{.cache = cache.get(),
                              .tokens = next,
                              .output = engine::Output::kLogits,
                              .rows = engine::Rows::kLast};
    const Matrix logits = std::move(value_of(engine->forward({&slice, 1})).front());
    next = {value_of(engine::sample(logits.row(0), {}, generated, cache->length()))};
    generated.push_back(next.front());
  }
  return generated;
}

TEST_CASE(
    "a server process with adapters makes the tokens of the adapted model, and serves only "
    "who names them",
    "[system][artefact]") {
  const test::TempFolder folder;
  const std::shared_ptr<const model::ModelFile> file =
      value_of(model::ModelFile::open(test::kModel));
  ThreadPool pool(2);
  const std::string fingerprint = value_of(model::fingerprint(*file, pool)).to_string();
  const Artefact made = make_artefact(*file, fingerprint);
  const auto server_part = folder.path() / "server";
  const auto device_part = folder.path() / "device";
  value_of(made.save(server_part, artefact::Half::kServer));
  value_of(made.save(device_part, artefact::Half::kDevice));

  test::ServerProcess server({"--artefact", server_part.string()});
  server.enrol_client();
  edge::Device device = value_of(edge::Device::load({.model = test::kModel, .cut = kCut}));
  edge::SessionOptions options{
      .server = server.address(), .keys = server.client_keys(), .max_tokens = 256};
  options.codec_down = {codec::Format::kF32};
  options.codec = {codec::Format::kF32};
  CHECK_FAILS_WITH(device.open_session(options), ErrorCode::kModelMismatch);

  const auto artefact = std::make_shared<const Artefact>(value_of(Artefact::load(device_part)));
  options.artefacts = {artefact};
  options.codec = artefact->codec();
  edge::Session session = value_of(device.open_session(options));
  const edge::Reply reply = value_of(session.say("Why is the sky blue?", {.max_tokens = kTokens}));
  REQUIRE_FALSE(reply.token_ids.empty());
  const auto adapted = value_of(
      artefact::adapted_model(file, {std::make_shared<const Artefact>(made)}, fingerprint));
  const auto expected = greedy(adapted, reply.prompt_token_ids, reply.token_ids.size());
  CHECK(reply.token_ids == expected);
  CHECK(greedy(file, reply.prompt_token_ids, expected.size()) != expected);
}

TEST_CASE("two artefacts with adapters, or those of other weights, end a server at its start",
          "[system][artefact]") {
  const test::TempFolder folder;
  const auto file = value_of(model::ModelFile::open(test::kModel));
  const auto one = folder.path() / "one";
  const auto two = folder.path() / "two";
  value_of(make_artefact(*file, "00").save(one));
  value_of(make_artefact(*file, "01").save(two));
  const auto start = [&](std::vector<std::string> artefacts) {
    std::vector<std::string> words = {test::kBin + "/isthmus-server",
                                      "--model",
                                      test::kModel,
                                      "--bind",
                                      "127.0.0.1:0",
                                      "--insecure"};
    for (std::string& path : artefacts) words.insert(words.end(), {"--artefact", std::move(path)});
    return test::run(words);
  };
  const test::Finished both = start({one.string(), two.string()});
  CHECK(both.exit_code == 1);
  CHECK(both.err.find("adapters") != std::string::npos);
  const test::Finished other = start({one.string()});
  CHECK(other.exit_code == 1);
  CHECK(other.err.find("adapters change the weights 00") != std::string::npos);
}

}  // namespace
}  // namespace isthmus
