#include <isthmus/engine/batch.h>
#include <isthmus/engine/cpu_engine.h>
#include <isthmus/kernels/dispatch.h>

#include <algorithm>
#include <new>
#include <string>
#include <utility>
#include <vector>

#include "cpu_cache.h"
#include "cpu_layers.h"
#include "cpu_weights.h"

namespace isthmus::engine {
namespace {

// Long prompts go through the layers in passes of this many rows, which bounds the scratch memory.
// A row's bits do not depend on it.
constexpr size_t kRowsPerPass = 256;
// The same for the head, whose rows are much wider.
constexpr size_t kRowsPerScore = 64;

kernels::KvFormat kv_format(const CpuEngineOptions& options) {
  if (options.precision == Precision::kExact) return kernels::KvFormat::kF32;
  return options.kv_bits == KvBits::k16 ? kernels::KvFormat::kF16 : kernels::KvFormat::kInt8;
}

/// How many positions cost as much as a row's products. Attention multiplies floats; `costs` is how
/// many of the matrices' products take as long (SmolLM2, AVX-512, pieces of 32 rows).
int32_t positions_per_row(const model::ModelConfig& config, Precision precision) {
  const double costs = precision == Precision::kExact ? 1 : precision == Precision::kFine ? 1.7 : 3;
  const auto hidden = int64_t{config.hidden_size};
  const int64_t queries = int64_t{config.head_count} * config.head_size;
  const int64_t keys = int64_t{config.kv_head_count} * config.head_size;
  const int64_t matrices = hidden * (2 * queries + 2 * keys + 3 * int64_t{config.mlp_size});
  // Layers with a window look no further back the longer a text gets.
  const auto growing = std::count_if(config.layers.begin(), config.layers.end(),
                                     [](const auto& layer) { return layer.window == 0; });
  if (growing == 0) return 0;
  const double all = static_cast<double>(matrices * config.layer_count);
  return static_cast<int32_t>(all / (costs * static_cast<double>(2 * queries * growing)));
}

class CpuEngine final : public Engine {
 public:
  CpuEngine(std::shared_ptr<const model::ModelFile> file, model::Part part,
            const CpuEngineOptions& options, CpuWeights weights,
            const kernels::KernelTable& kernels, ThreadPool& pool)
      : file_(std::move(file)),
        part_(std::move(part)),
        precision_(options.precision),
        kv_format_(kv_format(options)),
        weights_(std::move(weights)),
        layers_(file_->config(), weights_, {kv_format_, options.precision == Precision::kFine},
                kernels, pool) {}

  const model::ModelConfig& config() const override { return file_->config(); }
  const model::Part& part() const override { return part_; }
  EngineInfo info() const override {
    EngineInfo info;
    info.device = "cpu";
    info.precision = to_string(precision_);
    info.weight_bytes = weights_.memory.size();
    info.kv_bytes_per_token_and_layer = CpuCache::bytes_per_position(config(), kv_format_);
    info.positions_per_row = positions_per_row(config(), precision_);
    return info;
  }
  bool batch_invariant() const override { return true; }

  Result<std::unique_ptr<KvCache>> make_cache(LayerWindow layers, int32_t capacity) override {
    ISTHMUS_TRY(check_cache(*this, layers, capacity));
    return CpuCache::make(identity(), config(), kv_format_, layers, capacity);
  }

  Result<std::vector<Matrix>> forward(std::span<const Slice> slices) override {
    ISTHMUS_TRY(check_batch(*this, slices));
    try {
      return run(slices);
    } catch (const std::bad_alloc&) {
      return fail(ErrorCode::kOutOfMemory,
                  "engine: no memory for a batch of " + std::to_string(slices.size()) + " slices");
    }
  }

 private:
  Result<std::vector<Matrix>> run(std::span<const Slice> slices) {
    size_t row_count = 0;
    for (const Slice& slice : slices) row_count += token_count(slice);
    Matrix residual(row_count, static_cast<size_t>(config().hidden_size));
    ISTHMUS_TRY(fill_input(slices, residual));
    std::vector<Matrix> results = make_results(slices);
    const std::vector<Row> rows = make_rows(slices, residual, results);
    for (size_t first = 0; first < rows.size(); first += kRowsPerPass) {
      run_pass(std::span(rows).subspan(first, std::min(kRowsPerPass, rows.size() - first)));
    }
    for (const Slice& slice : slices) {
      static_cast<CpuCache*>(slice.cache)->append(token_count(slice));
    }
    return results;
  }

