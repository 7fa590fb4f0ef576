// Training for a cut: a projection to few numbers, a soft prompt and low-rank adapters of layers
// behind it, learned by the next-token loss of a frozen model (DEL: Gu et al. 2026, arXiv
// 2602.11513).
//
// What stands behind the projection on the device, clip, mechanism or quantiser, packing, is in the
// loop as it is there: rows are encoded to bytes and decoded again. Its gradient is that of the
// clip alone (straight-through): a mechanism's estimate is unbiased, so that is the gradient of its
// mean, and how its variance depends on the row is left out; of rounding it is the usual
// approximation.
//
// This header names nothing of libtorch.
#pragma once

#include <isthmus/artefact/artefact.h>
#include <isthmus/codec/spec.h>
#include <isthmus/core/error.h>
#include <isthmus/core/matrix.h>
#include <isthmus/model/model_file.h>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace isthmus::train {

/// Which of a window's rows pass the projection, and which predictions count.
struct Prefix {
  /// Share of the window, drawn evenly from [least, most] for every window. Its rows pass; those
  /// behind it go as they are, as generated tokens do at cut 0, and only they are predicted.
  double least = 0.05;
  double most = 0.5;
};

struct TrainOptions {
  int32_t cut = 0;
  bool train_projection = true;
  bool train_soft_prompt = false;
  bool train_adapters = false;
  /// What is lowered: the divergence of the model's predictions from those of the same model on
  /// clean rows (Hinton, Vinyals, Dean 2015), in place of the loss of the text's next tokens. It
  /// pulls towards what the model knows, not towards the text that it happens to be shown.
  bool distil = false;
  /// Nothing: all rows pass and every prediction counts, as at a cut behind a layer.
  std::optional<Prefix> prefix;

  int64_t window = 256;    ///< tokens read together, at least 2
  int64_t batch = 2;       ///< windows computed together
  int64_t accumulate = 1;  ///< batches in one step
  int64_t steps = 200;     ///< planned; decides how the rate falls
  int64_t warm_up = 20;    ///< steps in which the rate rises from 0; at most all of them
  /// Of AdamW at its highest, in the warm-up's last step. Behind that, step i of all, from 0, has
  /// 0.55 + 0.45 cos(pi i / steps) of it: nearly a tenth at the end.
  double rate = 2e-3;
  double weight_decay = 0;   ///< of AdamW
  double clip_gradient = 1;  ///< largest norm of all gradients together
  uint64_t seed = 1;         ///< decides windows, prefixes and noise
  int64_t validation_windows = 16;

  std::string device = "cpu";      ///< "cpu", "cuda" or "cuda:N"
  std::string precision = "fp32";  ///< of the frozen weights and their products: fp32 or bf16
  bool recompute = false;          ///< keep a layer's input alone and compute it twice
  int threads = 0;                 ///< of libtorch's process-wide pool; 0 leaves it as it is

  /// \returns kInvalidArgument naming the field and its value.
  [[nodiscard]] Status validate() const;
  [[nodiscard]] int64_t tokens_per_step() const { return window * batch * accumulate; }
};

/// Token ids; held-out ones are only measured on. Both hold at least a window and one token.
struct TrainText {
  std::vector<int32_t> training;
  std::vector<int32_t> held_out;
};

using artefact::Parts;

/// Where the loss goes from here.
struct Slope {
  double loss = 0;  ///< nats for each prediction that counts, of what is lowered
  Parts gradients;  ///< of the parts that are trained; empty for the others
};

struct StepReport {
  int64_t step = 0;          ///< finished so far
  double loss = 0;           ///< nats for each prediction that counts, of what is lowered
  double gradient_norm = 0;  ///< before it was clipped
};

