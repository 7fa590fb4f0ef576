#include "slice.h"

#include <isthmus/core/thread_pool.h>
#include <isthmus/model/fingerprint.h>
#include <isthmus/model/model_file.h>

#include <algorithm>
#include <fstream>
#include <set>
#include <string>

#include "hf_files.h"
#include "support/catch.h"
#include "support/gguf_writer.h"
#include "support/temp_folder.h"

namespace isthmus::model {
namespace {

using test::GgufFile;
using test::tiny_gguf;
using test::value_of;
using test::write_file;

std::set<std::string> names_of(const ModelFile& model) {
  std::set<std::string> names;
  for (const Tensor& tensor : model.tensors()) names.insert(tensor.name);
  return names;
}

// A model on disk and a place for its slices.
struct Fixture {
  explicit Fixture(const GgufFile& file = tiny_gguf()) {
    write_file(source, file.bytes());
    model = value_of(ModelFile::open(source));
  }
  std::shared_ptr<const ModelFile> slice(const Part& part) {
    value_of(write_slice(source, part, target));
    return value_of(ModelFile::open(target));
  }
  test::TempFolder folder;
  std::filesystem::path source = folder.path() / "whole.gguf";
  std::filesystem::path target = folder.path() / "slice.gguf";
  std::shared_ptr<const ModelFile> model;
};

GgufFile untied_gguf() {
  GgufFile file = tiny_gguf();
  file.add_tensor("output.weight", {6, 8});
  return file;
}

void check_same_config(const ModelConfig& a, const ModelConfig& b) {
  CHECK(a.architecture == b.architecture);
  CHECK(a.layer_count == b.layer_count);
  CHECK(a.hidden_size == b.hidden_size);
  CHECK(a.vocab_size == b.vocab_size);
  CHECK(a.tied_head == b.tied_head);
  CHECK(a.qkv_bias == b.qkv_bias);
  CHECK(a.output_bias == b.output_bias);
  CHECK(a.rope_global == b.rope_global);
}

TEST_CASE("a front slice has the embedding and its layers, bit for bit", "[model][slice]") {
  Fixture fixture(untied_gguf());
  const auto slice = fixture.slice({.layers = {{0, 1}}, .embedding = true});
  check_same_config(slice->config(), fixture.model->config());
  CHECK(slice->tokenizer().pieces == fixture.model->tokenizer().pieces);
  CHECK(slice->tokenizer().merges == fixture.model->tokenizer().merges);
  const auto names = names_of(*slice);
  CHECK(names.size() == 10);
  CHECK(names.contains("token_embd.weight"));
  CHECK(names.contains("blk.0.ffn_down.weight"));
  for (const Tensor& tensor : slice->tensors()) {
    CAPTURE(tensor.name);
    const Tensor& original = *value_of(fixture.model->find(tensor.name));
    CHECK(tensor.type == original.type);
    CHECK(tensor.shape == original.shape);
    CHECK(std::equal(tensor.data.begin(), tensor.data.end(), original.data.begin(),
                     original.data.end()));
  }
}

TEST_CASE("a back slice has its layers, the norm and the head", "[model][slice]") {
  Fixture fixture(untied_gguf());
  const auto slice = fixture.slice({.layers = {{1, 2}}, .head = true});
  check_same_config(slice->config(), fixture.model->config());
  const auto names = names_of(*slice);
  CHECK(names.size() == 11);
  CHECK(names.contains("output.weight"));
  CHECK(names.contains("output_norm.weight"));
  CHECK_FALSE(names.contains("token_embd.weight"));
}

TEST_CASE("a tied head brings the embedding table", "[model][slice]") {
  Fixture fixture;
  const auto slice = fixture.slice({.head = true});
  check_same_config(slice->config(), fixture.model->config());
  CHECK(names_of(*slice) == std::set<std::string>{"output_norm.weight", "token_embd.weight"});
}

TEST_CASE("layers alone keep the config of the whole model", "[model][slice]") {
  Fixture fixture(untied_gguf());
  const auto slice = fixture.slice({.layers = {{1, 2}}});
  check_same_config(slice->config(), fixture.model->config());
  CHECK(names_of(*slice).size() == 9);
}

GgufFile biased_gguf() {
  GgufFile file = untied_gguf();
  for (const std::string layer : {"blk.0.", "blk.1."}) {
    file.add_tensor(layer + "attn_q.bias", {8});
    file.add_tensor(layer + "attn_k.bias", {4});
    file.add_tensor(layer + "attn_v.bias", {4});
    file.add_tensor(layer + "attn_output.bias", {8});
  }
  return file;
}

TEST_CASE("a slice without layers knows of the model's biases", "[model][slice]") {
  const Part part = GENERATE(Part{.embedding = true}, Part{.head = true});
  Fixture fixture(biased_gguf());
  REQUIRE(fixture.model->config().output_bias);
  const auto slice = fixture.slice(part);
  check_same_config(slice->config(), fixture.model->config());
  ThreadPool pool(1);
  CHECK(value_of(fingerprint(*slice, pool)).digest ==
        value_of(fingerprint(*fixture.model, pool)).digest);
}

TEST_CASE("a slice that does not speak of biases goes by its tensors", "[model][slice]") {
  GgufFile file = biased_gguf();
  file.set("isthmus.slice.layers", std::vector<int32_t>{0, 2});
  file.set("isthmus.slice.embedding", true);
  file.set("isthmus.slice.head", true);
  file.set("isthmus.slice.tied_head", false);
  const Fixture fixture(file);
  CHECK(fixture.model->is_slice());
  CHECK(fixture.model->config().qkv_bias);
  CHECK(fixture.model->config().output_bias);
}

TEST_CASE("rope divisors travel with every slice", "[model][slice]") {
  GgufFile file = tiny_gguf();
  file.add_tensor("rope_freqs.weight", {2});
  file.tensor("rope_freqs.weight").data = test::little_endian(1.0F) + test::little_endian(8.0F);
  Fixture fixture(file);
  check_same_config(fixture.slice({.layers = {{0, 1}}})->config(), fixture.model->config());
}

TEST_CASE("a tensor that a slice lacks is named, and so is what it holds", "[model][slice]") {
  Fixture fixture;
  const auto slice = fixture.slice({.layers = {{0, 1}}, .embedding = true});
  const auto missing = slice->find("blk.1.attn_q.weight");
  CHECK_FAILS_WITH(missing, ErrorCode::kNotFound);
  CHECK(missing.error().message ==
        "model: tensor 'blk.1.attn_q.weight' is missing; the file is a slice with layers 0:1, the "
        "embedding");
}

TEST_CASE("available_part tells what a file holds", "[model][slice]") {
  Fixture fixture(untied_gguf());
  const Part whole = available_part(*fixture.model);
  CHECK(whole.layers == std::vector<std::pair<int32_t, int32_t>>{{0, 2}});
  CHECK(whole.embedding);
  CHECK(whole.head);
  const Part back = available_part(*fixture.slice({.layers = {{1, 2}}, .head = true}));
  CHECK(back.layers == std::vector<std::pair<int32_t, int32_t>>{{1, 2}});
  CHECK_FALSE(back.embedding);
  CHECK(back.head);
}

TEST_CASE("a slice can be cut again, but not beyond what it holds", "[model][slice]") {
  Fixture fixture;
  value_of(write_slice(fixture.source, {.layers = {{0, 2}}}, fixture.target));
  const auto smaller = fixture.folder.path() / "smaller.gguf";
  value_of(write_slice(fixture.target, {.layers = {{1, 2}}}, smaller));
  const auto slice = value_of(ModelFile::open(smaller));
  CHECK(names_of(*slice).size() == 9);
  check_same_config(slice->config(), fixture.model->config());
  CHECK_FAILS_WITH(write_slice(smaller, {.layers = {{0, 1}}}, fixture.target),
                   ErrorCode::kNotFound);
  CHECK_FAILS_WITH(write_slice(smaller, {.embedding = true}, fixture.target), ErrorCode::kNotFound);
  CHECK_FAILS_WITH(write_slice(smaller, {.head = true}, fixture.target), ErrorCode::kNotFound);
}

TEST_CASE("a file's own alignment is kept", "[model][slice]") {
  GgufFile file = tiny_gguf();
  file.alignment = 256;
  file.set("general.alignment", 256U);
  Fixture fixture(file);
  const auto slice = fixture.slice({.layers = {{1, 2}}});
  Matrix row(1, 12);
  REQUIRE(read_rows(*value_of(slice->find("blk.1.ffn_down.weight")), 7, row.view()));
  CHECK(row.row(0)[11] == 95);
}

TEST_CASE("parts outside the model are refused, and nothing is left behind", "[model][slice]") {
  Fixture fixture;
  using Ranges = std::vector<std::pair<int32_t, int32_t>>;
  const Ranges ranges = GENERATE(Ranges{{0, 3}}, Ranges{{-1, 1}}, Ranges{{1, 0}},
                                 Ranges{{0, 2}, {1, 2}}, Ranges{{1, 2}, {0, 1}});
  CHECK_FAILS_WITH(write_slice(fixture.source, {.layers = ranges}, fixture.target),
                   ErrorCode::kInvalidArgument);
  CHECK_FALSE(std::filesystem::exists(fixture.target));
}

TEST_CASE("what cannot be read or written is an error", "[model][slice]") {
  Fixture fixture;
  const Part part{.head = true};
  CHECK_FAILS_WITH(write_slice(fixture.folder.path(), part, fixture.target),
                   ErrorCode::kUnsupported);
  CHECK_FAILS_WITH(write_slice(fixture.folder.path() / "absent", part, fixture.target),
                   ErrorCode::kNotFound);
  CHECK_FAILS_WITH(write_slice(fixture.source, part, fixture.folder.path() / "no" / "slice.gguf"),
                   ErrorCode::kIo);
  const auto occupied = fixture.folder.path() / "occupied";
  std::filesystem::create_directory(occupied);
  CHECK_FAILS_WITH(write_slice(fixture.source, part, occupied), ErrorCode::kIo);
  for (const auto& left : std::filesystem::directory_iterator(fixture.folder.path())) {
    CAPTURE(left.path().string());
    CHECK((left.path() == fixture.source || left.path() == occupied));
  }
}

TEST_CASE("a slice may replace its own source", "[model][slice]") {
  Fixture fixture;
  value_of(write_slice(fixture.source, {.layers = {{0, 1}}}, fixture.source));
  CHECK(names_of(*value_of(ModelFile::open(fixture.source))).size() == 9);
  CHECK(fixture.model->tensors().size() == 20);  // the old file stays mapped
}

TEST_CASE("broken slice metadata is refused", "[model][slice][broken]") {
  const auto open_with = [](const std::string& key, const test::GgufValue& value) {
    GgufFile file = tiny_gguf();
    file.set("isthmus.slice.layers", std::vector<int32_t>{0, 2});
    file.set("isthmus.slice.embedding", true);
    file.set("isthmus.slice.head", true);
    file.set("isthmus.slice.tied_head", true);
    file.set(key, value);
    const test::TempFolder folder;
    write_file(folder.path() / "m.gguf", file.bytes());
    return ModelFile::open(folder.path() / "m.gguf");
  };
  CHECK(open_with("isthmus.slice.head", true));
  CHECK_FAILS_WITH(open_with("isthmus.slice.head", 1), ErrorCode::kCorrupt);
  CHECK_FAILS_WITH(open_with("isthmus.slice.embedding", "yes"), ErrorCode::kCorrupt);
  CHECK_FAILS_WITH(open_with("isthmus.slice.tied_head", 1), ErrorCode::kCorrupt);
  CHECK_FAILS_WITH(open_with("isthmus.slice.qkv_bias", 1), ErrorCode::kCorrupt);
  CHECK_FAILS_WITH(open_with("isthmus.slice.output_bias", 1), ErrorCode::kCorrupt);
  CHECK_FAILS_WITH(open_with("isthmus.slice.layers", 2), ErrorCode::kCorrupt);
}

}  // namespace
}  // namespace isthmus::model
