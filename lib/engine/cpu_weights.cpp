#include "cpu_weights.h"

#include <algorithm>
#include <mutex>
#include <string>
#include <utility>

namespace isthmus::engine {
namespace {

/// A tensor that the model must have, and its shape.
struct Piece {
  std::string name;
  std::vector<uint64_t> shape;  ///< [n] or [out, in]

  [[nodiscard]] uint64_t rows() const { return shape.size() < 2 ? 1 : shape[0]; }
  [[nodiscard]] uint64_t cols() const { return shape.back(); }
  [[nodiscard]] size_t size() const { return rows() * cols(); }
};

std::string describe(const std::vector<uint64_t>& shape) {
  std::string text;
  for (const uint64_t size : shape) text += (text.empty() ? "" : ", ") + std::to_string(size);
  return "[" + text + "]";
}

class Loader {
 public:
  Loader(const model::ModelFile& file, const model::Part& part, ThreadPool& pool,
         const Progress& progress)
      : file_(file), config_(file.config()), part_(part), pool_(pool), progress_(progress) {}

  Result<CpuWeights> run() {
    for (const auto& [first, end] : part_.layers) total_steps_ += end - first;
    if (part_.head) ++total_steps_;
    CpuWeights weights;
    if (part_.embedding) {
      ISTHMUS_ASSIGN(weights.embedding, find({"token_embd.weight", {vocab(), hidden()}}));
    }
    weights.layers.resize(static_cast<size_t>(config_.layer_count));
    for (const auto& [first, end] : part_.layers) {
      for (int32_t layer = first; layer < end; ++layer) {
        ISTHMUS_TRY(load_layer(layer, weights.layers[static_cast<size_t>(layer)]));
        report_step();
      }
    }
    if (part_.head) {
      ISTHMUS_TRY(load_head(weights));
      report_step();
    }
    return weights;
  }

 private:
  uint64_t hidden() const { return static_cast<uint64_t>(config_.hidden_size); }
  uint64_t vocab() const { return static_cast<uint64_t>(config_.vocab_size); }

  Status load_layer(int32_t layer, LayerWeights& w) {
    const std::string blk = "blk." + std::to_string(layer) + ".";
    const uint64_t head = static_cast<uint64_t>(config_.head_size);
    const uint64_t q = static_cast<uint64_t>(config_.head_count) * head;
    const uint64_t kv = static_cast<uint64_t>(config_.kv_head_count) * head;
    const uint64_t mlp = static_cast<uint64_t>(config_.mlp_size);
    const uint64_t d = hidden();

    ISTHMUS_ASSIGN(w.attention_norm, norm({blk + "attn_norm.weight", {d}}));
    ISTHMUS_ASSIGN(w.qkv, stack({{blk + "attn_q.weight", {q, d}},
                                 {blk + "attn_k.weight", {kv, d}},
                                 {blk + "attn_v.weight", {kv, d}}}));
    if (config_.qkv_bias) {
      ISTHMUS_ASSIGN(w.qkv_bias, stack({{blk + "attn_q.bias", {q}},
                                        {blk + "attn_k.bias", {kv}},
                                        {blk + "attn_v.bias", {kv}}}));
    }
    if (config_.qk_norm) {
      ISTHMUS_ASSIGN(w.q_norm, norm({blk + "attn_q_norm.weight", {head}}));
      ISTHMUS_ASSIGN(w.k_norm, norm({blk + "attn_k_norm.weight", {head}}));
    }
    ISTHMUS_ASSIGN(w.mix, stack({{blk + "attn_output.weight", {d, q}}}));
    if (config_.output_bias) {
      ISTHMUS_ASSIGN(w.mix_bias, stack({{blk + "attn_output.bias", {d}}}));
    }
    ISTHMUS_ASSIGN(w.mlp_norm, norm({blk + "ffn_norm.weight", {d}}));
    ISTHMUS_ASSIGN(w.gate_up,
                   stack({{blk + "ffn_gate.weight", {mlp, d}}, {blk + "ffn_up.weight", {mlp, d}}}));
    ISTHMUS_ASSIGN(w.down, stack({{blk + "ffn_down.weight", {d, mlp}}}));
    if (config_.post_norms) {
      ISTHMUS_ASSIGN(w.post_attention_norm, norm({blk + "post_attention_norm.weight", {d}}));
      ISTHMUS_ASSIGN(w.post_mlp_norm, norm({blk + "post_ffw_norm.weight", {d}}));
    }
    return {};
  }

  Status load_head(CpuWeights& weights) {
    ISTHMUS_ASSIGN(weights.final_norm, norm({"output_norm.weight", {hidden()}}));
    const char* name = config_.tied_head ? "token_embd.weight" : "output.weight";
    ISTHMUS_ASSIGN(weights.head, stack({{name, {vocab(), hidden()}}}));
    return {};
  }

  Result<FloatRegion> norm(const Piece& piece) {
    ISTHMUS_ASSIGN(FloatRegion weight, stack({piece}));
    for (size_t i = 0; i < weight.size(); ++i) weight.data()[i] += config_.norm_weight_offset;
    return weight;
  }

  /// Reads tensors one behind the other.
  Result<FloatRegion> stack(const std::vector<Piece>& pieces) {
    size_t size = 0;
    for (const Piece& piece : pieces) size += piece.size();
    ISTHMUS_ASSIGN(FloatRegion region, FloatRegion::allocate(size));
    float* out = region.data();
    for (const Piece& piece : pieces) {
      ISTHMUS_ASSIGN(const model::Tensor* tensor, find(piece));
      ISTHMUS_TRY(read(*tensor, MatrixView<float>(out, piece.rows(), piece.cols())));
      out += piece.size();
    }
    return region;
  }

  Result<const model::Tensor*> find(const Piece& piece) const {
    ISTHMUS_ASSIGN(const model::Tensor* tensor, file_.find(piece.name));
    if (tensor->shape != piece.shape) {
      return fail(ErrorCode::kCorrupt, "engine: tensor '" + piece.name + "' has shape " +
                                           describe(tensor->shape) + ", not " +
                                           describe(piece.shape));
    }
    return tensor;
  }

  Status read(const model::Tensor& tensor, MatrixView<float> out) {
    constexpr size_t kFloatsPerGrain = 1 << 14;  // enough work to be worth handing to a thread
    std::mutex mutex;
    Status status;
    pool_.parallel_for(out.rows(), std::max<size_t>(1, kFloatsPerGrain / out.cols()),
                       [&](size_t begin, size_t end) {
                         Status piece =
                             model::read_rows(tensor, begin, out.middle_rows(begin, end - begin));
                         if (piece) return;
                         const std::scoped_lock lock(mutex);
                         status = std::move(piece);
                       });
    return status;
  }

  void report_step() {
    ++steps_;
    if (progress_) progress_(static_cast<double>(steps_) / static_cast<double>(total_steps_));
  }

  const model::ModelFile& file_;
  const model::ModelConfig& config_;
  const model::Part& part_;
  ThreadPool& pool_;
  const Progress& progress_;
  int32_t steps_ = 0;
  int32_t total_steps_ = 0;
};

}  // namespace

Result<CpuWeights> load_cpu_weights(const model::ModelFile& file, const model::Part& part,
                                    ThreadPool& pool, const Progress& progress) {
  return Loader(file, part, pool, progress).run();
}

}  // namespace isthmus::engine
