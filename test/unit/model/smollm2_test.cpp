// The default model's file, against what the gguf package reads (tools/refgen/tensors.py).
#include <isthmus/model/fingerprint.h>
#include <isthmus/model/model_file.h>

#include <fstream>
#include <string>
#include <vector>

#include "support/catch.h"
#include "support/temp_folder.h"

namespace isthmus::model {
namespace {

using test::value_of;

struct GoldenRow {
  std::string name;
  uint32_t row = 0;
  std::vector<float> values;
};

uint32_t read_u32(std::ifstream& in) {
  uint32_t value = 0;
  in.read(reinterpret_cast<char*>(&value), sizeof value);
  return value;
}

std::vector<GoldenRow> load_golden() {
  std::ifstream in(ISTHMUS_TEST_DATA "/smollm2_rows.bin", std::ios::binary);
  std::vector<GoldenRow> rows;
  while (in.peek() != std::ifstream::traits_type::eof()) {
    GoldenRow golden;
    golden.name.resize(read_u32(in));
    in.read(golden.name.data(), static_cast<std::streamsize>(golden.name.size()));
    golden.row = read_u32(in);
    golden.values.resize(read_u32(in));
    in.read(reinterpret_cast<char*>(golden.values.data()),
            static_cast<std::streamsize>(golden.values.size() * sizeof(float)));
    REQUIRE(in.good());
    rows.push_back(std::move(golden));
  }
  return rows;
}

void check_rows(const ModelFile& model, const std::vector<GoldenRow>& rows) {
  for (const GoldenRow& golden : rows) {
    CAPTURE(golden.name);
    const Tensor& tensor = *value_of(model.find(golden.name));
    Matrix row(1, golden.values.size());
    REQUIRE(read_rows(tensor, golden.row, row.view()));
    for (size_t i = 0; i < golden.values.size(); ++i) REQUIRE(row.row(0)[i] == golden.values[i]);
  }
}

TEST_CASE("SmolLM2's config and vocabulary are those of its file", "[model][smollm2]") {
  const auto model = value_of(ModelFile::open(ISTHMUS_TEST_MODEL));
  const ModelConfig& config = model->config();
  CHECK(config.architecture == "llama");
  CHECK(config.layer_count == 30);
  CHECK(config.hidden_size == 576);
  CHECK(config.head_count == 9);
  CHECK(config.kv_head_count == 3);
  CHECK(config.head_size == 64);
  CHECK(config.mlp_size == 1536);
  CHECK(config.vocab_size == 49152);
  CHECK(config.context_length == 8192);
  CHECK(config.tied_head);
  CHECK(config.attention_scale == 0.125F);
  const text::TokenizerSpec& spec = model->tokenizer();
  CHECK(spec.pre_tokenizer == "smollm");
  CHECK(spec.pieces.size() == 49152);
  CHECK(spec.merges.size() == 48900);
  CHECK(spec.bos == 1);
  CHECK(spec.eos == 2);
  CHECK(spec.end_of_generation == std::vector<int32_t>{0, 2});
  CHECK_FALSE(spec.add_bos);
}

TEST_CASE("SmolLM2's weights are those the gguf package reads", "[model][smollm2]") {
  const auto golden = load_golden();
  REQUIRE(golden.size() == 6);
  check_rows(*value_of(ModelFile::open(ISTHMUS_TEST_MODEL)), golden);
}

TEST_CASE("SmolLM2's fingerprint is the one that tools/refgen/fingerprint.py prints",
          "[model][smollm2]") {
  const auto model = value_of(ModelFile::open(ISTHMUS_TEST_MODEL));
  ThreadPool pool;
  CHECK(value_of(fingerprint(*model, pool)).to_string() ==
        "6e6d64d98ff5f5eafe9d7a6159f896f5e22c74f46465cfb77a047215fe224830");
}

TEST_CASE("a slice of SmolLM2 is smaller and has the same weights", "[model][smollm2]") {
  const test::TempFolder folder;
  const auto path = folder.path() / "back.gguf";
  value_of(write_slice(ISTHMUS_TEST_MODEL, {.layers = {{29, 30}}, .head = true}, path));
  CHECK(std::filesystem::file_size(path) < 40'000'000);
  const auto slice = value_of(ModelFile::open(path));
  CHECK(slice->tokenizer().pieces.size() == 49152);
  auto golden = load_golden();
  std::erase_if(golden, [&](const GoldenRow& row) { return !slice->find(row.name); });
  CHECK(golden.size() == 4);
  check_rows(*slice, golden);
}

}  // namespace
}  // namespace isthmus::model
