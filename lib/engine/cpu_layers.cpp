#include "cpu_layers.h"

#include <isthmus/kernels/pack.h>
#include <isthmus/kernels/portable_math.h>

#include <algorithm>

namespace isthmus::engine {
namespace {

constexpr size_t kRowGrain = 4;          // rows handed to a thread at once
constexpr size_t kRowsPerAttention = 8;  // rows of a sequence that share a pass over its cache

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

}  // namespace

CpuLayers::CpuLayers(const model::ModelConfig& config, const CpuWeights& weights,
                     const Numbers& numbers, const kernels::KernelTable& kernels, ThreadPool& pool)
    : config_(config),
      weights_(weights),
      numbers_(numbers),
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
    if (active_.empty()) continue;
    find_runs();
    run_layer(layer);
  }
}

/// Cuts the active rows into runs that attend together.
void CpuLayers::find_runs() {
  runs_.clear();
  for (size_t a = 0; a < active_.size(); ++a) {
    const bool continues = a > 0 && active_[a].row->cache == active_[a - 1].row->cache;
    if (continues && runs_.back().count < kRowsPerAttention) {
      ++runs_.back().count;
    } else {
      runs_.push_back({a, 1});
    }
  }
}

void CpuLayers::run_layer(int32_t layer) {
  const LayerWeights& w = weights_.layers[static_cast<size_t>(layer)];
  normalize(w.attention_norm);
  project(normed_, w.qkv, w.qkv_bias, qkv_);
  store_keys_and_rotate(w, layer);
  attend(layer);
  project(mixed_, w.mix, w.mix_bias, delta_);
  add_to_residual(w.post_attention_norm);

  normalize(w.mlp_norm);
  project(normed_, w.gate_up, /*bias=*/nullptr, gate_up_);
  gate();
  project(gated_, w.down, /*bias=*/nullptr, delta_);
  add_to_residual(w.post_mlp_norm);
}

void CpuLayers::score(std::span<const Row* const> rows) {
  active_.clear();
  for (const Row* row : rows) active_.push_back({row, 0});
  normalize(weights_.final_norm);
  const size_t vocab = weights_.head.outputs;
  if (rows.size() == 1) {
    multiply(normed_, weights_.head, /*bias=*/nullptr, rows[0]->output);
  } else {
    project(normed_, weights_.head, /*bias=*/nullptr, delta_);
    for (size_t a = 0; a < rows.size(); ++a) {
      std::copy_n(delta_.data() + a * vocab, vocab, rows[a]->output);
    }
  }
  if (config_.final_softcap == 0) return;
  for (const Row* row : rows) kernels_.softcap(row->output, config_.final_softcap, vocab);
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
void CpuLayers::normalize(const float* weight) {
  normed_.resize(active_.size() * hidden_);
  pool_.parallel_for(active_.size(), kRowGrain, [&](size_t begin, size_t end) {
    for (size_t a = begin; a < end; ++a) {
      kernels_.rms_norm(active_[a].row->residual, weight, config_.norm_epsilon, hidden_,
                        normed_.data() + a * hidden_);
    }
  });
}

/// y [A, out] = x [A, in] times the transposed weight [out, in], plus bias [out] if any.
void CpuLayers::project(const std::vector<float>& x, const Linear& linear, const float* bias,
                        std::vector<float>& y) {
  y.resize(active_.size() * linear.outputs);
  multiply(x, linear, bias, y.data());
}

void CpuLayers::multiply(const std::vector<float>& x, const Linear& linear, const float* bias,
                         float* y) {
  kernels::Product floats;
  floats.x = x.data();
  floats.rows = active_.size();
  floats.inner = linear.inputs;
  floats.y_stride = linear.outputs;
  kernels::PackedProduct packed;
  if (linear.packed()) packed.x = quantize(x, linear.inputs);
  packed.rows = active_.size();
  packed.groups = kernels::group_count(linear.inputs);
  packed.y_stride = linear.outputs;

  const auto run_piece = [&](const Linear::Piece& piece, size_t first_output, size_t begin,
                             size_t end) {
    const float* piece_bias = bias == nullptr ? nullptr : bias + first_output;
    if (piece.blocks == nullptr) {
      kernels::Product product = floats;
      product.weights = piece.floats;
      product.bias = piece_bias;
      product.y = y + first_output;
      product.first_output = begin * kernels::kPackedOutputs;
      product.end_output = std::min(end * kernels::kPackedOutputs, piece.outputs);
      kernels_.product(product);
      return;
    }
    kernels::PackedProduct product = packed;
    product.format = piece.format;
    product.blocks = piece.blocks;
    product.bias = piece_bias;
    product.y = y + first_output;
    product.outputs = piece.outputs;
    product.first_block = begin;
    product.end_block = end;
    kernels_.packed_product(product);
  };

  pool_.parallel_for(linear.block_count(), /*grain=*/1, [&](size_t begin, size_t end) {
    size_t first_block = 0;
    size_t first_output = 0;
    for (const Linear::Piece& piece : linear.pieces) {
      const size_t blocks = piece.block_count();
      const size_t from = std::clamp(begin, first_block, first_block + blocks) - first_block;
      const size_t to = std::clamp(end, first_block, first_block + blocks) - first_block;
      if (from < to) run_piece(piece, first_output, from, to);
      first_block += blocks;
      first_output += piece.outputs;
    }
  });
}

/// x [A, inputs] as bytes, in scratch that lives until the next call.
kernels::QuantizedRows CpuLayers::quantize(const std::vector<float>& x, size_t inputs) {
  const size_t groups = kernels::group_count(inputs);
  const size_t all = active_.size() * groups;
  const auto make_plane = [all](PlaneMemory& memory) -> kernels::CodePlane {
    memory.codes.resize(all * kernels::kPackedGroup);
    memory.half_sums.resize(2 * all);
    return {memory.codes.data(), memory.half_sums.data()};
  };
  const auto from_group = [](const kernels::CodePlane& plane, size_t group) -> kernels::CodePlane {
    if (plane.codes == nullptr) return {};
    return {plane.codes + group * kernels::kPackedGroup, plane.half_sums + 2 * group};
  };
  scales_.resize(all);
  sums_.resize(all);
  kernels::QuantizedRows rows{make_plane(coarse_), {}, scales_.data(), sums_.data()};
  if (numbers_.two_bytes) rows.fine = make_plane(fine_);
  pool_.parallel_for(active_.size(), kRowGrain, [&](size_t begin, size_t end) {
    for (size_t a = begin; a < end; ++a) {
      const size_t at = a * groups;
      kernels_.quantize(x.data() + a * inputs, inputs,
                        {from_group(rows.coarse, at), from_group(rows.fine, at), rows.scales + at,
                         rows.sums + at});
    }
  });
  return rows;
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
      for (size_t i = 0; i < kv_size_; i += head_size_) {
        kernels_.store_kv(numbers_.cache, row.cache->head(layer, i / head_size_), head_size_,
                          static_cast<size_t>(row.position), k + i, v + i);
      }
    }
  });
}

