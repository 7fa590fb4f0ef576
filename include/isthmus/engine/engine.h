// Running layers: one interface, every device behind it.
//
// Front, back, tail and whole model are the same call over different layer windows, and one batch
// may mix them. Batch invariance is the contract: the bits of a row never depend on the other rows
// of a batch, on how a prompt was cut into chunks, or on the number of threads.
// `Engine::batch_invariant` says whether an engine keeps it.
#pragma once

#include <isthmus/core/error.h>
#include <isthmus/core/matrix.h>
#include <isthmus/model/config.h>
#include <isthmus/model/model_file.h>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace isthmus::engine {

/// Layers [first, end). Empty windows are normal: embedding alone is [0, 0), final norm and head
/// alone is [L, L).
struct LayerWindow {
  int32_t first = 0;
  int32_t end = 0;

  [[nodiscard]] int32_t count() const { return end - first; }
  friend bool operator==(const LayerWindow&, const LayerWindow&) = default;
};

/// Keys and values of one sequence for one layer window. Made by an engine, used only with that
/// engine, owned by the caller. Address space for `capacity` tokens is reserved; memory is
/// committed as the cache grows.
class KvCache {
 public:
  virtual ~KvCache() = default;
  [[nodiscard]] LayerWindow layers() const { return layers_; }
  /// Tokens held; the position of the next one.
  [[nodiscard]] int32_t length() const { return length_; }
  /// The most tokens it can hold.
  [[nodiscard]] int32_t capacity() const { return capacity_; }
  /// The identity of the engine that made it. Kept alive, so that no later engine's can be equal.
  [[nodiscard]] const std::shared_ptr<const void>& owner() const { return owner_; }
  /// Forgets positions [length, ...). Costs nothing. \returns kInvalidArgument unless 0 <= length
  /// <= length().
  [[nodiscard]] Status truncate(int32_t length);

 protected:
  KvCache(std::shared_ptr<const void> owner, LayerWindow layers, int32_t capacity)
      : owner_(std::move(owner)), layers_(layers), capacity_(capacity) {}
  int32_t length_ = 0;

 private:
  std::shared_ptr<const void> owner_;
  LayerWindow layers_;
  int32_t capacity_;
};

/// What a slice gives back.
enum class Output : uint8_t {
  kHidden,  ///< [rows, D] activations behind the window's last layer
  kLogits,  ///< [rows, V] scores: final norm and LM head applied; the window must end at L
};

/// Which of a slice's rows are given back.
enum class Rows : uint8_t { kNone, kLast, kAll };

/// The next tokens of one sequence. They are appended to `cache`, at positions cache->length() and
/// up, and pass through the layers of cache->layers(). There is at least one, given as an id or as
/// a row.
struct Slice {
  KvCache* cache = nullptr;         ///< borrowed; appears once in a batch
  std::span<const int32_t> tokens;  ///< ids; only for a window that starts at layer 0; or else
  MatrixView<const float> hidden;   ///< [T, D] activations in front of the window's first layer; at
                                    ///< layer 0 those are the scaled embeddings
  Output output = Output::kHidden;
  Rows rows = Rows::kAll;
};

/// Where loading and computing happen, how exactly, and in how much memory.
struct EngineInfo {
  std::string device;         ///< "cpu", "cuda:0"
  std::string precision;      ///< "exact", "fine", "fast", "fp32", "bf16", ...
  uint64_t weight_bytes = 0;  ///< held in memory; an embedding that is read from the file is not
  uint64_t kv_bytes_per_token_and_layer = 0;
  /// Attending to so many positions takes as long as a row's products; 0: not known.
  int32_t positions_per_row = 0;
};

/// Executes layers of one model. Not thread-safe: one call at a time.
class Engine {
 public:
  Engine() = default;
  virtual ~Engine() = default;

  [[nodiscard]] virtual const model::ModelConfig& config() const = 0;
  /// The layers, and embedding and head, that this engine holds.
  [[nodiscard]] virtual const model::Part& part() const = 0;
  [[nodiscard]] virtual EngineInfo info() const = 0;
  /// What tells this engine's caches from all others.
  [[nodiscard]] const std::shared_ptr<const void>& identity() const { return identity_; }
  /// Whether rows are bit-identical however they are batched and chunked.
  [[nodiscard]] virtual bool batch_invariant() const = 0;

  /// \returns kInvalidArgument when the window is not held by this engine or capacity < 1,
  /// kOutOfMemory.
  [[nodiscard]] virtual Result<std::unique_ptr<KvCache>> make_cache(LayerWindow layers,
                                                                    int32_t capacity) = 0;

  /// Runs a ragged batch; result i belongs to slice i and has the rows it asked for (0 rows for
  /// kNone). A result may hold NaN or infinity, where numbers overflowed: that is one sequence's
  /// trouble, so whoever reads the rows checks. On an error no cache has changed. \returns
  /// kInvalidArgument (shapes, windows, token ids outside the vocabulary), kContextFull, kNotFinite
  /// when an input row holds NaN or infinity, kOutOfMemory, kDeviceFailed.
  [[nodiscard]] virtual Result<std::vector<Matrix>> forward(std::span<const Slice> slices) = 0;

 protected:
  /// One around another: the caches of either are the other's.
  explicit Engine(std::shared_ptr<const void> identity) : identity_(std::move(identity)) {}

 private:
  std::shared_ptr<const void> identity_ = std::make_shared<char>();
};

/// Bytes that one token takes in caches of all layers that an engine holds.
[[nodiscard]] uint64_t kv_bytes_per_token(const Engine& engine);

/// Told how much of a model is loaded, from 0 to 1, from the loading thread.
using Progress = std::function<void(double fraction)>;

}  // namespace isthmus::engine
