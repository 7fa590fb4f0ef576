#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <c10/core/DeviceGuard.h>
#include <c10/core/InferenceMode.h>
#include <isthmus/engine/batch.h>
#include <isthmus/torch_engine/torch_engine.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "device.h"
#include "layers.h"
#include "torch_cache.h"
#include "weights.h"

namespace isthmus::torch_engine {
namespace {

struct Precision {
  std::string_view name;
  at::ScalarType type;
};

constexpr std::array kPrecisions = {Precision{"fp32", at::kFloat}, Precision{"bf16", at::kBFloat16},
                                    Precision{"fp16", at::kHalf}};

Result<Precision> parse_precision(std::string_view name, at::Device device) {
  if (name.empty()) name = device.is_cpu() ? "fp32" : "bf16";
  for (const Precision& precision : kPrecisions) {
    if (precision.name == name) return precision;
  }
  return fail(ErrorCode::kInvalidArgument, "torch: unknown precision '" + std::string(name) +
                                               "'; known are fp32, bf16 and fp16");
}

at::Tensor floats_on(at::Device device, const float* data, at::IntArrayRef shape) {
  // from_blob borrows; clone and to() copy, so that nothing refers to the caller's memory.
  const at::Tensor borrowed = at::from_blob(const_cast<float*>(data), shape, at::kFloat);
  return device.is_cpu() ? borrowed.clone() : borrowed.to(device);
}

Matrix to_matrix(const at::Tensor& rows) {
  const at::Tensor host = rows.to(at::kCPU, at::kFloat).contiguous();
  Matrix matrix(static_cast<size_t>(host.size(0)), static_cast<size_t>(host.size(1)));
  std::memcpy(matrix.data(), host.const_data_ptr<float>(),
              static_cast<size_t>(host.numel()) * sizeof(float));
  return matrix;
}

/// One sequence of a batch on its way: where its rows are now.
struct Traveller {
  Sequence sequence;
  engine::LayerWindow window;
  at::Tensor rows;  ///< [T, D] float
};

class TorchEngine final : public engine::Engine {
 public:
  TorchEngine(std::shared_ptr<const model::ModelFile> file, model::Part part, at::Device device,
              Precision precision, Weights weights)
      : file_(std::move(file)),
        config_(file_->config()),
        part_(std::move(part)),
        device_(device),
        precision_(precision),
        weights_(std::move(weights)),
        rope_global_(frequencies(config_.rope_global)),
        rope_local_(frequencies(config_.rope_local)) {}

  const model::ModelConfig& config() const override { return config_; }
  const model::Part& part() const override { return part_; }
  engine::EngineInfo info() const override {
    engine::EngineInfo info;
    info.device = device_.str();
    info.precision = precision_.name;
    info.weight_bytes = weights_.bytes;
    info.kv_bytes_per_token_and_layer = TorchCache::bytes_per_position(config_, precision_.type);
    return info;
  }
  bool batch_invariant() const override { return false; }

  Result<std::unique_ptr<engine::KvCache>> make_cache(engine::LayerWindow layers,
                                                      int32_t capacity) override {
    ISTHMUS_TRY(engine::check_cache(*this, layers, capacity));
    return guarded([&]() -> Result<std::unique_ptr<engine::KvCache>> {
      const auto options = at::TensorOptions(device_).dtype(precision_.type);
      return std::make_unique<TorchCache>(identity(), config_, layers, capacity, options);
    });
  }

  Result<std::vector<Matrix>> forward(std::span<const engine::Slice> slices) override {
    ISTHMUS_TRY(engine::check_batch(*this, slices));
    return guarded([&]() -> Result<std::vector<Matrix>> {
      const c10::InferenceMode inference;
      const c10::OptionalDeviceGuard guard(device_.is_cpu() ? std::nullopt
                                                            : std::optional(device_));
      return run(slices);
    });
  }

 private:
  std::vector<Matrix> run(std::span<const engine::Slice> slices) {
    std::vector<Traveller> travellers;
    for (const engine::Slice& slice : slices) travellers.push_back(depart(slice));
    pass_layers(travellers);
    std::vector<Matrix> results;
    for (size_t i = 0; i < slices.size(); ++i) {
      results.push_back(arrive(slices[i], travellers[i].rows));
    }
    finish_work(device_);  // where no rows are wanted, nothing has waited for it yet
    for (const Traveller& traveller : travellers) {
      traveller.sequence.cache->append(traveller.sequence.row_count);
    }
    return results;
  }

  /// The rows of a slice in front of its first layer, and room in its cache.
  Traveller depart(const engine::Slice& slice) const {
    auto* cache = static_cast<TorchCache*>(slice.cache);
    const auto count = static_cast<int64_t>(engine::token_count(slice));
    cache->make_room(count);
    Traveller traveller{{cache, count}, cache->layers(), {}};
    if (slice.tokens.empty()) {
      traveller.rows = floats_on(device_, slice.hidden.data(), {count, config_.hidden_size});
      return traveller;
    }
    const at::Tensor ids =
        at::from_blob(const_cast<int32_t*>(slice.tokens.data()), {count}, at::kInt).to(device_);
    traveller.rows =
        weights_.embedding.index_select(0, ids).to(at::kFloat) * config_.embedding_scale;
    return traveller;
  }

