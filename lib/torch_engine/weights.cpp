#include "weights.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <string>

namespace isthmus::torch_engine {
namespace {

constexpr int64_t kFloatsAtOnce = 1 << 24;  // 64 MiB: what a matrix takes as float on its way

class Loader {
 public:
  Loader(const model::ModelFile& file, const model::Part& part, at::Device device,
         at::ScalarType precision, const engine::Progress& progress)
      : file_(file),
        config_(file.config()),
        part_(part),
        device_(device),
        precision_(precision),
        progress_(progress) {
    for (const auto& [first, end] : part_.layers) total_steps_ += end - first;
    total_steps_ += (part_.embedding ? 1 : 0) + (part_.head ? 1 : 0);
  }

  Result<Weights> run() {
    Weights weights;
    if (part_.embedding) {
      ISTHMUS_TRY(
          matrix("token_embd.weight", config_.vocab_size, config_.hidden_size, weights.embedding));
      report_step();
    }
    weights.layers.resize(static_cast<size_t>(config_.layer_count));
    for (const auto& [first, end] : part_.layers) {
      for (int32_t layer = first; layer < end; ++layer) {
        ISTHMUS_TRY(load_layer("blk." + std::to_string(layer) + ".",
                               weights.layers[static_cast<size_t>(layer)]));
        report_step();
      }
    }
    if (part_.head) {
      ISTHMUS_TRY(load_head(weights));
      report_step();
    }
    weights.bytes = bytes_;
    return weights;
  }

 private:
  Status load_layer(const std::string& blk, LayerWeights& w) {
    const int64_t d = config_.hidden_size;
    const int64_t head = config_.head_size;
    const int64_t q = config_.head_count * head;
    const int64_t kv = config_.kv_head_count * head;

    ISTHMUS_TRY(norm(blk + "attn_norm.weight", d, w.attention_norm));
    ISTHMUS_TRY(matrix(blk + "attn_q.weight", q, d, w.q.weight));
    ISTHMUS_TRY(matrix(blk + "attn_k.weight", kv, d, w.k.weight));
    ISTHMUS_TRY(matrix(blk + "attn_v.weight", kv, d, w.v.weight));
    if (config_.qkv_bias) {
      ISTHMUS_TRY(vector(blk + "attn_q.bias", q, precision_, w.q.bias));
      ISTHMUS_TRY(vector(blk + "attn_k.bias", kv, precision_, w.k.bias));
      ISTHMUS_TRY(vector(blk + "attn_v.bias", kv, precision_, w.v.bias));
    }
    if (config_.qk_norm) {
      ISTHMUS_TRY(norm(blk + "attn_q_norm.weight", head, w.q_norm));
      ISTHMUS_TRY(norm(blk + "attn_k_norm.weight", head, w.k_norm));
    }
    ISTHMUS_TRY(matrix(blk + "attn_output.weight", d, q, w.mix.weight));
    if (config_.output_bias) {
      ISTHMUS_TRY(vector(blk + "attn_output.bias", d, precision_, w.mix.bias));
    }
    ISTHMUS_TRY(norm(blk + "ffn_norm.weight", d, w.mlp_norm));
    ISTHMUS_TRY(matrix(blk + "ffn_gate.weight", config_.mlp_size, d, w.gate.weight));
    ISTHMUS_TRY(matrix(blk + "ffn_up.weight", config_.mlp_size, d, w.up.weight));
    ISTHMUS_TRY(matrix(blk + "ffn_down.weight", d, config_.mlp_size, w.down.weight));
    if (config_.post_norms) {
      ISTHMUS_TRY(norm(blk + "post_attention_norm.weight", d, w.post_attention_norm));
      ISTHMUS_TRY(norm(blk + "post_ffw_norm.weight", d, w.post_mlp_norm));
    }
    return {};
  }

  Status load_head(Weights& weights) {
    ISTHMUS_TRY(norm("output_norm.weight", config_.hidden_size, weights.final_norm));
    if (config_.tied_head && weights.embedding.defined()) {
      weights.head = weights.embedding;
      return {};
    }
    return matrix(config_.tied_head ? "token_embd.weight" : "output.weight", config_.vocab_size,
                  config_.hidden_size, weights.head);
  }

  Status norm(const std::string& name, int64_t size, at::Tensor& out) {
    ISTHMUS_TRY(vector(name, size, at::kFloat, out));
    if (config_.norm_weight_offset != 0) out.add_(config_.norm_weight_offset);
    return {};
  }

  Status vector(const std::string& name, int64_t size, at::ScalarType type, at::Tensor& out) {
    return read(name, {static_cast<uint64_t>(size)}, type, out);
  }

  Status matrix(const std::string& name, int64_t rows, int64_t cols, at::Tensor& out) {
    return read(name, {static_cast<uint64_t>(rows), static_cast<uint64_t>(cols)}, precision_, out);
  }

  /// Reads a tensor some rows at a time, so that no second copy of it is ever held as float.
  Status read(const std::string& name, const std::vector<uint64_t>& shape, at::ScalarType type,
              at::Tensor& out) {
    ISTHMUS_ASSIGN(const model::Tensor* tensor, file_.find(name));
    if (tensor->shape != shape) {
      return fail(ErrorCode::kCorrupt, "torch: tensor '" + name + "' has shape " +
                                           describe(tensor->shape) + ", not " + describe(shape));
    }
    const auto rows = static_cast<int64_t>(tensor->rows());
    const auto cols = static_cast<int64_t>(tensor->cols());
    out = at::empty({rows, cols}, at::TensorOptions(device_).dtype(type));
    const int64_t rows_at_once = std::clamp<int64_t>(kFloatsAtOnce / cols, 1, rows);
    at::Tensor buffer = at::empty({rows_at_once, cols}, at::kFloat);
    for (int64_t row = 0; row < rows; row += rows_at_once) {
      const int64_t count = std::min(rows_at_once, rows - row);
      const MatrixView<float> view(buffer.data_ptr<float>(), static_cast<size_t>(count),
                                   static_cast<size_t>(cols));
      ISTHMUS_TRY(model::read_rows(*tensor, static_cast<uint64_t>(row), view));
      out.narrow(0, row, count).copy_(buffer.narrow(0, 0, count));
    }
    if (shape.size() == 1) out = out.view({cols});
    bytes_ += out.nbytes();
    return {};
  }

  static std::string describe(const std::vector<uint64_t>& shape) {
    std::string text;
    for (const uint64_t size : shape) text += (text.empty() ? "" : ", ") + std::to_string(size);
    return "[" + text + "]";
  }

  void report_step() {
    ++steps_;
    if (progress_) progress_(static_cast<double>(steps_) / static_cast<double>(total_steps_));
  }

  const model::ModelFile& file_;
  const model::ModelConfig& config_;
  const model::Part& part_;
  const at::Device device_;
  const at::ScalarType precision_;
  const engine::Progress& progress_;
  uint64_t bytes_ = 0;
  int32_t steps_ = 0;
  int32_t total_steps_ = 0;
};

}  // namespace

Result<Weights> load_weights(const model::ModelFile& file, const model::Part& part,
                             at::Device device, at::ScalarType precision,
                             const engine::Progress& progress) {
  return Loader(file, part, device, precision, progress).run();
}

}  // namespace isthmus::torch_engine
