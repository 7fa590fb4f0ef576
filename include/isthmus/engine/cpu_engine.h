// The torch-free engine: a device's front and tail, or a CPU server's back.
#pragma once

#include <isthmus/core/error.h>
#include <isthmus/core/thread_pool.h>
#include <isthmus/engine/engine.h>
#include <isthmus/model/model_file.h>
#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>
#include <vector>

namespace isthmus::engine {

/// How a CPU engine computes. Either way a row's bits depend on that row and its cache alone, and
/// are the same on every machine.
enum class Precision : uint8_t {
  kExact,  ///< float weights, activations and cache: comparable with other implementations
  kFine,   ///< packed weights, activations as two bytes with one scale per 32
  kFast,   ///< packed weights, activations as bytes with one scale per 32
};
/// "exact", "fine", "fast".
[[nodiscard]] std::string_view to_string(Precision precision);
/// Nothing for any other name.
[[nodiscard]] std::optional<Precision> find_precision(std::string_view name);

/// What a fine or fast engine keeps of keys and values. An exact one keeps floats.
enum class KvBits : uint8_t {
  k16,  ///< binary16, with a power of two per position and head where numbers are too large for it
  k8,   ///< bytes with a scale per position and head
};

/// Bits per weight by layer range: one-point split compression (Sung et al. 2025, section "OPSC")
/// is two ranges, front and back. A matrix that has a lossless packed format whose codes take no
/// more bits stays as it is (at 8 bits every quantised type but Q2_K, at 4 bits Q4_0, Q4_1 and
/// Q4_K); others are rounded, with one scale and offset per 32 chosen by error search. A matrix
/// that an adapter changes (isthmus/model/adapters.h) is rounded to 8 bits whatever is asked for.
struct WeightPolicy {
  struct Range {
    LayerWindow layers;
    int32_t bits = 8;
  };
  std::vector<Range> ranges;  ///< where they overlap, the last one counts; other layers have 8 bits
  int32_t head_bits = 8;

  [[nodiscard]] int32_t bits(int32_t layer) const;
  /// \returns kInvalidArgument naming bits other than 4 and 8.
  [[nodiscard]] Status validate() const;
};

struct CpuEngineOptions {
  Precision precision = Precision::kFine;
  KvBits kv_bits = KvBits::k16;  ///< not for exact
  WeightPolicy weights;          ///< not for exact
};

/// Loads the weights of `part` and makes an engine. `pool` is borrowed and must outlive the engine.
///
/// Exact: float weights and activations, every sum in one fixed order.
/// Fine and fast: GGUF's Q3_K to Q8_0 run in their own precision, repacked without loss; Q2_K and
/// plain floats are rounded as `WeightPolicy` says (8 bits: a weight is off by at most half a step
/// of 1/255 of its group's range). Activations in front of a product are rounded to 1/32,258 (fine)
/// or 1/127 (fast) of the largest of their group of 32.
///
/// \returns kNotFound or kCorrupt naming a tensor that is missing or has the wrong shape;
/// kNotFinite naming one that cannot be packed; kInvalidArgument for a part outside the model or
/// options that do not validate; kOutOfMemory.
[[nodiscard]] Result<std::unique_ptr<Engine>> load_cpu_engine(
    const std::shared_ptr<const model::ModelFile>& file, const model::Part& part, ThreadPool& pool,
    const CpuEngineOptions& options = {}, const Progress& progress = {});

}  // namespace isthmus::engine
