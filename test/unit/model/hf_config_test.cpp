#include "hf_config.h"

#include <cmath>
#include <vector>

#include "hf_files.h"
#include "support/catch.h"

namespace isthmus::model {
namespace {

using nlohmann::json;
using test::tiny_hf_config;
using test::value_of;

ModelConfig config_of(const json& document) {
  return value_of(read_hf_config(document)).config;
}

json with(json document, const json& changes) {
  document.merge_patch(changes);
  return document;
}

std::vector<int32_t> windows(const ModelConfig& config) {
  std::vector<int32_t> result;
  for (const LayerAttention& layer : config.layers) result.push_back(layer.window);
  return result;
}

json tiny_gemma() {
  json document = with(tiny_hf_config(), {{"model_type", "gemma3_text"},
                                          {"num_hidden_layers", 7},
                                          {"head_dim", 4},
                                          {"hidden_activation", "gelu_pytorch_tanh"},
                                          {"query_pre_attn_scalar", 16},
                                          {"sliding_window", 12},
                                          {"rope_theta", 1e6},
                                          {"rope_local_base_freq", 100.0}});
  document.erase("hidden_act");
  document.erase("tie_word_embeddings");
  return document;
}

TEST_CASE("a llama config gives sizes and traits", "[model][hf]") {
  const ModelConfig config = config_of(tiny_hf_config());
  CHECK(config.architecture == "llama");
  CHECK(config.layer_count == 2);
  CHECK(config.hidden_size == 8);
  CHECK(config.head_count == 2);
  CHECK(config.kv_head_count == 1);
  CHECK(config.head_size == 4);
  CHECK(config.mlp_size == 12);
  CHECK(config.vocab_size == 6);
  CHECK(config.context_length == 32);
  CHECK(config.norm_epsilon == 1e-5F);
  CHECK(config.norm_weight_offset == 0);
  CHECK(config.attention_scale == 0.5F);
  CHECK(config.embedding_scale == 1);
  CHECK_FALSE(config.tied_head);
  CHECK_FALSE(config.qkv_bias);
  CHECK_FALSE(config.output_bias);
  CHECK(config.rope_pairs == RopePairs::kHalfApart);
  CHECK(config.rope_global == rope_angles(4, 500));
  CHECK(windows(config) == std::vector<int32_t>{0, 0});
}

TEST_CASE("a null number of KV heads means one for each head", "[model][hf]") {
  json document = tiny_hf_config();
  document["num_key_value_heads"] = nullptr;
  CHECK(config_of(document).kv_head_count == 2);
}

TEST_CASE("attention_bias puts a bias on every attention product", "[model][hf]") {
  const ModelConfig config = config_of(with(tiny_hf_config(), {{"attention_bias", true}}));
  CHECK(config.qkv_bias);
  CHECK(config.output_bias);
}

TEST_CASE("rope parameters read alike in the forms of transformers 4 and 5", "[model][hf][rope]") {
  const json scaling = {{"rope_type", "llama3"},
                        {"factor", 8.0},
                        {"low_freq_factor", 1.0},
                        {"high_freq_factor", 4.0},
                        {"original_max_position_embeddings", 32}};
  std::vector<float> expected = rope_angles(4, 500);
  scale_llama3(expected,
               {.factor = 8, .low_freq_factor = 1, .high_freq_factor = 4, .original_context = 32});
  CHECK(expected != rope_angles(4, 500));
  CHECK(config_of(with(tiny_hf_config(), {{"rope_scaling", scaling}})).rope_global == expected);

  json parameters = scaling;
  parameters["rope_theta"] = 500.0;
  json document = with(tiny_hf_config(), {{"rope_parameters", parameters}});
  document.erase("rope_theta");
  CHECK(config_of(document).rope_global == expected);

  parameters.erase("original_max_position_embeddings");  // then max_position_embeddings
  document["rope_parameters"] = parameters;
  CHECK(config_of(document).rope_global == expected);
}

TEST_CASE("linear scaling divides, under its old name too", "[model][hf][rope]") {
  const std::vector<float> plain = rope_angles(4, 500);
  const char* key = GENERATE("type", "rope_type");
  const json document =
      with(tiny_hf_config(), {{"rope_scaling", {{key, "linear"}, {"factor", 2}}}});
  CHECK(config_of(document).rope_global == std::vector<float>{plain[0] / 2, plain[1] / 2});
}

TEST_CASE("Mistral is a llama with a window", "[model][hf]") {
  json document = with(tiny_hf_config(), {{"model_type", "mistral"}, {"sliding_window", 16}});
  CHECK(config_of(document).architecture == "llama");
  CHECK(windows(config_of(document)) == std::vector<int32_t>{16, 16});
  document["sliding_window"] = nullptr;
  CHECK(windows(config_of(document)) == std::vector<int32_t>{0, 0});
  document.erase("sliding_window");
  CHECK(windows(config_of(document)) == std::vector<int32_t>{4096, 4096});
}

TEST_CASE("Qwen's window counts only when it is turned on", "[model][hf]") {
  const std::string type = GENERATE("qwen2", "qwen3");
  json document = with(
      tiny_hf_config(),
      {{"model_type", type}, {"head_dim", 4}, {"sliding_window", 16}, {"max_window_layers", 1}});
  const ModelConfig off = config_of(document);
  CHECK(off.qkv_bias == (type == "qwen2"));
  CHECK(off.qk_norm == (type == "qwen3"));
  CHECK(windows(off) == std::vector<int32_t>{0, 0});
  document["use_sliding_window"] = true;
  CHECK(windows(config_of(document)) == std::vector<int32_t>{0, 16});
  document["layer_types"] = {"sliding_attention", "full_attention"};
  CHECK(windows(config_of(document)) == std::vector<int32_t>{16, 0});
}

TEST_CASE("a Gemma 3 config gives its traits", "[model][hf]") {
  const ModelConfig config = config_of(tiny_gemma());
  CHECK(config.architecture == "gemma3");
  CHECK(config.activation == Activation::kGeluTanh);
  CHECK(config.norm_weight_offset == 1);
  CHECK(config.qk_norm);
  CHECK(config.post_norms);
  CHECK(config.tied_head);
  CHECK(config.embedding_scale == std::sqrt(8.0F));
  CHECK(config.attention_scale == 0.25F);
  CHECK(windows(config) == std::vector<int32_t>{12, 12, 12, 12, 12, 0, 12});
  CHECK(config.layers[0].local_rope);
  CHECK_FALSE(config.layers[5].local_rope);
  CHECK(config.rope_global == rope_angles(4, 1e6F));
  CHECK(config.rope_local == rope_angles(4, 100));
}

TEST_CASE("Gemma's layer pattern and both ropes read in every form", "[model][hf][rope]") {
  std::vector<float> scaled = rope_angles(4, 1e6F);
  for (float& angle : scaled) angle /= 8;
  const std::vector<int32_t> expected = {12, 12, 0, 12, 12, 0, 12};
  json old_form = with(tiny_gemma(), {{"sliding_window_pattern", 3},
                                      {"rope_scaling", {{"rope_type", "linear"}, {"factor", 8}}}});
  json new_form = tiny_gemma();
  new_form.erase("rope_theta");
  new_form.erase("rope_local_base_freq");
  new_form["rope_parameters"] = {
      {"full_attention", {{"rope_type", "linear"}, {"factor", 8}, {"rope_theta", 1e6}}},
      {"sliding_attention", {{"rope_type", "default"}, {"rope_theta", 100.0}}}};
  new_form["layer_types"] = json::array();
  for (const int32_t window : expected) {
    new_form["layer_types"].push_back(window > 0 ? "sliding_attention" : "full_attention");
  }
  for (const json& document : {old_form, new_form}) {
    const ModelConfig config = config_of(document);
    CHECK(windows(config) == expected);
    CHECK(config.rope_global == scaled);
    CHECK(config.rope_local == rope_angles(4, 100));
  }
}

TEST_CASE("a broken or unknown config is refused by name", "[model][hf][broken]") {
  struct Case {
    json changes;
    ErrorCode code;
    std::string named;
  };
  const auto rope = [](const json& scaling) { return json{{"rope_scaling", scaling}}; };
  const json llama3 = {
      {"rope_type", "llama3"}, {"factor", 8}, {"low_freq_factor", 1}, {"high_freq_factor", 4}};
  const std::vector<Case> cases = {
      {{{"model_type", "gpt_neox"}}, ErrorCode::kUnsupported, "'gpt_neox'"},
      {{{"model_type", ""}}, ErrorCode::kUnsupported, "''"},
      {{{"model_type", 3}}, ErrorCode::kCorrupt, "model_type"},
      {{{"hidden_act", "relu"}}, ErrorCode::kUnsupported, "'relu'"},
      {{{"hidden_size", "8"}}, ErrorCode::kCorrupt, "hidden_size"},
      {{{"hidden_size", 8.5}}, ErrorCode::kCorrupt, "hidden_size"},
      {{{"hidden_size", 1ULL << 40U}}, ErrorCode::kCorrupt, "hidden_size"},
      {{{"hidden_size", -8}}, ErrorCode::kCorrupt, "hidden_size"},
      {{{"hidden_size", UINT64_MAX}}, ErrorCode::kCorrupt, "hidden_size"},
      {{{"num_hidden_layers", 1 << 20}}, ErrorCode::kCorrupt, "layer_count"},
      {{{"num_attention_heads", 0}}, ErrorCode::kCorrupt, "head_count"},
      {{{"num_key_value_heads", 3}}, ErrorCode::kCorrupt, "kv_head_count"},
      {{{"head_dim", 1 << 30}}, ErrorCode::kCorrupt, "head_size"},
      {{{"vocab_size", true}}, ErrorCode::kCorrupt, "vocab_size"},
      {{{"rms_norm_eps", "1e-5"}}, ErrorCode::kCorrupt, "rms_norm_eps"},
      {{{"rms_norm_eps", 1e300}}, ErrorCode::kCorrupt, "rms_norm_eps"},
      {{{"rope_theta", 0}}, ErrorCode::kCorrupt, "rope"},
      {{{"rope_scaling", 3}}, ErrorCode::kCorrupt, "rope_scaling"},
      {{{"tie_word_embeddings", 1}}, ErrorCode::kCorrupt, "tie_word_embeddings"},
      {{{"use_bidirectional_attention", true}}, ErrorCode::kUnsupported, "bidirectional"},
      {rope({{"rope_type", "yarn"}, {"factor", 4}}), ErrorCode::kUnsupported, "'yarn'"},
      {rope({{"rope_type", "linear"}}), ErrorCode::kNotFound, "factor"},
      {rope({{"rope_type", "linear"}, {"factor", 0}}), ErrorCode::kCorrupt, "factor"},
      {rope({{"partial_rotary_factor", 0.5}}), ErrorCode::kUnsupported, "partial_rotary_factor"},
      {rope(with(llama3, {{"high_freq_factor", 1}})), ErrorCode::kCorrupt, "high_freq_factor"},
      {rope(with(llama3, {{"low_freq_factor", nullptr}})), ErrorCode::kNotFound, "low_freq_factor"},
      {{{"model_type", "mistral"}, {"sliding_window", -1}}, ErrorCode::kCorrupt, "window"},
      {{{"model_type", "mistral"}, {"layer_types", {"chunked_attention", "x"}}},
       ErrorCode::kUnsupported,
       "layer_types"},
      {{{"model_type", "mistral"}, {"layer_types", {"full_attention"}}},
       ErrorCode::kCorrupt,
       "layer traits"},
      {{{"model_type", "mistral"}, {"layer_types", "full_attention"}},
       ErrorCode::kCorrupt,
       "layer_types"},
  };
  for (const Case& broken : cases) {
    CAPTURE(broken.changes.dump());
    const auto result = read_hf_config(with(tiny_hf_config(), broken.changes));
    CHECK_FAILS_WITH(result, broken.code);
    CAPTURE(result.error().message);
    CHECK(result.error().message.find(broken.named) != std::string::npos);
  }
  for (const std::string key :
       {"model_type", "num_hidden_layers", "hidden_size", "intermediate_size", "vocab_size",
        "max_position_embeddings", "num_attention_heads", "rms_norm_eps"}) {
    CAPTURE(key);
    json document = tiny_hf_config();
    document.erase(key);
    const auto result = read_hf_config(document);
    CHECK_FAILS_WITH(result, ErrorCode::kNotFound);
    CHECK(result.error().message.find(key) != std::string::npos);
  }
}

}  // namespace
}  // namespace isthmus::model
