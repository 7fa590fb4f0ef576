#include "cpu_weights.h"

#include <isthmus/kernels/pack.h>

#include <algorithm>
#include <cmath>
#include <mutex>
#include <new>
#include <string>
#include <utility>

namespace isthmus::engine {
namespace {

using kernels::kPackedOutputs;

/// A tensor that the model must have, and its shape.
struct Wanted {
  std::string name;
  std::vector<uint64_t> shape;  ///< [n] or [out, in]
};

std::string describe(const std::vector<uint64_t>& shape) {
  std::string text;
  for (const uint64_t size : shape) text += (text.empty() ? "" : ", ") + std::to_string(size);
  return "[" + text + "]";
}

/// The format in which a matrix runs at no more than `bits`.
struct Packing {
  kernels::PackedFormat format;
  int32_t rounded_bits = 0;  ///< 0: lossless
};

Packing choose_packing(const model::Tensor& tensor, int32_t bits) {
  // Four bits would round away what an adapter adds.
  if (tensor.adapter != nullptr) return {kernels::rounded_format(8), 8};
  const auto format = kernels::lossless_format(tensor.type);
  if (format && (format->nibbles || bits == 8)) return {*format};
  return {kernels::rounded_format(bits), bits};
}

class Loader {
 public:
  Loader(const model::ModelFile& file, const model::Part& part, const CpuEngineOptions& options,
         ThreadPool& pool, const Progress& progress)
      : file_(file),
        config_(file.config()),
        part_(part),
        options_(options),
        pool_(pool),
        progress_(progress) {}

  Result<CpuWeights> run() {
    for (const auto& [first, end] : part_.layers) total_steps_ += end - first;
    if (part_.head) ++total_steps_;
    if (part_.embedding) {
      ISTHMUS_ASSIGN(weights_.embedding, find({"token_embd.weight", {vocab(), hidden()}}));
    }
    weights_.layers.resize(static_cast<size_t>(config_.layer_count));
    for (const auto& [first, end] : part_.layers) {
      for (int32_t layer = first; layer < end; ++layer) {
        ISTHMUS_TRY(load_layer(layer, weights_.layers[static_cast<size_t>(layer)]));
        report_step();
      }
    }
    if (part_.head) {
      ISTHMUS_TRY(load_head());
      report_step();
    }
    return std::move(weights_);
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
    const int32_t bits = options_.weights.bits(layer);

    ISTHMUS_ASSIGN(w.attention_norm, norm({blk + "attn_norm.weight", {d}}));
    ISTHMUS_ASSIGN(w.qkv, linear(bits, {{blk + "attn_q.weight", {q, d}},
                                        {blk + "attn_k.weight", {kv, d}},
                                        {blk + "attn_v.weight", {kv, d}}}));
    if (config_.qkv_bias) {
      ISTHMUS_ASSIGN(w.qkv_bias, floats({{blk + "attn_q.bias", {q}},
                                         {blk + "attn_k.bias", {kv}},
                                         {blk + "attn_v.bias", {kv}}}));
    }
    if (config_.qk_norm) {
      ISTHMUS_ASSIGN(w.q_norm, norm({blk + "attn_q_norm.weight", {head}}));
      ISTHMUS_ASSIGN(w.k_norm, norm({blk + "attn_k_norm.weight", {head}}));
    }
    ISTHMUS_ASSIGN(w.mix, linear(bits, {{blk + "attn_output.weight", {d, q}}}));
    if (config_.output_bias) {
      ISTHMUS_ASSIGN(w.mix_bias, floats({{blk + "attn_output.bias", {d}}}));
    }
    ISTHMUS_ASSIGN(w.mlp_norm, norm({blk + "ffn_norm.weight", {d}}));
    ISTHMUS_ASSIGN(w.gate_up, linear(bits, {{blk + "ffn_gate.weight", {mlp, d}},
                                            {blk + "ffn_up.weight", {mlp, d}}}));
    ISTHMUS_ASSIGN(w.down, linear(bits, {{blk + "ffn_down.weight", {d, mlp}}}));
    if (config_.post_norms) {
      ISTHMUS_ASSIGN(w.post_attention_norm, norm({blk + "post_attention_norm.weight", {d}}));
      ISTHMUS_ASSIGN(w.post_mlp_norm, norm({blk + "post_ffw_norm.weight", {d}}));
    }
    return {};
  }

  Status load_head() {
    ISTHMUS_ASSIGN(weights_.final_norm, norm({"output_norm.weight", {hidden()}}));
    const char* name = config_.tied_head ? "token_embd.weight" : "output.weight";
    ISTHMUS_ASSIGN(weights_.head,
                   linear(options_.weights.head_bits, {{name, {vocab(), hidden()}}}));
    return {};
  }

  Result<const float*> norm(const Wanted& wanted) {
    ISTHMUS_ASSIGN(float* weight, floats({wanted}));
    for (uint64_t i = 0; i < wanted.shape[0]; ++i) weight[i] += config_.norm_weight_offset;
    return weight;
  }

