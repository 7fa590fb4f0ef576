#include "layers.h"

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>

#include <algorithm>
#include <array>
#include <limits>
#include <utility>

#ifdef ISTHMUS_CUDA_KERNELS
#include <kernels/cuda/rope.h>
#endif

namespace isthmus::torch_engine {
namespace {

constexpr int64_t kQueriesAtOnce = 256;  // bounds the score matrix of a long prompt

#ifdef ISTHMUS_CUDA_KERNELS
constexpr bool kHasRotationKernel = true;

/// Rotates in place with our own kernel on libtorch's current stream.
void rotate_on_device(at::Tensor& heads, const at::Tensor& positions, const at::Tensor& frequencies,
                      model::RopePairs pairs) {
  kernels::cuda::RopeRows rows;
  rows.values = heads.data_ptr();
  rows.positions = positions.data_ptr<int32_t>();
  rows.frequencies = frequencies.data_ptr<float>();
  switch (heads.scalar_type()) {
    case at::kFloat:
      rows.element = kernels::cuda::Element::kF32;
      break;
    case at::kBFloat16:
      rows.element = kernels::cuda::Element::kBf16;
      break;
    default:
      rows.element = kernels::cuda::Element::kF16;
      break;
  }
  rows.rows = heads.size(0);
  rows.heads = static_cast<int32_t>(heads.size(1));
  rows.head_size = static_cast<int32_t>(heads.size(2));
  rows.half_apart = pairs == model::RopePairs::kHalfApart;
  const auto* const guard = c10::impl::getDeviceGuardImpl(c10::kCUDA);
  void* const stream = guard->getStreamNativeHandle(guard->getStream(heads.device()));
  const Status status = kernels::cuda::rotate_rows(rows, stream);
  TORCH_CHECK(status.has_value(), status.error().message);
}
#else
constexpr bool kHasRotationKernel = false;

void rotate_on_device(at::Tensor&, const at::Tensor&, const at::Tensor&, model::RopePairs) {}
#endif

/// Which of `count` positions from `first_key` on each of the rows from `first_row` on must not
/// see: [rows, count] bool.
at::Tensor hidden_from(int64_t first_row, int64_t rows, int64_t first_key, int64_t count,
                       int64_t window, const at::TensorOptions& options) {
  const auto longs = options.dtype(at::kLong);
  const at::Tensor row = at::arange(first_row, first_row + rows, longs).unsqueeze(1);
  const at::Tensor key = at::arange(first_key, first_key + count, longs).unsqueeze(0);
  const at::Tensor future = key > row;
  return window == 0 ? future : future.logical_or(key <= row - window);
}

/// What the heads `q` [T, H, K] at positions first, first + 1, ... read from keys and values
/// [kv heads, room, K]: [T, H * K].
at::Tensor attend(const model::ModelConfig& config, const at::Tensor& q, const at::Tensor& keys,
                  const at::Tensor& values, int64_t first, int64_t window) {
  const int64_t kv_heads = config.kv_head_count;
  const int64_t group = config.head_count / kv_heads;
  const int64_t head_size = config.head_size;
  std::vector<at::Tensor> blocks;
  for (int64_t start = 0; start < q.size(0); start += kQueriesAtOnce) {
    const int64_t rows = std::min(kQueriesAtOnce, q.size(0) - start);
    const int64_t position = first + start;
    const int64_t first_key = window == 0 ? 0 : std::max<int64_t>(0, position - window + 1);
    const int64_t count = position + rows - first_key;
    // Heads of one group share keys, so they become rows of one product.
    const at::Tensor queries = (q.narrow(0, start, rows) * config.attention_scale)
                                   .view({rows, kv_heads, group, head_size})
                                   .permute({1, 2, 0, 3})
                                   .reshape({kv_heads, group * rows, head_size});
    const at::Tensor visible_keys = keys.narrow(1, first_key, count);
    at::Tensor scores = at::bmm(queries, visible_keys.transpose(1, 2)).to(at::kFloat);
    scores = softcap(scores, config.attention_softcap).view({kv_heads, group, rows, count});
    if (rows > 1) {
      scores.masked_fill_(hidden_from(position, rows, first_key, count, window, q.options()),
                          -std::numeric_limits<float>::infinity());
    }
    const at::Tensor weights = at::softmax(scores, -1).to(values.scalar_type());
    const at::Tensor mixed =
        at::bmm(weights.view({kv_heads, group * rows, count}), values.narrow(1, first_key, count));
    blocks.push_back(mixed.view({kv_heads, group, rows, head_size})
                         .permute({2, 0, 1, 3})
                         .reshape({rows, config.head_count * head_size}));
  }
  return blocks.size() == 1 ? blocks.front() : at::cat(blocks);
}

/// rows + x, where x is normed first if the architecture has post-norms.
at::Tensor add_to_residual(const model::ModelConfig& config, const at::Tensor& rows, at::Tensor x,
                           const at::Tensor& post_norm) {
  x = x.to(at::kFloat);
  if (config.post_norms) x = rms_norm(x, post_norm, config);
  return rows + x;
}

/// x [N, in] to [N, out], both in the engine's precision.
at::Tensor multiply(const at::Tensor& x, const Linear& linear) {
  const at::Tensor product = at::linear(x, linear.weight, linear.bias);
  if (!linear.down.defined()) return product;
  const at::Tensor added = at::linear(at::linear(x.to(at::kFloat), linear.down), linear.up);
  return product + added.to(product.scalar_type());
}

at::Tensor attention_block(const model::ModelConfig& config, const LayerWeights& w,
                           const Rotation& rotation, const Attention& attention,
                           const at::Tensor& rows) {
  const at::Tensor x = rms_norm(rows, w.attention_norm, config).to(w.q.weight.scalar_type());
  const auto shape_heads = [&](const at::Tensor& product, const at::Tensor& norm) {
    at::Tensor heads = product.view({rows.size(0), -1, config.head_size});
    if (config.qk_norm) heads = rms_norm(heads.to(at::kFloat), norm, config).to(x.scalar_type());
    return rotation.apply(heads);
  };
  const at::Tensor q = shape_heads(multiply(x, w.q), w.q_norm);
  const at::Tensor k = shape_heads(multiply(x, w.k), w.k_norm);
  const at::Tensor v =
      multiply(x, w.v).view({rows.size(0), config.kv_head_count, config.head_size});
  return multiply(attention(q, k, v), w.mix);
}

/// Attention over caches, which get the new keys and values.
at::Tensor attend_in_caches(const model::ModelConfig& config, int32_t layer,
                            std::span<const Sequence> sequences, const at::Tensor& q,
                            const at::Tensor& k, const at::Tensor& v) {
  const int32_t window = config.layers[static_cast<size_t>(layer)].window;
  std::vector<at::Tensor> mixed;
  int64_t start = 0;
  for (const Sequence& sequence : sequences) {
    const int64_t count = sequence.row_count;
    const int64_t first = sequence.cache->length();
    const at::Tensor keys = sequence.cache->keys(layer);
    const at::Tensor values = sequence.cache->values(layer);
    keys.narrow(1, first, count).copy_(k.narrow(0, start, count).transpose(0, 1));
    values.narrow(1, first, count).copy_(v.narrow(0, start, count).transpose(0, 1));
    mixed.push_back(attend(config, q.narrow(0, start, count), keys, values, first, window));
    start += count;
  }
  return mixed.size() == 1 ? mixed.front() : at::cat(mixed);
}

at::Tensor mlp_block(const model::ModelConfig& config, const LayerWeights& w,
                     const at::Tensor& rows) {
  const at::Tensor x = rms_norm(rows, w.mlp_norm, config).to(w.gate.weight.scalar_type());
  const at::Tensor gate = multiply(x, w.gate);
  const at::Tensor active =
      config.activation == model::Activation::kSilu ? at::silu(gate) : at::gelu(gate, "tanh");
  return multiply(active * multiply(x, w.up), w.down);
}

}  // namespace

Rotation::Rotation(at::Tensor positions, at::Tensor frequencies, model::RopePairs pairs)
    : positions_(std::move(positions)), frequencies_(std::move(frequencies)), pairs_(pairs) {
  // Our kernel is unknown to autograd.
  if (kHasRotationKernel && positions_.is_cuda() && c10::InferenceMode::is_enabled()) return;
  const at::Tensor angles =
      positions_.to(at::kFloat).view({-1, 1, 1}) * frequencies_.view({1, 1, -1});
  cosines_ = at::cos(angles);
  sines_ = at::sin(angles);
}

at::Tensor Rotation::apply(const at::Tensor& heads) const {
  if (!cosines_.defined()) {
    at::Tensor turned = heads.contiguous();
    rotate_on_device(turned, positions_, frequencies_, pairs_);
    return turned;
  }
  // The two coordinates of a pair as [rows, H, K/2] each.
  const bool half_apart = pairs_ == model::RopePairs::kHalfApart;
  const int64_t pair_count = heads.size(2) / 2;
  const std::array<int64_t, 4> shape = {heads.size(0), heads.size(1), half_apart ? 2 : pair_count,
                                        half_apart ? pair_count : 2};
  const int64_t pair_axis = half_apart ? 2 : 3;
  const at::Tensor split = heads.to(at::kFloat).view(shape);
  const at::Tensor x = split.select(pair_axis, 0);
  const at::Tensor y = split.select(pair_axis, 1);
  const at::Tensor turned =
      at::stack({x * cosines_ - y * sines_, y * cosines_ + x * sines_}, pair_axis);
  return turned.view(heads.sizes()).to(heads.scalar_type());
}

at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight,
                    const model::ModelConfig& config) {
  return at::rms_norm(x, {x.size(-1)}, weight, config.norm_epsilon);
}

at::Tensor softcap(const at::Tensor& x, float cap) {
  return cap == 0 ? x : at::tanh(x / cap) * cap;
}

at::Tensor run_layer(const model::ModelConfig& config, const LayerWeights& weights,
                     const Rotation& rotation, const Attention& attention, const at::Tensor& rows) {
  const at::Tensor attended =
      add_to_residual(config, rows, attention_block(config, weights, rotation, attention, rows),
                      weights.post_attention_norm);
  return add_to_residual(config, attended, mlp_block(config, weights, attended),
                         weights.post_mlp_norm);
}

at::Tensor run_layer(const model::ModelConfig& config, const LayerWeights& weights, int32_t layer,
                     const Rotation& rotation, std::span<const Sequence> sequences,
                     const at::Tensor& rows) {
  const auto attention = [&](const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
    return attend_in_caches(config, layer, sequences, q, k, v);
  };
  return run_layer(config, weights, rotation, attention, rows);
}

}  // namespace isthmus::torch_engine
