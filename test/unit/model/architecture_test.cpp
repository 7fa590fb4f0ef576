#include "architecture.h"

#include <cmath>
#include <limits>

#include "config_limits.h"
#include "support/catch.h"

namespace isthmus::model {
namespace {

ModelConfig traits_of(std::string_view name) {
  ModelConfig config;
  apply_traits(*test::value_of(find_architecture(name)), config);
  return config;
}

ModelConfig small_config() {
  ModelConfig config;
  config.layer_count = 2;
  config.hidden_size = 8;
  config.head_count = 2;
  config.kv_head_count = 1;
  config.head_size = 4;
  config.mlp_size = 12;
  config.vocab_size = 6;
  config.context_length = 32;
  config.attention_scale = 0.5F;
  config.rope_global = rope_angles(4, 10000);
  config.layers.resize(2);
  return config;
}

TEST_CASE("Hugging Face's names map to GGUF's", "[model][architecture]") {
  ModelConfig llama = traits_of("llama");
  CHECK_FALSE(gguf_tensor_name(llama, "model.layers.17.self_attn.q_proj.bias").has_value());
  llama.qkv_bias = true;
  CHECK(gguf_tensor_name(llama, "model.embed_tokens.weight") == "token_embd.weight");
  CHECK(gguf_tensor_name(llama, "lm_head.weight") == "output.weight");
  CHECK(gguf_tensor_name(llama, "model.layers.17.self_attn.q_proj.bias") == "blk.17.attn_q.bias");
  CHECK(gguf_tensor_name(llama, "model.layers.3.post_attention_layernorm.weight") ==
        "blk.3.ffn_norm.weight");
  const ModelConfig gemma = traits_of("gemma3");
  CHECK(gguf_tensor_name(gemma, "model.layers.3.post_attention_layernorm.weight") ==
        "blk.3.post_attention_norm.weight");
  CHECK(gguf_tensor_name(gemma, "model.layers.3.pre_feedforward_layernorm.weight") ==
        "blk.3.ffn_norm.weight");
}

TEST_CASE("names that are no tensors of the architecture map to nothing", "[model][architecture]") {
  const std::string_view name =
      GENERATE("", "model.layers.0.self_attn.q_norm.weight", "model.layers.", "model.layers.0.",
               "model.layers.-1.mlp.up_proj.weight", "model.layers.x.mlp.up_proj.weight",
               "model.layers.99999999999.mlp.up_proj.weight", "model.layers.0.mlp.up_proj.bias");
  CAPTURE(name);
  CHECK_FALSE(gguf_tensor_name(traits_of("llama"), name).has_value());
}

TEST_CASE("long waves are stretched, short ones kept, those between blended", "[model][rope]") {
  const Llama3Scaling scaling{
      .factor = 8, .low_freq_factor = 1, .high_freq_factor = 4, .original_context = 8192};
  const std::vector<float> plain = rope_angles(128, 500000);
  std::vector<float> scaled = plain;
  scale_llama3(scaled, scaling);
  size_t blended = 0;
  for (size_t i = 0; i < plain.size(); ++i) {
    CAPTURE(i);
    const double wavelength = 2 * M_PI / plain[i];
    if (wavelength < 8192.0 / 4) {
      CHECK(scaled[i] == plain[i]);
    } else if (wavelength > 8192.0) {
      CHECK(scaled[i] == plain[i] / 8);
    } else {
      ++blended;
      CHECK(scaled[i] < plain[i]);
      CHECK(scaled[i] > plain[i] / 8);
    }
  }
  CHECK(blended > 0);
}

TEST_CASE("validate names the field that is out of range", "[model][config]") {
  struct Case {
    std::string named;
    void (*apply)(ModelConfig&);
  };
  const float nan = std::numeric_limits<float>::quiet_NaN();
  REQUIRE(small_config().validate());
  for (const Case& broken : {
           Case{"layer_count", [](ModelConfig& c) { c.layer_count = 0; }},
           Case{"layer_count", [](ModelConfig& c) { c.layer_count = kMaxLayers + 1; }},
           Case{"hidden_size", [](ModelConfig& c) { c.hidden_size = -8; }},
           Case{"head_count", [](ModelConfig& c) { c.head_count = 0; }},
           Case{"kv_head_count", [](ModelConfig& c) { c.kv_head_count = 4; }},
           Case{"kv_head_count",
                [](ModelConfig& c) {
                  c.head_count = 3;
                  c.kv_head_count = 2;
                }},
           Case{"head_size", [](ModelConfig& c) { c.head_size = 3; }},
           Case{"head_size", [](ModelConfig& c) { c.head_size = kMaxWidth; }},
           Case{"mlp_size", [](ModelConfig& c) { c.mlp_size = 0; }},
           Case{"vocab_size", [](ModelConfig& c) { c.vocab_size = 0; }},
           Case{"context_length", [](ModelConfig& c) { c.context_length = 0; }},
           Case{"norm_epsilon", [](ModelConfig& c) { c.norm_epsilon = -1; }},
           Case{"embedding_scale", [](ModelConfig& c) { c.embedding_scale = INFINITY; }},
           Case{"attention_softcap", [](ModelConfig& c) { c.attention_softcap = -1; }},
           Case{"final_softcap", [](ModelConfig& c) { c.final_softcap = -1; }},
           Case{"layer traits", [](ModelConfig& c) { c.layers.resize(3); }},
           Case{"window", [](ModelConfig& c) { c.layers[0].window = -1; }},
           Case{"global rope", [](ModelConfig& c) { c.rope_global.clear(); }},
           Case{"global rope", [](ModelConfig& c) { c.rope_global[0] = NAN; }},
           Case{"local rope", [](ModelConfig& c) { c.layers[0].local_rope = true; }},
           Case{"local rope", [](ModelConfig& c) { c.rope_local = c.rope_global; }},
       }) {
    CAPTURE(broken.named);
    ModelConfig config = small_config();
    broken.apply(config);
    const Status status = config.validate();
    CHECK_FAILS_WITH(status, ErrorCode::kCorrupt);
    CHECK(status.error().message.find(broken.named) != std::string::npos);
  }
  ModelConfig config = small_config();
  config.attention_scale = nan;
  CHECK_FAILS_WITH(config.validate(), ErrorCode::kCorrupt);
}

}  // namespace
}  // namespace isthmus::model