  /// Takes all sequences layer by layer together: a sequence joins at its window's first layer and
  /// leaves at its end.
  void pass_layers(std::vector<Traveller>& travellers) const {
    std::vector<Traveller*> joined;
    at::Tensor rows;
    std::vector<Sequence> sequences;
    std::optional<Rotation> global;
    std::optional<Rotation> local;
    for (int32_t layer = 0; layer <= config_.layer_count; ++layer) {
      std::vector<Traveller*> inside;
      for (Traveller& traveller : travellers) {
        const engine::LayerWindow window = traveller.window;
        if (window.first <= layer && layer < window.end) inside.push_back(&traveller);
      }
      if (inside != joined) {
        separate(joined, rows);
        joined = std::move(inside);
        if (!joined.empty()) {
          rows = join(joined, sequences);
          const at::Tensor positions = positions_of(sequences);
          global.emplace(positions, rope_global_, config_.rope_pairs);
          if (rope_local_.defined()) local.emplace(positions, rope_local_, config_.rope_pairs);
        }
      }
      if (joined.empty()) continue;
      const auto index = static_cast<size_t>(layer);
      rows = run_layer(config_, weights_.layers[index], layer,
                       config_.layers[index].local_rope ? *local : *global, sequences, rows);
    }
  }

  static void separate(const std::vector<Traveller*>& joined, const at::Tensor& rows) {
    int64_t start = 0;
    for (Traveller* traveller : joined) {
      traveller->rows = rows.narrow(0, start, traveller->sequence.row_count);
      start += traveller->sequence.row_count;
    }
  }

  static at::Tensor join(const std::vector<Traveller*>& joined, std::vector<Sequence>& sequences) {
    sequences.clear();
    std::vector<at::Tensor> parts;
    for (const Traveller* traveller : joined) {
      sequences.push_back(traveller->sequence);
      parts.push_back(traveller->rows);
    }
    return parts.size() == 1 ? parts.front() : at::cat(parts);
  }

  at::Tensor positions_of(const std::vector<Sequence>& sequences) const {
    std::vector<int32_t> positions;
    for (const Sequence& sequence : sequences) {
      for (int64_t i = 0; i < sequence.row_count; ++i) {
        positions.push_back(sequence.cache->length() + static_cast<int32_t>(i));
      }
    }
    return at::tensor(positions, at::kInt).to(device_);
  }

  /// What a slice asked for, from its rows behind the last layer.
  Matrix arrive(const engine::Slice& slice, at::Tensor rows) const {
    const auto wanted = static_cast<int64_t>(engine::output_count(slice));
    rows = rows.narrow(0, rows.size(0) - wanted, wanted);
    if (slice.output == engine::Output::kLogits) {
      const at::Tensor x = rms_norm(rows, weights_.final_norm, config_);
      const at::Tensor head = weights_.head;
      rows =
          softcap(at::linear(x.to(head.scalar_type()), head).to(at::kFloat), config_.final_softcap);
    }
    return to_matrix(rows);
  }

  at::Tensor frequencies(const std::vector<float>& values) const {
    if (values.empty()) return {};
    return floats_on(device_, values.data(), {static_cast<int64_t>(values.size())});
  }

  const std::shared_ptr<const model::ModelFile> file_;
  const model::ModelConfig& config_;  // of `file_`
  const model::Part part_;
  const at::Device device_;
  const Precision precision_;
  const Weights weights_;
  const at::Tensor rope_global_;  // [K/2]
  const at::Tensor rope_local_;   // [K/2], or undefined
};

}  // namespace

Result<std::unique_ptr<engine::Engine>> load_torch_engine(
    const std::shared_ptr<const model::ModelFile>& file, const model::Part& part,
    const TorchOptions& options, const engine::Progress& progress) {
  ISTHMUS_TRY(part.validate(file->config().layer_count));
  if (options.threads < 0) {
    return fail(ErrorCode::kInvalidArgument,
                "torch: threads is " + std::to_string(options.threads) + ", must not be negative");
  }
  return guarded([&]() -> Result<std::unique_ptr<engine::Engine>> {
    ISTHMUS_ASSIGN(const c10::Device device, open_device(options.device));
    ISTHMUS_ASSIGN(const Precision precision, parse_precision(options.precision, device));
    if (options.threads > 0) at::set_num_threads(options.threads);
    const c10::InferenceMode inference;
    ISTHMUS_ASSIGN(Weights weights, load_weights(*file, part, device, precision.type, progress));
    return std::make_unique<TorchEngine>(file, part, device, precision, std::move(weights));
  });
}

}  // namespace isthmus::torch_engine
