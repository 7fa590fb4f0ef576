#include "cpu_layers.h"

#include <isthmus/kernels/portable_math.h>

#include <algorithm>

namespace isthmus::engine {
namespace {

constexpr size_t kRowGrain = 4;      // rows handed to a thread at once
constexpr size_t kOutputGrain = 16;  // weight rows handed to a thread at once

/// Cosines, then sines, of position * angle for each pair.
void turn(const std::vector<float>& angles, int32_t position, float* rotation) {
  const size_t pairs = angles.size();
  for (size_t i = 0; i < pairs; ++i) {
    // Rounded to float like the reference implementations do.
    const float angle = static_cast<float>(position) * angles[i];
    const auto [sin, cos] = kernels::portable_sin_cos(angle);
    rotation[i] = static_cast<float>(cos);
    rotation[pairs + i] = static_cast<float>(sin);
  }
}

/// Rotates each pair (x, y) of a head of size 2 * pairs.
void rotate(float* head, size_t pairs, model::RopePairs order, const float* rotation) {
  const bool adjacent = order == model::RopePairs::kAdjacent;
  for (size_t i = 0; i < pairs; ++i) {
    float& a = adjacent ? head[2 * i] : head[i];
    float& b = adjacent ? head[2 * i + 1] : head[i + pairs];
    const float cos = rotation[i];
    const float sin = rotation[pairs + i];
    const float x = a;
    const float y = b;
    a = x * cos - y * sin;
    b = y * cos + x * sin;
  }
}

}  // namespace

CpuLayers::CpuLayers(const model::ModelConfig& config, const CpuWeights& weights,
                     const kernels::KernelTable& kernels, ThreadPool& pool)
    : config_(config),
      weights_(weights),
      kernels_(kernels),
      pool_(pool),
      hidden_(static_cast<size_t>(config.hidden_size)),
      head_size_(static_cast<size_t>(config.head_size)),
      q_size_(static_cast<size_t>(config.head_count) * head_size_),
      kv_size_(static_cast<size_t>(config.kv_head_count) * head_size_),
      mlp_size_(static_cast<size_t>(config.mlp_size)),
      scores_(pool.thread_count()) {}

void CpuLayers::run(std::span<const Row> rows) {
  turn_positions(rows);
  for (int32_t layer = 0; layer < config_.layer_count; ++layer) {
    active_.clear();
    for (size_t i = 0; i < rows.size(); ++i) {
      const LayerWindow window = rows[i].cache->layers();
      if (window.first <= layer && layer < window.end) active_.push_back({&rows[i], i});
    }
    if (!active_.empty()) run_layer(layer);
  }
}

void CpuLayers::run_layer(int32_t layer) {
  const LayerWeights& w = weights_.layers[static_cast<size_t>(layer)];
  normalize(w.attention_norm);
  project(normed_.data(), w.qkv, w.qkv_bias.data(), hidden_, qkv_);
  store_keys_and_rotate(w, layer);
  attend(layer);
  project(mixed_.data(), w.mix, w.mix_bias.data(), q_size_, delta_);
  add_to_residual(w.post_attention_norm);

  normalize(w.mlp_norm);
  project(normed_.data(), w.gate_up, /*bias=*/nullptr, hidden_, gate_up_);
  gate();
  project(gated_.data(), w.down, /*bias=*/nullptr, mlp_size_, delta_);
  add_to_residual(w.post_mlp_norm);
}

void CpuLayers::score(std::span<const Row* const> rows) {
  active_.clear();
  for (const Row* row : rows) active_.push_back({row, 0});
  normalize(weights_.final_norm);
  project(normed_.data(), weights_.head, /*bias=*/nullptr, hidden_, delta_);
  const auto vocab = static_cast<size_t>(config_.vocab_size);
  for (size_t a = 0; a < active_.size(); ++a) {
    float* scores = active_[a].row->output;
    std::copy_n(delta_.data() + a * vocab, vocab, scores);
    if (config_.final_softcap > 0) kernels_.softcap(scores, config_.final_softcap, vocab);
  }
}

void CpuLayers::turn_positions(std::span<const Row> rows) {
  rotations_.global.resize(rows.size() * head_size_);
  if (!config_.rope_local.empty()) rotations_.local.resize(rows.size() * head_size_);
  for (size_t i = 0; i < rows.size(); ++i) {
    turn(config_.rope_global, rows[i].position, rotations_.global.data() + i * head_size_);
    if (!config_.rope_local.empty()) {
      turn(config_.rope_local, rows[i].position, rotations_.local.data() + i * head_size_);
    }
  }
}

/// normed = norm of each active row.
void CpuLayers::normalize(const FloatRegion& weight) {
  normed_.resize(active_.size() * hidden_);
  pool_.parallel_for(active_.size(), kRowGrain, [&](size_t begin, size_t end) {
    for (size_t a = begin; a < end; ++a) {
      kernels_.rms_norm(active_[a].row->residual, weight.data(), config_.norm_epsilon, hidden_,
                        normed_.data() + a * hidden_);
    }
  });
}

/// y [A, out] = x [A, inner] times the transposed weight [out, inner], plus bias [out] if any.
void CpuLayers::project(const float* x, const FloatRegion& weight, const float* bias, size_t inner,
                        std::vector<float>& y) {
  kernels::Product product;
  product.x = x;
  product.weights = weight.data();
  product.bias = bias;
  product.rows = active_.size();
  product.inner = inner;
  product.outputs = weight.size() / inner;
  y.resize(product.rows * product.outputs);
  product.y = y.data();
  pool_.parallel_for(product.outputs, kOutputGrain, [&](size_t begin, size_t end) {
    kernels::Product piece = product;
    piece.first_output = begin;
    piece.end_output = end;
    kernels_.product(piece);
  });
}

/// Norms and rotates every head of q and k, and writes k and v to the caches.
void CpuLayers::store_keys_and_rotate(const LayerWeights& weights, int32_t layer) {
  const bool local = config_.layers[static_cast<size_t>(layer)].local_rope;
  const std::vector<float>& rotations = local ? rotations_.local : rotations_.global;
  pool_.parallel_for(active_.size(), kRowGrain, [&](size_t begin, size_t end) {
    for (size_t a = begin; a < end; ++a) {
      const float* rotation = rotations.data() + active_[a].index * head_size_;
      float* q = qkv_.data() + a * (q_size_ + 2 * kv_size_);
      float* k = q + q_size_;
      const float* v = k + kv_size_;
      for (size_t i = 0; i < q_size_; i += head_size_) shape_head(q + i, weights.q_norm, rotation);
      for (size_t i = 0; i < kv_size_; i += head_size_) shape_head(k + i, weights.k_norm, rotation);
      const Row& row = *active_[a].row;
      const size_t offset = static_cast<size_t>(row.position) * kv_size_;
      std::copy_n(k, kv_size_, row.cache->keys(layer) + offset);
      std::copy_n(v, kv_size_, row.cache->values(layer) + offset);
    }
  });
}

void CpuLayers::shape_head(float* head, const FloatRegion& norm, const float* rotation) const {
  if (config_.qk_norm) {
    kernels_.rms_norm(head, norm.data(), config_.norm_epsilon, head_size_, head);
  }
  rotate(head, head_size_ / 2, config_.rope_pairs, rotation);
}

/// mixed [A, H * K] = what each head of each row reads from its cache.
void CpuLayers::attend(int32_t layer) {
  mixed_.resize(active_.size() * q_size_);
  const auto heads = static_cast<size_t>(config_.head_count);
  const size_t group = heads / static_cast<size_t>(config_.kv_head_count);
  const int32_t window = config_.layers[static_cast<size_t>(layer)].window;

  const auto attend_one = [&](size_t a, size_t head, std::vector<float>& scores) {
    const Row& row = *active_[a].row;
    const int32_t first = window == 0 ? 0 : std::max(0, row.position - window + 1);
    const size_t offset = static_cast<size_t>(first) * kv_size_ + head / group * head_size_;
    kernels::Attention attention;
    attention.query = qkv_.data() + a * (q_size_ + 2 * kv_size_) + head * head_size_;
    attention.keys = row.cache->keys(layer) + offset;
    attention.values = row.cache->values(layer) + offset;
    attention.stride = kv_size_;
    attention.count = static_cast<size_t>(row.position - first + 1);
    attention.head_size = head_size_;
    attention.scale = config_.attention_scale;
    attention.softcap = config_.attention_softcap;
    attention.scores = scores.data();
    attention.out = mixed_.data() + a * q_size_ + head * head_size_;
    kernels_.attend(attention);
  };

  int32_t longest = 0;
  for (const ActiveRow& active : active_) longest = std::max(longest, active.row->position + 1);
  for (auto& scores : scores_) scores.resize(static_cast<size_t>(longest));
  // Threads take turns, because later rows of a prompt see more positions.
  const size_t threads = scores_.size();
  const size_t items = active_.size() * heads;
  pool_.parallel_for(threads, 1, [&](size_t begin, size_t end) {
    for (size_t thread = begin; thread < end; ++thread) {
      for (size_t i = thread; i < items; i += threads) {
        attend_one(i / heads, i % heads, scores_[thread]);
      }
    }
  });
}

/// gated [A, M] = activation(gate) * up.
void CpuLayers::gate() {
  gated_.resize(active_.size() * mlp_size_);
  const auto activate =
      config_.activation == model::Activation::kSilu ? kernels_.silu_gate : kernels_.gelu_gate;
  pool_.parallel_for(active_.size(), kRowGrain, [&](size_t begin, size_t end) {
    for (size_t a = begin; a < end; ++a) {
      const float* gate = gate_up_.data() + a * 2 * mlp_size_;
      activate(gate, gate + mlp_size_, mlp_size_, gated_.data() + a * mlp_size_);
    }
  });
}

/// residual += delta, normed first where the architecture says so.
void CpuLayers::add_to_residual(const FloatRegion& post_norm) {
  for (size_t a = 0; a < active_.size(); ++a) {
    float* delta = delta_.data() + a * hidden_;
    if (config_.post_norms) {
      kernels_.rms_norm(delta, post_norm.data(), config_.norm_epsilon, hidden_, delta);
    }
    float* residual = active_[a].row->residual;
    for (size_t i = 0; i < hidden_; ++i) residual[i] += delta[i];
  }
}

}  // namespace isthmus::engine
