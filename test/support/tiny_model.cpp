#include "support/tiny_model.h"

#include <isthmus/core/random.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <utility>

#include "support/catch.h"

namespace isthmus::test {
namespace {

/// FNV-1a, 64 bits.
uint64_t name_seed(std::string_view name) {
  uint64_t seed = 0xcbf29ce484222325ULL;
  for (const char c : name) {
    seed = (seed ^ static_cast<unsigned char>(c)) * 0x100000001b3ULL;
  }
  return seed;
}

uint32_t sixteen_bits(uint64_t seed, uint64_t i) {
  return static_cast<uint32_t>(counter_uniform(seed, i) * 65536);
}

bool contains(std::string_view text, std::string_view part) {
  return text.find(part) != std::string_view::npos;
}

std::vector<float> angles(int32_t head_size, double base) {
  std::vector<float> result(static_cast<size_t>(head_size / 2));
  for (size_t i = 0; i < result.size(); ++i) {
    result[i] = static_cast<float>(std::pow(base, -2.0 * static_cast<double>(i) / head_size));
  }
  return result;
}

model::ModelConfig base_config() {
  model::ModelConfig config;
  config.architecture = "llama";
  config.layer_count = 4;
  config.hidden_size = 60;
  config.head_count = 4;
  config.kv_head_count = 2;
  config.head_size = 18;
  config.mlp_size = 70;
  config.vocab_size = 51;
  config.context_length = 64;
  config.attention_scale = 1 / std::sqrt(18.0F);
  config.rope_global = angles(18, 10000);
  config.layers.resize(4);
  return config;
}

/// What write_tiny_folder reads of config.json.
struct FolderConfig {
  explicit FolderConfig(const nlohmann::json& json)
      : type(json.at("model_type")),
        layers(json.at("num_hidden_layers")),
        hidden(json.at("hidden_size")),
        heads(json.at("num_attention_heads")),
        kv_heads(json.at("num_key_value_heads")),
        head_size(json.value("head_dim", hidden / heads)),
        mlp(json.at("intermediate_size")),
        vocab(json.at("vocab_size")),
        tied(json.value("tie_word_embeddings", type == "gemma3_text")),
        bias(json.value("attention_bias", type == "qwen2")),
        outliers(json.value("isthmus_test_outliers", false)) {}

