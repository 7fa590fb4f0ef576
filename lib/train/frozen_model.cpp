#include "frozen_model.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <isthmus/model/adapters.h>

#include <algorithm>
#include <array>
#include <limits>
#include <optional>
#include <utility>

#include "recompute.h"
#include "torch_engine/device.h"
#include "torch_engine/layers.h"

namespace isthmus::train {
namespace {

// Rows whose logits are held at once: with 49,152 words 50 MB.
constexpr int64_t kLogitRows = 256;

Result<at::ScalarType> parse_precision(const std::string& name) {
  if (name == "fp32") return at::kFloat;
  if (name == "bf16") return at::kBFloat16;
  return fail(ErrorCode::kInvalidArgument,
              "train: unknown precision '" + name + "'; known are fp32 and bf16");
}

at::Tensor frequencies(const std::vector<float>& values, at::Device device) {
  if (values.empty()) return {};
  return at::tensor(values, at::kFloat).to(device);
}

/// Where a layer holds its kLayerMatrices, in their order.
constexpr std::array kMembers = {
    &torch_engine::LayerWeights::q,    &torch_engine::LayerWeights::k,
    &torch_engine::LayerWeights::v,    &torch_engine::LayerWeights::mix,
    &torch_engine::LayerWeights::gate, &torch_engine::LayerWeights::up,
    &torch_engine::LayerWeights::down};
static_assert(kMembers.size() == model::kLayerMatrices.size());

/// Causal attention of B sequences of S rows over themselves; heads are [B * S, H, K].
at::Tensor attend(const model::ModelConfig& config, int32_t layer, int64_t batch,
                  const at::Tensor& hidden, const at::Tensor& q, const at::Tensor& k,
                  const at::Tensor& v) {
  const int64_t rows = q.size(0) / batch;
  const int64_t group = config.head_count / config.kv_head_count;
  const auto heads_first = [&](const at::Tensor& heads) {
    return heads.view({batch, rows, heads.size(1), heads.size(2)}).transpose(1, 2);
  };
  const at::Tensor keys = heads_first(k).repeat_interleave(group, 1);
  const at::Tensor values = heads_first(v).repeat_interleave(group, 1);
  at::Tensor scores =
      at::matmul(heads_first(q) * config.attention_scale, keys.transpose(2, 3)).to(at::kFloat);
  scores = torch_engine::softcap(scores, config.attention_softcap);
  const int64_t window = config.layers[static_cast<size_t>(layer)].window;
  const at::Tensor unseen =
      window == 0 ? hidden : hidden.logical_or(at::ones_like(hidden).tril(-window));
  scores = scores.masked_fill(unseen, -std::numeric_limits<float>::infinity());
  const at::Tensor mixed = at::matmul(at::softmax(scores, -1).to(values.scalar_type()), values);
  return mixed.transpose(1, 2).reshape({batch * rows, config.head_count * config.head_size});
}

}  // namespace

FrozenModel::FrozenModel(std::shared_ptr<const model::ModelFile> file, int32_t cut,
                         at::Device device, bool recompute)
    : file_(std::move(file)),
      cut_(cut),
      device_(device),
      recompute_(recompute),
      rope_global_(frequencies(config().rope_global, device)),
      rope_local_(frequencies(config().rope_local, device)) {}

Result<FrozenModel> FrozenModel::load(std::shared_ptr<const model::ModelFile> file, int32_t cut,
                                      const std::string& device, const std::string& precision,
                                      bool recompute) {
  const model::ModelConfig& config = file->config();
  if (cut < 0 || cut > config.layer_count) {
    return fail(ErrorCode::kInvalidArgument, "train: cut is " + std::to_string(cut) +
                                                 ", must be in [0, " +
                                                 std::to_string(config.layer_count) + "]");
  }
  ISTHMUS_ASSIGN(const at::Device place, torch_engine::open_device(device));
  ISTHMUS_ASSIGN(const at::ScalarType type, parse_precision(precision));
  FrozenModel model(std::move(file), cut, place, recompute);
  model::Part whole{.embedding = true, .head = true};
  whole.layers.emplace_back(0, config.layer_count);
  ISTHMUS_ASSIGN(model.weights_, torch_engine::load_weights(*model.file_, whole, place, type, {}));
  model.adapted_ = model.weights_.layers;
  return model;
}

Status FrozenModel::adapt(const std::string& tensor, at::Tensor down, at::Tensor up) {
  const int32_t layer = model::layer_of_matrix(tensor).value_or(-1);
  const bool is_behind = layer >= cut_ && layer < config().layer_count;
  for (size_t i = 0; is_behind && i < kMembers.size(); ++i) {
    if (tensor != model::layer_matrix(layer, model::kLayerMatrices[i])) continue;
    torch_engine::Linear& linear = adapted_[static_cast<size_t>(layer)].*kMembers[i];
    if (up.size(0) != linear.weight.size(0) || down.size(1) != linear.weight.size(1) ||
        up.size(1) != down.size(0))
      break;
    linear.down = std::move(down);
    linear.up = std::move(up);
    return {};
  }
  return fail(ErrorCode::kInvalidArgument,
              "train: an adapter of '" + tensor + "' fits no matrix behind the cut");
}

at::Tensor FrozenModel::through(const Layers& layers, at::Tensor rows, int32_t first, int32_t end,
                                bool recompute) const {
  // The mask below is square in the length, which is no matter behind the embedding alone.
  if (first == end) return rows;
  const int64_t batch = rows.size(0);
  const int64_t length = rows.size(1);
  const at::Tensor positions =
      at::arange(length, at::TensorOptions(device_).dtype(at::kInt)).repeat({batch});
  const torch_engine::Rotation global(positions, rope_global_, config().rope_pairs);
  std::optional<torch_engine::Rotation> local;
  if (rope_local_.defined()) local.emplace(positions, rope_local_, config().rope_pairs);
  const at::Tensor hidden =
      at::ones({length, length}, at::TensorOptions(device_).dtype(at::kBool)).triu(1);
  rows = rows.reshape({batch * length, -1});
  for (int32_t layer = first; layer < end; ++layer) {
    const auto index = static_cast<size_t>(layer);
    const torch_engine::Rotation& rotation = config().layers[index].local_rope ? *local : global;
    const auto run = [this, weights = layers[index], layer, batch, hidden,
                      rotation](const at::Tensor& x) {
      const auto attention = [&](const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
        return attend(config(), layer, batch, hidden, q, k, v);
      };
      return torch_engine::run_layer(config(), weights, rotation, attention, x);
    };
    rows = recompute ? train::recompute(run, rows) : run(rows);
  }
  return rows.view({batch, length, -1});
}

at::Tensor FrozenModel::boundary(const at::Tensor& ids) const {
  const at::NoGradGuard no_gradients;
  const at::Tensor flat = ids.to(device_).reshape({-1});
  const at::Tensor rows =
      weights_.embedding.index_select(0, flat).to(at::kFloat) * config().embedding_scale;
  return through(weights_.layers, rows.view({ids.size(0), ids.size(1), -1}), 0, cut_,
                 /*recompute=*/false);
}

at::Tensor FrozenModel::logits(const at::Tensor& last) const {
  const at::Tensor normed = torch_engine::rms_norm(last, weights_.final_norm, config());
  const at::Tensor products =
      at::linear(normed.to(weights_.head.scalar_type()), weights_.head).to(at::kFloat);
  return torch_engine::softcap(products, config().final_softcap);
}

at::Tensor FrozenModel::scores(const at::Tensor& rows, int64_t count, const Score& score) const {
  const at::Tensor last = through(adapted_, rows, cut_, config().layer_count, recompute_);
  const at::Tensor predicting =
      last.narrow(1, rows.size(1) - count, count).reshape({-1, last.size(2)});
  std::vector<at::Tensor> parts;
  for (int64_t first = 0; first < predicting.size(0); first += kLogitRows) {
    const int64_t size = std::min(kLogitRows, predicting.size(0) - first);
    const auto run = [this, score, first](const at::Tensor& x) { return score(logits(x), first); };
    const at::Tensor x = predicting.narrow(0, first, size);
    parts.push_back(recompute_ ? train::recompute(run, x) : run(x));
  }
  return at::cat(parts).view({rows.size(0), count});
}

at::Tensor FrozenModel::losses(const at::Tensor& rows, const at::Tensor& targets) const {
  const at::Tensor wanted = targets.to(device_).reshape({-1});
  return scores(rows, targets.size(1), [wanted](const at::Tensor& logits, int64_t first) {
    return at::cross_entropy_loss(logits, wanted.narrow(0, first, logits.size(0)), /*weight=*/{},
                                  /*reduction=none*/ 0);
  });
}

at::Tensor FrozenModel::divergences(const at::Tensor& rows, const at::Tensor& clean) const {
  at::Tensor last;
  {
    const at::NoGradGuard no_gradients;
    last = through(weights_.layers, clean, cut_, config().layer_count, /*recompute=*/false);
    last = last.reshape({-1, last.size(2)});
  }
  return scores(rows, clean.size(1), [this, last](const at::Tensor& found, int64_t first) {
    at::Tensor wanted;
    {
      const at::NoGradGuard no_gradients;
      wanted = at::log_softmax(logits(last.narrow(0, first, found.size(0))), -1);
    }
    return (wanted.exp() * (wanted - at::log_softmax(found, -1))).sum(-1);
  });
}

}  // namespace isthmus::train