  /// Tensors one behind the other.
  Result<float*> floats(const std::vector<Wanted>& stacked) {
    std::vector<const model::Tensor*> tensors;
    size_t size = 0;
    for (const Wanted& wanted : stacked) {
      ISTHMUS_ASSIGN(const model::Tensor* tensor, find(wanted));
      tensors.push_back(tensor);
      size += tensor->rows() * tensor->cols();
    }
    ISTHMUS_ASSIGN(float* const all, weights_.memory.take_floats(size));
    float* next = all;
    for (const model::Tensor* tensor : tensors) {
      const MatrixView<float> out(next, tensor->rows(), tensor->cols());
      ISTHMUS_TRY(in_parallel(out.rows(), [&](size_t begin, size_t end) {
        return read_finite(*tensor, begin, out.middle_rows(begin, end - begin));
      }));
      file_.release(*tensor);
      next += out.rows() * out.cols();
    }
    return all;
  }

  static Status read_finite(const model::Tensor& tensor, size_t first, MatrixView<float> rows) {
    ISTHMUS_TRY(model::read_rows(tensor, first, rows));
    const auto values = rows.values();
    if (std::all_of(values.begin(), values.end(), [](float v) { return std::isfinite(v); })) {
      return {};
    }
    return fail(ErrorCode::kNotFinite,
                "engine: tensor '" + tensor.name + "' holds a number that is not finite");
  }

  Result<Linear> linear(int32_t bits, const std::vector<Wanted>& stacked) {
    Linear result;
    result.inputs = stacked.front().shape[1];
    for (const Wanted& wanted : stacked) {
      Linear::Piece piece;
      piece.outputs = wanted.shape[0];
      if (options_.precision == Precision::kExact) {
        ISTHMUS_ASSIGN(piece.floats, floats({wanted}));
      } else {
        ISTHMUS_ASSIGN(const model::Tensor* tensor, find(wanted));
        ISTHMUS_TRY(pack(*tensor, bits, piece));
      }
      result.outputs += piece.outputs;
      result.pieces.push_back(piece);
    }
    return result;
  }

  Status pack(const model::Tensor& tensor, int32_t bits, Linear::Piece& piece) {
    const Packing packing = choose_packing(tensor, bits);
    piece.format = packing.format;
    const size_t inputs = tensor.cols();
    const size_t block_bytes = kernels::block_bytes(packing.format, inputs);
    ISTHMUS_ASSIGN(std::byte* const blocks,
                   weights_.memory.take(piece.block_count() * block_bytes));
    piece.blocks = blocks;
    const size_t row_bytes = tensor.data.size() / tensor.rows();
    Status packed = in_parallel(piece.block_count(), [&](size_t begin, size_t end) -> Status {
      Matrix rounded;
      for (size_t b = begin; b < end; ++b) {
        const size_t first = b * kPackedOutputs;
        const size_t rows = std::min(kPackedOutputs, piece.outputs - first);
        const std::span block(blocks + b * block_bytes, block_bytes);
        Status status;
        if (packing.rounded_bits == 0) {
          status = kernels::pack_block(
              tensor.type, tensor.data.subspan(first * row_bytes, rows * row_bytes), inputs, block);
        } else {
          rounded = Matrix(rows, inputs);
          ISTHMUS_TRY(model::read_rows(tensor, first, rounded.view()));
          status = kernels::round_block(rounded.view(), packing.rounded_bits, block);
        }
        if (!status) {
          return fail(status.error().code,
                      "engine: tensor '" + tensor.name + "': " + status.error().message);
        }
      }
      return {};
    });
    file_.release(tensor);
    return packed;
  }

  Result<const model::Tensor*> find(const Wanted& wanted) const {
    ISTHMUS_ASSIGN(const model::Tensor* tensor, file_.find(wanted.name));
    if (tensor->shape != wanted.shape) {
      return fail(ErrorCode::kCorrupt, "engine: tensor '" + wanted.name + "' has shape " +
                                           describe(tensor->shape) + ", not " +
                                           describe(wanted.shape));
    }
    return tensor;
  }

  /// Runs `body(begin, end)` over [0, count). \returns an error of one of the pieces.
  template <typename Body>
  Status in_parallel(size_t count, const Body& body) {
    std::mutex mutex;
    Status status;
    pool_.parallel_for(count, /*grain=*/1, [&](size_t begin, size_t end) {
      Status piece;
      try {
        piece = body(begin, end);
      } catch (const std::bad_alloc&) {  // must not leave the loop
        piece = fail(ErrorCode::kOutOfMemory, "engine: no memory to load weights");
      }
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
  const CpuEngineOptions& options_;
  ThreadPool& pool_;
  const Progress& progress_;
  CpuWeights weights_;
  int32_t steps_ = 0;
  int32_t total_steps_ = 0;
};

}  // namespace

size_t Linear::Piece::block_count() const {
  return (outputs + kPackedOutputs - 1) / kPackedOutputs;
}

size_t Linear::block_count() const {
  size_t count = 0;
  for (const Piece& piece : pieces) count += piece.block_count();
  return count;
}

Result<CpuWeights> load_cpu_weights(const model::ModelFile& file, const model::Part& part,
                                    const CpuEngineOptions& options, ThreadPool& pool,
                                    const Progress& progress) {
  return Loader(file, part, options, pool, progress).run();
}

}  // namespace isthmus::engine