  std::string type;
  uint64_t layers;
  uint64_t hidden;
  uint64_t heads;
  uint64_t kv_heads;
  uint64_t head_size;
  uint64_t mlp;
  uint64_t vocab;
  bool tied;
  bool bias;
  bool outliers;
};

using Shapes = std::vector<std::pair<std::string, std::vector<uint64_t>>>;

void add_folder_layer(const FolderConfig& c, const std::string& prefix, Shapes& shapes) {
  const std::string attn = prefix + "self_attn.";
  const uint64_t q = c.heads * c.head_size;
  const uint64_t kv = c.kv_heads * c.head_size;
  const auto linear = [&](const std::string& name, uint64_t out, uint64_t in, bool bias) {
    shapes.push_back({name + ".weight", {out, in}});
    if (bias) shapes.push_back({name + ".bias", {out}});
  };
  const bool gemma = c.type == "gemma3_text";
  shapes.push_back({prefix + "input_layernorm.weight", {c.hidden}});
  linear(attn + "q_proj", q, c.hidden, c.bias);
  linear(attn + "k_proj", kv, c.hidden, c.bias);
  linear(attn + "v_proj", kv, c.hidden, c.bias);
  linear(attn + "o_proj", c.hidden, q, c.bias && c.type != "qwen2");
  if (gemma || c.type == "qwen3") {
    shapes.push_back({attn + "q_norm.weight", {c.head_size}});
    shapes.push_back({attn + "k_norm.weight", {c.head_size}});
  }
  shapes.push_back({prefix + "post_attention_layernorm.weight", {c.hidden}});
  if (gemma) {
    shapes.push_back({prefix + "pre_feedforward_layernorm.weight", {c.hidden}});
    shapes.push_back({prefix + "post_feedforward_layernorm.weight", {c.hidden}});
  }
  linear(prefix + "mlp.gate_proj", c.mlp, c.hidden, false);
  linear(prefix + "mlp.up_proj", c.mlp, c.hidden, false);
  linear(prefix + "mlp.down_proj", c.hidden, c.mlp, false);
}

Shapes folder_shapes(const FolderConfig& c) {
  Shapes shapes = {{"model.embed_tokens.weight", {c.vocab, c.hidden}},
                   {"model.norm.weight", {c.hidden}}};
  if (!c.tied) shapes.push_back({"lm_head.weight", {c.vocab, c.hidden}});
  for (uint64_t layer = 0; layer < c.layers; ++layer) {
    add_folder_layer(c, "model.layers." + std::to_string(layer) + ".", shapes);
  }
  return shapes;
}

/// The few huge weights that drive activations past a million.
void add_outliers(std::string_view name, uint64_t cols, std::vector<float>& weights) {
  if (contains(name, "embed_tokens")) {
    for (size_t i = 1 * cols + 5; i < weights.size(); i += 4 * cols) weights[i] *= 0x1p21F;
  }
  if (name.ends_with("layers.1.mlp.down_proj.weight")) {
    for (size_t i = 7 * cols; i < 8 * cols; ++i) weights[i] *= 4096;
  }
}

void write_safetensors(const FolderConfig& config, const std::filesystem::path& path) {
  nlohmann::json header;
  std::vector<float> data;
  for (const auto& [name, shape] : folder_shapes(config)) {
    uint64_t count = 1;
    for (const uint64_t size : shape) count *= size;
    std::vector<float> weights = tiny_weights(name, count);
    if (config.outliers) add_outliers(name, shape.back(), weights);
    const size_t begin = data.size() * sizeof(float);
    data.insert(data.end(), weights.begin(), weights.end());
    header[name] = {
        {"dtype", "F32"}, {"shape", shape}, {"data_offsets", {begin, data.size() * sizeof(float)}}};
  }
  const std::string text = header.dump();
  const uint64_t length = text.size();
  std::ofstream out(path, std::ios::binary);
  out.write(reinterpret_cast<const char*>(&length), sizeof length);
  out.write(text.data(), static_cast<std::streamsize>(text.size()));
  out.write(reinterpret_cast<const char*>(data.data()),
            static_cast<std::streamsize>(data.size() * sizeof(float)));
  REQUIRE(out.good());
}

/// A byte-level vocabulary of made-up words.
void write_tokenizer(const FolderConfig& config, const std::filesystem::path& path) {
  nlohmann::json vocab;
  for (uint64_t id = 0; id < config.vocab; ++id) vocab[std::to_string(id) + "w"] = id;
  const nlohmann::json byte_level = {
      {"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", true}};
  const nlohmann::json tokenizer = {
      {"version", "1.0"},
      {"added_tokens", nlohmann::json::array()},
      {"pre_tokenizer", byte_level},
      {"decoder", byte_level},
      {"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", nlohmann::json::array()}}}};
  std::ofstream out(path);
  out << tokenizer.dump();
  REQUIRE(out.good());
}

}  // namespace

std::vector<float> tiny_weights(std::string_view name, size_t count) {
  const uint64_t seed = name_seed(name);
  const bool norm = contains(name, "norm");
  const bool embedding = contains(name, "embed_tokens") || contains(name, "token_embd");
  const bool bias = name.ends_with(".bias");
  std::vector<float> weights(count);
  for (size_t i = 0; i < count; ++i) {
    const float u = (static_cast<float>(sixteen_bits(seed, i)) - 32768) / 32768;
    if (norm) {
      weights[i] = 1 + u / 4;
    } else {
      weights[i] = embedding ? u : u / (bias ? 2.0F : 4.0F);
    }
  }
  return weights;
}

std::vector<int32_t> tiny_tokens(size_t count, int32_t vocab_size) {
  std::vector<int32_t> tokens(count);
  for (size_t i = 0; i < count; ++i) {
    tokens[i] = static_cast<int32_t>(sixteen_bits(name_seed("tokens"), i) %
                                     static_cast<uint32_t>(vocab_size));
  }
  return tokens;
}

std::vector<NamedConfig> tiny_configs() {
  model::ModelConfig plain = base_config();

  model::ModelConfig biased = base_config();
  biased.rope_pairs = model::RopePairs::kHalfApart;
  biased.qkv_bias = true;
  biased.output_bias = true;
  biased.tied_head = true;
  biased.kv_head_count = 4;

  model::ModelConfig windowed = base_config();
  for (auto& layer : windowed.layers) layer.window = 5;

  model::ModelConfig everything = base_config();
  everything.rope_pairs = model::RopePairs::kHalfApart;
  everything.activation = model::Activation::kGeluTanh;
  everything.norm_weight_offset = 1;
  everything.embedding_scale = std::sqrt(60.0F);
  everything.attention_softcap = 3;
  everything.final_softcap = 20;
  everything.qk_norm = true;
  everything.post_norms = true;
  everything.tied_head = true;
  everything.kv_head_count = 1;
  everything.rope_local = angles(18, 100);
  for (const size_t layer : {0, 2}) everything.layers[layer] = {.window = 4, .local_rope = true};

  return {{"plain", plain}, {"biased", biased}, {"windowed", windowed}, {"everything", everything}};
}

