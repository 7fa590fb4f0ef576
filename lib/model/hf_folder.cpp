// A Hugging Face folder as a model: config.json, tokenizer.json and its companions, and safetensors
// in one file or in several with an index.
#include <isthmus/model/safetensors.h>

#include <algorithm>
#include <iterator>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "architecture.h"
#include "hf_config.h"
#include "hf_tokenizer.h"
#include "json_object.h"
#include "loaded_model.h"
#include "quote.h"
#include "vocabulary.h"

namespace isthmus::model {
namespace {

using nlohmann::json;
using std::filesystem::path;

constexpr const char* kWeights = "model.safetensors";
constexpr const char* kIndex = "model.safetensors.index.json";

// Nothing for a file that is not there.
Result<std::optional<MappedFile>> map_if_there(const path& file) {
  auto mapped = MappedFile::open(file);
  if (!mapped && mapped.error().code == ErrorCode::kNotFound) return std::optional<MappedFile>();
  if (!mapped) return propagate(std::move(mapped));
  return std::optional(std::move(*mapped));
}

// An empty object for a file that is not there.
Result<json> read_json_if_there(const path& file) {
  ISTHMUS_ASSIGN(const auto mapped, map_if_there(file));
  if (!mapped) return json::object();
  return parse_json(mapped->bytes(), file.filename().string());
}

Result<json> read_config_json(const path& folder) {
  ISTHMUS_ASSIGN(const auto mapped, MappedFile::open(folder / "config.json"));
  return parse_json(mapped.bytes(), "config.json");
}

Result<text::TokenizerSpec> read_tokenizer(const path& folder, const json& config) {
  HfTokenizerFiles files;
  ISTHMUS_ASSIGN(files.tokenizer, read_json_if_there(folder / "tokenizer.json"));
  if (files.tokenizer.empty()) return text::TokenizerSpec();
  ISTHMUS_ASSIGN(files.tokenizer_config, read_json_if_there(folder / "tokenizer_config.json"));
  ISTHMUS_ASSIGN(files.generation_config, read_json_if_there(folder / "generation_config.json"));
  files.config = config;
  ISTHMUS_ASSIGN(auto spec, read_hf_tokenizer(files));
  ISTHMUS_ASSIGN(const auto jinja, map_if_there(folder / "chat_template.jinja"));
  if (jinja) {
    const auto bytes = jinja->bytes();
    spec.chat_template.assign(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  }
  return spec;
}

// Which shard has which tensor, as the index says. Empty without an index.
Result<std::unordered_map<std::string, std::string>> read_index(const path& folder) {
  std::unordered_map<std::string, std::string> shards;
  ISTHMUS_ASSIGN(const auto document, read_json_if_there(folder / kIndex));
  if (document.empty()) return shards;
  const JsonObject index(document, kIndex);
  ISTHMUS_ASSIGN(const auto map, index.object("weight_map"));
  if (!map) return index.error(ErrorCode::kNotFound, "weight_map", "is missing");
  for (const auto& [name, value] : map->node().items()) {
    ISTHMUS_ASSIGN(auto shard, map->get<std::string>(name));
    // A shard is a file beside the index; anything else would reach out of the folder.
    if (shard.empty() || path(shard).filename() != path(shard) || shard == "..") {
      return map->error(ErrorCode::kCorrupt, name, "lies in " + quote(shard) + ", no file name");
    }
    shards.emplace(name, std::move(shard));
  }
  return shards;
}

struct Weights {
  std::vector<MappedFile> files;
  std::vector<Tensor> tensors;  // by their Hugging Face names
};

Status read_shard(const path& file, Weights& weights) {
  ISTHMUS_ASSIGN(auto mapped, MappedFile::open(file));
  ISTHMUS_ASSIGN(auto tensors, safetensors::parse(mapped.bytes()));
  weights.files.push_back(std::move(mapped));
  std::move(tensors.begin(), tensors.end(), std::back_inserter(weights.tensors));
  return {};
}

Result<Weights> read_sharded(const path& folder,
                             const std::unordered_map<std::string, std::string>& shard_of) {
  std::set<std::string> shards;
  for (const auto& [name, shard] : shard_of) shards.insert(shard);
  Weights weights;
  size_t found = 0;
  for (const std::string& shard : shards) {
    const size_t first = weights.tensors.size();
    ISTHMUS_TRY(read_shard(folder / shard, weights));
    for (size_t i = first; i < weights.tensors.size(); ++i) {
      const auto entry = shard_of.find(weights.tensors[i].name);
      if (entry == shard_of.end() || entry->second != shard) {
        return fail(ErrorCode::kCorrupt, "model: tensor " + quote(weights.tensors[i].name) +
                                             " is in " + quote(shard) +
                                             ", which the index does not say");
      }
      ++found;
    }
  }
  if (found == shard_of.size()) return weights;
  return fail(ErrorCode::kNotFound, "model: the index names " + std::to_string(shard_of.size()) +
                                        " tensors but its files have " + std::to_string(found));
}

Result<Weights> read_weights(const path& folder) {
  ISTHMUS_ASSIGN(const auto shards, read_index(folder));
  if (!shards.empty()) return read_sharded(folder, shards);
  Weights weights;
  ISTHMUS_TRY(read_shard(folder / kWeights, weights));
  return weights;
}

// Gives the tensors GGUF's names, and drops the rotation tables that old files carry.
Result<std::vector<Tensor>> rename(std::vector<Tensor> tensors, const HfConfig& read) {
  std::vector<Tensor> renamed;
  for (Tensor& tensor : tensors) {
    if (tensor.name.ends_with(".rotary_emb.inv_freq")) continue;
    auto name = gguf_tensor_name(read.config, tensor.name);
    if (!name || !is_known_tensor(read.config, *name)) {
      return fail(ErrorCode::kUnsupported,
                  "model: tensor " + quote(tensor.name) + " is not part of a " +
                      std::string(read.architecture->hf_type) + " model of " +
                      std::to_string(read.config.layer_count) + " layers");
    }
    tensor.name = std::move(*name);
    renamed.push_back(std::move(tensor));
  }
  return renamed;
}

}  // namespace

Result<std::shared_ptr<const ModelFile>> open_hf_folder(const path& folder) {
  ISTHMUS_ASSIGN(const auto document, read_config_json(folder));
  ISTHMUS_ASSIGN(auto read, read_hf_config(document));
  ModelParts parts;
  ISTHMUS_ASSIGN(parts.tokenizer, read_tokenizer(folder, document));
  ISTHMUS_TRY(check_vocabulary(parts.tokenizer, read.config.vocab_size));
  ISTHMUS_ASSIGN(auto weights, read_weights(folder));
  ISTHMUS_ASSIGN(parts.tensors, rename(std::move(weights.tensors), read));
  parts.config = std::move(read.config);
  return std::make_shared<const LoadedModel>(std::move(parts), std::move(weights.files));
}

}  // namespace isthmus::model