void CpuLayers::shape_head(float* head, const float* norm, const float* rotation) const {
  if (config_.qk_norm) {
    kernels_.rms_norm(head, norm, config_.norm_epsilon, head_size_, head);
  }
  const bool adjacent = config_.rope_pairs == model::RopePairs::kAdjacent;
  kernels_.rotate(head, head_size_ / 2, adjacent, rotation);
}

/// mixed [A, H * K] = what each head of each row reads from its cache.
void CpuLayers::attend(int32_t layer) {
  mixed_.resize(active_.size() * q_size_);
  const auto kv_heads = static_cast<size_t>(config_.kv_head_count);
  kernels::Attention shared;
  shared.format = numbers_.cache;
  shared.head_size = head_size_;
  shared.query_stride = q_size_ + 2 * kv_size_;
  shared.out_stride = q_size_;
  shared.heads = static_cast<size_t>(config_.head_count) / kv_heads;
  shared.window = static_cast<size_t>(config_.layers[static_cast<size_t>(layer)].window);
  shared.scale = config_.attention_scale;
  shared.softcap = config_.attention_softcap;

  const size_t items = runs_.size() * kv_heads;
  const auto tables = [&](size_t item) {
    return active_[runs_[item / kv_heads].first].row->cache->head(layer, item % kv_heads);
  };
  const auto attend_run = [&](size_t item, size_t next, std::vector<float>& scores) {
    const Run& run = runs_[item / kv_heads];
    const size_t kv_head = item % kv_heads;
    const Row& row = *active_[run.first].row;
    kernels::Attention attention = shared;
    attention.kv = tables(item);
    if (next < items) attention.next = tables(next);
    const size_t first_head = kv_head * shared.heads * head_size_;
    attention.queries = qkv_.data() + run.first * shared.query_stride + first_head;
    attention.out = mixed_.data() + run.first * q_size_ + first_head;
    attention.rows = run.count;
    attention.position = static_cast<size_t>(row.position);
    attention.scores = scores.data();
    kernels_.attend(attention);
  };

  size_t furthest = 0;
  for (const Run& run : runs_) {
    const auto position = static_cast<size_t>(active_[run.first].row->position);
    furthest = std::max(furthest, position + run.count);
  }
  for (auto& scores : scores_) scores.resize(kernels::kAttentionTile * (furthest + 31));
  // Threads take turns, because later rows of a prompt see more positions.
  const size_t threads = scores_.size();
  pool_.parallel_for(threads, 1, [&](size_t begin, size_t end) {
    for (size_t thread = begin; thread < end; ++thread) {
      for (size_t i = thread; i < items; i += threads) {
        attend_run(i, i + threads, scores_[thread]);
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
void CpuLayers::add_to_residual(const float* post_norm) {
  for (size_t a = 0; a < active_.size(); ++a) {
    float* delta = delta_.data() + a * hidden_;
    if (config_.post_norms) {
      kernels_.rms_norm(delta, post_norm, config_.norm_epsilon, hidden_, delta);
    }
    float* residual = active_[a].row->residual;
    for (size_t i = 0; i < hidden_; ++i) residual[i] += delta[i];
  }
}

}  // namespace isthmus::engine