TinyModel::TinyModel(model::ModelConfig config) : config_(std::move(config)) {
  const auto hidden = static_cast<uint64_t>(config_.hidden_size);
  const auto vocab = static_cast<uint64_t>(config_.vocab_size);
  add("token_embd.weight", {vocab, hidden});
  for (int32_t layer = 0; layer < config_.layer_count; ++layer) add_layer(layer);
  add("output_norm.weight", {hidden});
  if (!config_.tied_head) add("output.weight", {vocab, hidden});
}

void TinyModel::add_layer(int32_t layer) {
  const std::string blk = "blk." + std::to_string(layer) + ".";
  const auto d = static_cast<uint64_t>(config_.hidden_size);
  const auto head = static_cast<uint64_t>(config_.head_size);
  const auto q = static_cast<uint64_t>(config_.head_count) * head;
  const auto kv = static_cast<uint64_t>(config_.kv_head_count) * head;
  const auto mlp = static_cast<uint64_t>(config_.mlp_size);
  add(blk + "attn_norm.weight", {d});
  add(blk + "attn_q.weight", {q, d});
  add(blk + "attn_k.weight", {kv, d});
  add(blk + "attn_v.weight", {kv, d});
  add(blk + "attn_output.weight", {d, q});
  if (config_.qkv_bias) {
    add(blk + "attn_q.bias", {q});
    add(blk + "attn_k.bias", {kv});
    add(blk + "attn_v.bias", {kv});
  }
  if (config_.output_bias) add(blk + "attn_output.bias", {d});
  if (config_.qk_norm) {
    add(blk + "attn_q_norm.weight", {head});
    add(blk + "attn_k_norm.weight", {head});
  }
  if (config_.post_norms) {
    add(blk + "post_attention_norm.weight", {d});
    add(blk + "post_ffw_norm.weight", {d});
  }
  add(blk + "ffn_norm.weight", {d});
  add(blk + "ffn_gate.weight", {mlp, d});
  add(blk + "ffn_up.weight", {mlp, d});
  add(blk + "ffn_down.weight", {d, mlp});
}

void TinyModel::add(std::string name, std::vector<uint64_t> shape) {
  size_t count = 1;
  for (const uint64_t size : shape) count *= size;
  values_.push_back(tiny_weights(name, count));
  model::Tensor tensor;
  tensor.name = std::move(name);
  tensor.shape = std::move(shape);
  tensor.data = std::as_bytes(std::span(values_.back()));
  tensors_.push_back(std::move(tensor));
}

Result<const model::Tensor*> TinyModel::find(std::string_view name) const {
  for (const model::Tensor& tensor : tensors_) {
    if (tensor.name == name) return &tensor;
  }
  return fail(ErrorCode::kNotFound, "tiny model: no tensor '" + std::string(name) + "'");
}

void TinyModel::remove(std::string_view name) {
  const auto erased =
      std::erase_if(tensors_, [name](const model::Tensor& tensor) { return tensor.name == name; });
  REQUIRE(erased == 1);
}

void TinyModel::set(std::string_view name, size_t index, float value) {
  const auto tensor = std::find_if(tensors_.begin(), tensors_.end(),
                                   [name](const model::Tensor& t) { return t.name == name; });
  REQUIRE(tensor != tensors_.end());
  values_[static_cast<size_t>(tensor - tensors_.begin())][index] = value;
}

void TinyModel::reshape(std::string_view name, std::vector<uint64_t> shape) {
  const auto tensor = std::find_if(tensors_.begin(), tensors_.end(),
                                   [name](const model::Tensor& t) { return t.name == name; });
  REQUIRE(tensor != tensors_.end());
  tensor->shape = std::move(shape);
}

model::Part whole_model(const model::ModelConfig& config) {
  model::Part part;
  part.layers = {{0, config.layer_count}};
  part.embedding = true;
  part.head = true;
  return part;
}

void write_tiny_folder(const std::filesystem::path& config_json,
                       const std::filesystem::path& folder) {
  std::filesystem::copy_file(config_json, folder / "config.json");
  std::ifstream in(config_json);
  const FolderConfig config(nlohmann::json::parse(in));
  write_safetensors(config, folder / "model.safetensors");
  write_tokenizer(config, folder / "tokenizer.json");
}

}  // namespace isthmus::test
