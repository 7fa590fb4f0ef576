#include <isthmus/model/model_file.h>

#include <filesystem>
#include <string>
#include <vector>

#include "hf_files.h"
#include "support/catch.h"
#include "support/temp_folder.h"

namespace isthmus::model {
namespace {

using nlohmann::json;
using test::HfTensor;
using test::safetensors_bytes;
using test::tiny_hf_tensors;
using test::value_of;
using test::write_file;
using test::write_tiny_hf_folder;

constexpr const char* kIndex = "model.safetensors.index.json";

// Splits the tiny model's weights over two files and writes the index.
json write_shards(const std::filesystem::path& folder) {
  const std::vector<HfTensor> tensors = tiny_hf_tensors();
  const auto middle = tensors.begin() + static_cast<std::ptrdiff_t>(tensors.size() / 2);
  write_file(folder / "a.safetensors", safetensors_bytes({tensors.begin(), middle}));
  write_file(folder / "b.safetensors", safetensors_bytes({middle, tensors.end()}));
  json map;
  for (auto t = tensors.begin(); t != tensors.end(); ++t) {
    map[t->name] = t < middle ? "a.safetensors" : "b.safetensors";
  }
  std::filesystem::remove(folder / "model.safetensors");
  const json index = {{"weight_map", map}};
  write_file(folder / kIndex, index.dump());
  return index;
}

void check_tiny_model(const ModelFile& model) {
  CHECK(model.config().layer_count == 2);
  CHECK(model.tokenizer().pieces.size() == 6);
  CHECK(model.tensors().size() == tiny_hf_tensors().size());
  const Tensor& down = *value_of(model.find("blk.1.ffn_down.weight"));
  CHECK(down.shape == std::vector<uint64_t>{8, 12});
  Matrix row(1, 12);
  REQUIRE(read_rows(down, 7, row.view()));
  CHECK(row.row(0)[11] == 95);
}

TEST_CASE("a folder with one weight file opens under GGUF's names", "[model][hf]") {
  const test::TempFolder folder;
  write_tiny_hf_folder(folder.path());
  const auto model = value_of(ModelFile::open(folder.path()));
  check_tiny_model(*model);
  const auto missing = model->find("blk.0.attn_q.bias");
  CHECK_FAILS_WITH(missing, ErrorCode::kNotFound);
}

TEST_CASE("a folder with several weight files opens through its index", "[model][hf]") {
  const test::TempFolder folder;
  write_tiny_hf_folder(folder.path());
  write_shards(folder.path());
  check_tiny_model(*value_of(ModelFile::open(folder.path())));
}

TEST_CASE("companion files add the chat template and more ends", "[model][hf]") {
  const test::TempFolder folder;
  write_tiny_hf_folder(folder.path());
  write_file(folder.path() / "tokenizer_config.json", R"({"chat_template": "old"})");
  write_file(folder.path() / "generation_config.json", R"({"eos_token_id": [2, 4]})");
  const auto model = value_of(ModelFile::open(folder.path()));
  CHECK(model->tokenizer().chat_template == "old");
  CHECK(model->tokenizer().end_of_generation == std::vector<int32_t>{0, 2, 4});
  write_file(folder.path() / "chat_template.jinja", "new");
  CHECK(value_of(ModelFile::open(folder.path()))->tokenizer().chat_template == "new");
}

TEST_CASE("a folder without a tokenizer has an empty vocabulary", "[model][hf]") {
  const test::TempFolder folder;
  write_tiny_hf_folder(folder.path());
  std::filesystem::remove(folder.path() / "tokenizer.json");
  CHECK(value_of(ModelFile::open(folder.path()))->tokenizer().pieces.empty());
}

TEST_CASE("the rotation tables of old files are not weights", "[model][hf]") {
  const test::TempFolder folder;
  write_tiny_hf_folder(folder.path());
  std::vector<HfTensor> tensors = tiny_hf_tensors();
  tensors.push_back({"model.layers.0.self_attn.rotary_emb.inv_freq", {2}});
  write_file(folder.path() / "model.safetensors", safetensors_bytes(tensors));
  check_tiny_model(*value_of(ModelFile::open(folder.path())));
}

TEST_CASE("half a folder is refused by what is missing", "[model][hf][broken]") {
  const test::TempFolder folder;
  write_tiny_hf_folder(folder.path());
  const std::string name = GENERATE("config.json", "model.safetensors");
  std::filesystem::remove(folder.path() / name);
  const auto result = ModelFile::open(folder.path());
  CHECK_FAILS_WITH(result, ErrorCode::kNotFound);
  CHECK(result.error().message.find(name) != std::string::npos);
}

TEST_CASE("a weight that is not part of the model is refused", "[model][hf][broken]") {
  const std::string name =
      GENERATE("model.layers.0.mlp.gate_proj.bias", "model.layers.2.mlp.gate_proj.weight",
               "model.layers.0.self_attn.q_norm.weight", "model.layers.1.self_attn.k_proj.bias",
               "model.layers.0.self_attn.o_proj.bias", "vision.patch.weight");
  const test::TempFolder folder;
  write_tiny_hf_folder(folder.path());
  std::vector<HfTensor> tensors = tiny_hf_tensors();
  tensors.push_back({name, {8}});
  write_file(folder.path() / "model.safetensors", safetensors_bytes(tensors));
  const auto result = ModelFile::open(folder.path());
  CHECK_FAILS_WITH(result, ErrorCode::kUnsupported);
  CHECK(result.error().message.find(name) != std::string::npos);
}

TEST_CASE("a vocabulary larger than the head is refused", "[model][hf][broken]") {
  const test::TempFolder folder;
  write_tiny_hf_folder(folder.path());
  json config = test::tiny_hf_config();
  config["vocab_size"] = 5;
  write_file(folder.path() / "config.json", config.dump());
  CHECK_FAILS_WITH(ModelFile::open(folder.path()), ErrorCode::kCorrupt);
}

TEST_CASE("a broken index is refused", "[model][hf][broken]") {
  const test::TempFolder folder;
  write_tiny_hf_folder(folder.path());
  json index = write_shards(folder.path());
  const std::string first = "lm_head.weight";
  const auto open_with = [&](const json& changed) {
    write_file(folder.path() / kIndex, changed.dump());
    return ModelFile::open(folder.path());
  };
  REQUIRE(open_with(index));
  CHECK_FAILS_WITH(open_with(json{{"metadata", {}}}), ErrorCode::kNotFound);
  CHECK_FAILS_WITH(open_with(json{{"weight_map", 3}}), ErrorCode::kCorrupt);

  SECTION("a shard that is no name of a file beside it") {
    for (const json& shard : {json("../a.safetensors"), json("/etc/passwd"), json(""), json(".."),
                              json("x/a.safetensors"), json(3)}) {
      CAPTURE(shard.dump());
      index["weight_map"][first] = shard;
      CHECK_FAILS_WITH(open_with(index), ErrorCode::kCorrupt);
    }
  }
  SECTION("a shard that is not there") {
    std::filesystem::remove(folder.path() / "b.safetensors");
    CHECK_FAILS_WITH(open_with(index), ErrorCode::kNotFound);
  }
  SECTION("a tensor in another shard than said") {
    index["weight_map"][first] = "b.safetensors";
    CHECK_FAILS_WITH(open_with(index), ErrorCode::kCorrupt);
  }
  SECTION("a tensor in no shard") {
    index["weight_map"]["model.layers.0.self_attn.q_proj.bias"] = "a.safetensors";
    CHECK_FAILS_WITH(open_with(index), ErrorCode::kNotFound);
  }
  SECTION("a tensor in a shard that the index does not name") {
    index["weight_map"].erase(first);
    CHECK_FAILS_WITH(open_with(index), ErrorCode::kCorrupt);
  }
  SECTION("bytes that are no JSON") {
    write_file(folder.path() / kIndex, "{\"weight_map\": {");
    CHECK_FAILS_WITH(ModelFile::open(folder.path()), ErrorCode::kCorrupt);
  }
}

}  // namespace
}  // namespace isthmus::model