/// One training run. The same options, text and parts give the same weights on the same machine
/// with the same number of threads, resumed or not: every draw is named by seed and step. Not
/// thread-safe.
class Trainer {
 public:
  /// \returns kInvalidArgument (options, shapes, text too short), kNoDevice, kOutOfMemory,
  /// kDeviceFailed, the errors of reading weights and of model::fingerprint.
  [[nodiscard]] static Result<Trainer> make(std::shared_ptr<const model::ModelFile> file,
                                            TrainText text, TrainOptions options);
  Trainer(Trainer&&) noexcept;
  Trainer& operator=(Trainer&&) noexcept;
  ~Trainer();

  /// Rows of the training text in front of the cut, [T, D]: of as many whole windows, at least one,
  /// as `tokens` holds, spread over it.
  [[nodiscard]] Result<Matrix> boundary_rows(size_t tokens) const;

  /// The same for some tokens, read together from position 0.
  [[nodiscard]] Result<Matrix> boundary_rows(std::span<const int32_t> tokens) const;

  /// What to train from, and the stages behind the projection; no `proj`, no calibration, and no
  /// clip beside `rotate` or `split`: it would cut other numbers than the latents, and turning is
  /// the projection's. To be called once, before all that follows.
  /// \param origin how the parts were made: a checkpoint of a run that began otherwise is refused
  /// \returns kInvalidArgument for shapes
  /// that do not fit each other and the model; kUnsupported for such a stage; the errors of
  /// BoundaryCodec::make.
  [[nodiscard]] Status start_from(const Parts& parts, const codec::CodecSpec& codec,
                                  std::string_view origin = {});

  /// Loss and gradients of the batches that the next step would take. Nothing changes.
  [[nodiscard]] Result<Slope> slope() const;

  /// One step of the optimiser over `accumulate` batches. \returns kNotFinite when the loss or a
  /// gradient is not finite; nothing has changed then.
  [[nodiscard]] Result<StepReport> step();

  /// Mean over the held-out windows of what is lowered, noise included, in nats. The same draws
  /// every time. \returns kNotFinite among others.
  [[nodiscard]] Result<double> validate() const;

  [[nodiscard]] int64_t steps_done() const;
  [[nodiscard]] const TrainOptions& options() const;
  /// The parts as they are now.
  [[nodiscard]] Result<Parts> parts() const;
  /// BLAKE2b of the training tokens, in hex.
  [[nodiscard]] std::string data_hash() const;
  /// Of the model's weights (model::fingerprint).
  [[nodiscard]] const std::string& fingerprint() const;

  /// Everything that later steps depend on, and `note`, a text of the caller's.
  [[nodiscard]] Status save(const std::filesystem::path& path, const std::string& note = {}) const;
  /// Goes on where `save` was called; gives its note back. \returns kInvalidArgument for one of
  /// another model, other options or text; kNotFound, kIo, kTruncated, kCorrupt. Nothing has
  /// changed then.
  [[nodiscard]] Result<std::string> resume(const std::filesystem::path& path);

 private:
  class Impl;
  explicit Trainer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

/// An encoder [d, D] to start from: the principal components of boundary rows [T, D], not centred,
/// turned by a random rotation (drawn from `seed`), so that all latents are of about one size.
/// \returns kInvalidArgument when there are fewer rows than dims or dims is not in [1, D].
[[nodiscard]] Result<Matrix> principal_components(MatrixView<const float> rows, size_t dims,
                                                  uint64_t seed);

/// The decoder that makes the least squared error for what the codec leaves of these rows'
/// latents: a linear least-squares fit. \returns the codec's errors.
[[nodiscard]] Result<Matrix> fit_decoder(MatrixView<const float> rows, const Matrix& encoder,
                                         const codec::CodecSpec& codec, uint64_t seed);

/// Adapters of all matrices of layers [first, end) that change nothing yet: down is drawn evenly
/// from
/// +-1/sqrt(in), named by `seed`, up is 0. \returns kInvalidArgument when rank is not in [1,
/// Artefact::kMaxRank] or end not in (first, layer count]; the errors of finding tensors.
[[nodiscard]] Result<model::Adapters> fresh_adapters(const model::ModelFile& file, int32_t first,
                                                     int32_t end, size_t rank, uint64_t seed);

}  // namespace isthmus::train
