#include "synthetic_model.h"

#include <isthmus/core/random.h>
#include <isthmus/kernels/dtype.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <utility>

namespace isthmus::tools {
namespace {

struct Shape {
  std::string_view name;
  int32_t layers;
  int32_t hidden;
  int32_t heads;
  int32_t kv_heads;
  int32_t head_size;
  int32_t mlp;
  int32_t vocab;
  bool tied_head;
};

constexpr std::array kShapes = {
    Shape{"smollm2-135m", 30, 576, 9, 3, 64, 1536, 49152, true},
    Shape{"llama-3.2-1b", 16, 2048, 32, 8, 64, 8192, 128256, true},
    Shape{"llama-3.1-8b", 32, 4096, 32, 8, 128, 14336, 128256, false},
};

model::ModelConfig make_config(const Shape& shape) {
  model::ModelConfig config;
  config.architecture = "llama";
  config.layer_count = shape.layers;
  config.hidden_size = shape.hidden;
  config.head_count = shape.heads;
  config.kv_head_count = shape.kv_heads;
  config.head_size = shape.head_size;
  config.mlp_size = shape.mlp;
  config.vocab_size = shape.vocab;
  config.context_length = 131'072;
  config.attention_scale = 1 / std::sqrt(static_cast<float>(shape.head_size));
  config.tied_head = shape.tied_head;
  for (int32_t i = 0; i < shape.head_size / 2; ++i) {
    config.rope_global.push_back(
        std::pow(500'000.0F, -2 * static_cast<float>(i) / static_cast<float>(shape.head_size)));
  }
  config.layers.resize(static_cast<size_t>(shape.layers));
  return config;
}

class SyntheticModel final : public model::ModelFile {
 public:
  explicit SyntheticModel(const Shape& shape) : config_(make_config(shape)) {
    const auto d = static_cast<uint64_t>(shape.hidden);
    const auto q = static_cast<uint64_t>(shape.heads) * static_cast<uint64_t>(shape.head_size);
    const auto kv = static_cast<uint64_t>(shape.kv_heads) * static_cast<uint64_t>(shape.head_size);
    const auto mlp = static_cast<uint64_t>(shape.mlp);
    const auto vocab = static_cast<uint64_t>(shape.vocab);
    nibbles_ = make_blocks(DType::kQ4_0, std::max({q, kv, mlp}) * d);
    bytes_ = make_blocks(DType::kQ8_0, vocab * d);
    ones_.assign(d, 1.0F);

    add("token_embd.weight", DType::kQ8_0, {vocab, d});
    for (int32_t layer = 0; layer < shape.layers; ++layer) {
      const std::string blk = "blk." + std::to_string(layer) + ".";
      add(blk + "attn_norm.weight", DType::kF32, {d});
      add(blk + "attn_q.weight", DType::kQ4_0, {q, d});
      add(blk + "attn_k.weight", DType::kQ4_0, {kv, d});
      add(blk + "attn_v.weight", DType::kQ4_0, {kv, d});
      add(blk + "attn_output.weight", DType::kQ4_0, {d, q});
      add(blk + "ffn_norm.weight", DType::kF32, {d});
      add(blk + "ffn_gate.weight", DType::kQ4_0, {mlp, d});
      add(blk + "ffn_up.weight", DType::kQ4_0, {mlp, d});
      add(blk + "ffn_down.weight", DType::kQ4_0, {d, mlp});
    }
    add("output_norm.weight", DType::kF32, {d});
    if (!shape.tied_head) add("output.weight", DType::kQ8_0, {vocab, d});
  }

  const model::ModelConfig& config() const override { return config_; }
  const text::TokenizerSpec& tokenizer() const override { return tokenizer_; }
  std::span<const model::Tensor> tensors() const override { return tensors_; }

  Result<const model::Tensor*> find(std::string_view name) const override {
    const auto found = std::find_if(tensors_.begin(), tensors_.end(),
                                    [name](const model::Tensor& t) { return t.name == name; });
    if (found != tensors_.end()) return &*found;
    return fail(ErrorCode::kNotFound, "bench: no tensor '" + std::string(name) + "'");
  }

 private:
  /// Random codes under one small scale, which keeps activations of a deep model finite.
  static std::vector<std::byte> make_blocks(DType type, uint64_t weights) {
    const DTypeInfo info = *dtype_info(type);
    std::vector<std::byte> blocks(weights / info.block_elements * info.block_bytes);
    for (size_t i = 0; i + 8 <= blocks.size(); i += 8) {
      const double random = counter_uniform(1, i);
      std::memcpy(blocks.data() + i, &random, 6);  // the exponent is not random
      std::memcpy(blocks.data() + i + 6, &random, 2);
    }
    const uint16_t scale = kernels::f16_from_float(type == DType::kQ4_0 ? 0.005F : 0.0003F);
    for (size_t b = 0; b < blocks.size(); b += info.block_bytes) {
      std::memcpy(blocks.data() + b, &scale, sizeof scale);
    }
    return blocks;
  }

  void add(std::string name, DType type, std::vector<uint64_t> shape) {
    uint64_t size = 1;
    for (const uint64_t extent : shape) size *= extent;
    const DTypeInfo info = *dtype_info(type);
    const std::span<const std::byte> all = type == DType::kF32    ? std::as_bytes(std::span(ones_))
                                           : type == DType::kQ4_0 ? std::span(nibbles_)
                                                                  : std::span(bytes_);
    tensors_.push_back({std::move(name), type, std::move(shape),
                        all.first(size / info.block_elements * info.block_bytes)});
  }

  model::ModelConfig config_;
  text::TokenizerSpec tokenizer_;
  std::vector<std::byte> nibbles_;
  std::vector<std::byte> bytes_;
  std::vector<float> ones_;
  std::vector<model::Tensor> tensors_;
};

}  // namespace

std::vector<std::string> synthetic_shapes() {
  std::vector<std::string> names;
  for (const Shape& shape : kShapes) names.emplace_back(shape.name);
  return names;
}

Result<std::shared_ptr<const model::ModelFile>> make_synthetic_model(std::string_view name) {
  std::string known;
  for (const Shape& shape : kShapes) {
    if (shape.name == name) return std::make_shared<const SyntheticModel>(shape);
    known += (known.empty() ? "" : ", ") + std::string(shape.name);
  }
  return fail(ErrorCode::kInvalidArgument,
              "bench: '" + std::string(name) + "' is no shape, those are " + known);
}

}  // namespace isthmus::tools