  /// Embeddings of tokens, or the rows that came in.
  Status fill_input(std::span<const Slice> slices, Matrix& residual) const {
    size_t next = 0;
    for (const Slice& slice : slices) {
      for (const int32_t id : slice.tokens) {
        const std::span<float> row = residual.row(next++);
        ISTHMUS_TRY(model::read_rows(*weights_.embedding, static_cast<uint64_t>(id),
                                     MatrixView<float>(row.data(), 1, row.size())));
        for (float& x : row) x *= config().embedding_scale;
      }
      std::copy_n(slice.hidden.data(), slice.hidden.values().size(),
                  residual.data() + next * residual.cols());
      next += slice.hidden.rows();
    }
    return {};
  }

  std::vector<Matrix> make_results(std::span<const Slice> slices) const {
    std::vector<Matrix> results;
    results.reserve(slices.size());
    for (const Slice& slice : slices) {
      const bool logits = slice.output == Output::kLogits;
      const int32_t width = logits ? config().vocab_size : config().hidden_size;
      results.emplace_back(output_count(slice), static_cast<size_t>(width));
    }
    return results;
  }

  static std::vector<Row> make_rows(std::span<const Slice> slices, Matrix& residual,
                                    std::vector<Matrix>& results) {
    std::vector<Row> rows;
    rows.reserve(residual.rows());
    for (size_t s = 0; s < slices.size(); ++s) {
      const size_t tokens = token_count(slices[s]);
      const size_t first_output = tokens - results[s].rows();
      for (size_t t = 0; t < tokens; ++t) {
        Row row;
        row.cache = static_cast<CpuCache*>(slices[s].cache);
        row.position = row.cache->length() + static_cast<int32_t>(t);
        row.residual = residual.row(rows.size()).data();
        if (t >= first_output) row.output = results[s].row(t - first_output).data();
        row.output_kind = slices[s].output;
        rows.push_back(row);
      }
    }
    return rows;
  }

  void run_pass(std::span<const Row> rows) {
    layers_.run(rows);
    std::vector<const Row*> scored;
    for (const Row& row : rows) {
      if (row.output == nullptr) continue;
      if (row.output_kind == Output::kLogits) {
        scored.push_back(&row);
      } else {
        std::copy_n(row.residual, static_cast<size_t>(config().hidden_size), row.output);
      }
    }
    for (size_t first = 0; first < scored.size(); first += kRowsPerScore) {
      layers_.score(
          std::span(scored).subspan(first, std::min(kRowsPerScore, scored.size() - first)));
    }
  }

  std::shared_ptr<const model::ModelFile> file_;
  model::Part part_;
  Precision precision_;
  kernels::KvFormat kv_format_;
  CpuWeights weights_;
  CpuLayers layers_;
};

}  // namespace

int32_t WeightPolicy::bits(int32_t layer) const {
  int32_t bits = 8;
  for (const Range& range : ranges) {
    if (range.layers.first <= layer && layer < range.layers.end) bits = range.bits;
  }
  return bits;
}

Status WeightPolicy::validate() const {
  std::vector<int32_t> all = {head_bits};
  for (const Range& range : ranges) all.push_back(range.bits);
  for (const int32_t bits : all) {
    if (bits == 4 || bits == 8) continue;
    return fail(ErrorCode::kInvalidArgument,
                "engine: weights of " + std::to_string(bits) + " bits, but there are only 4 and 8");
  }
  return {};
}

std::string_view to_string(Precision precision) {
  switch (precision) {
    case Precision::kExact:
      return "exact";
    case Precision::kFine:
      return "fine";
    case Precision::kFast:
      return "fast";
  }
  return "unknown";
}

std::optional<Precision> find_precision(std::string_view name) {
  for (const Precision precision : {Precision::kExact, Precision::kFine, Precision::kFast})
    if (to_string(precision) == name) return precision;
  return std::nullopt;
}

Result<std::unique_ptr<Engine>> load_cpu_engine(const std::shared_ptr<const model::ModelFile>& file,
                                                const model::Part& part, ThreadPool& pool,
                                                const CpuEngineOptions& options,
                                                const Progress& progress) {
  ISTHMUS_TRY(part.validate(file->config().layer_count));
  ISTHMUS_TRY(options.weights.validate());
  ISTHMUS_ASSIGN(const kernels::KernelTable* kernels, kernels::select_kernels());
  ISTHMUS_ASSIGN(CpuWeights weights, load_cpu_weights(*file, part, options, pool, progress));
  return std::make_unique<CpuEngine>(file, part, options, std::move(weights), *kernels, pool);
}

}  // namespace isthmus::engine
