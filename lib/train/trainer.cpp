#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <c10/core/GradMode.h>
#include <isthmus/core/thread_pool.h>
#include <isthmus/model/fingerprint.h>
#include <isthmus/train/trainer.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>
#include <sstream>
#include <utility>

#include "batches.h"
#include "boundary.h"
#include "checkpoint.h"
#include "frozen_model.h"
#include "noise.h"
#include "optimizer.h"
#include "torch_engine/device.h"

namespace isthmus::train {
namespace {

using artefact::kDecoder;
using artefact::kDown;
using artefact::kEncoder;
using artefact::kSoftPrompt;
using artefact::kUp;
using torch_engine::guarded;

Status in_range(const char* name, double value, double least, double most) {
  if (value >= least && value <= most) return {};
  return fail(ErrorCode::kInvalidArgument,
              std::string("train: ") + name + " is " + std::to_string(value) + ", must be in [" +
                  std::to_string(least) + ", " + std::to_string(most) + "]");
}

}  // namespace

Status TrainOptions::validate() const {
  constexpr double kMost = 1 << 30;
  ISTHMUS_TRY(in_range("window", static_cast<double>(window), 2, 1 << 20));
  ISTHMUS_TRY(in_range("batch", static_cast<double>(batch), 1, 1 << 16));
  ISTHMUS_TRY(in_range("accumulate", static_cast<double>(accumulate), 1, 1 << 16));
  ISTHMUS_TRY(in_range("steps", static_cast<double>(steps), 1, kMost));
  ISTHMUS_TRY(in_range("warm_up", static_cast<double>(warm_up), 0, static_cast<double>(steps)));
  ISTHMUS_TRY(in_range("rate", rate, 1e-9, 10));
  ISTHMUS_TRY(in_range("weight_decay", weight_decay, 0, 1));
  ISTHMUS_TRY(in_range("clip_gradient", clip_gradient, 1e-9, 1e9));
  ISTHMUS_TRY(in_range("validation_windows", static_cast<double>(validation_windows), 1, kMost));
  if (!train_projection && !train_soft_prompt && !train_adapters)
    return fail(ErrorCode::kInvalidArgument, "train: nothing is to be trained");
  if (!prefix) return {};
  ISTHMUS_TRY(in_range("prefix.least", prefix->least, 0, 1));
  return in_range("prefix.most", prefix->most, prefix->least, 1);
}

class Trainer::Impl {
 public:
  Impl(FrozenModel model, std::string fingerprint, TrainText text, TrainOptions options)
      : model_(std::move(model)),
        fingerprint_(std::move(fingerprint)),
        options_(std::move(options)),
        batches_(std::move(text), options_) {}

  [[nodiscard]] std::string data_hash() const { return batches_.data_hash(); }
  [[nodiscard]] const std::string& fingerprint() const { return fingerprint_; }
  [[nodiscard]] const TrainOptions& options() const { return options_; }
  [[nodiscard]] int64_t steps_done() const { return state_.steps; }

  [[nodiscard]] Matrix boundary_rows(size_t tokens) const {
    const auto window = static_cast<size_t>(options_.window);
    const size_t count = std::max<size_t>(1, tokens / window);
    std::vector<at::Tensor> parts;
    for (size_t i = 0; i < count; ++i)
      parts.push_back(model_.boundary(batches_.sample(i, count)).squeeze(0));
    return matrix_of(at::cat(parts));
  }

  [[nodiscard]] Matrix boundary_rows(std::span<const int32_t> tokens) const {
    const std::vector<int64_t> ids(tokens.begin(), tokens.end());
    return matrix_of(model_.boundary(at::tensor(ids, at::kLong).unsqueeze(0)).squeeze(0));
  }

  Status start_from(const Parts& parts, const codec::CodecSpec& codec, std::string_view origin) {
    const auto width = static_cast<size_t>(model_.config().hidden_size);
    const size_t dims = parts.encoder.rows();
    const Matrix& prompt = parts.soft_prompt;
    if (parts.encoder.cols() != width || parts.decoder.rows() != width ||
        parts.decoder.cols() != dims || (!prompt.empty() && prompt.cols() != width)) {
      return fail(ErrorCode::kInvalidArgument,
                  "train: the parts do not fit each other and rows of " + std::to_string(width));
    }
    if (options_.train_soft_prompt && prompt.empty())
      return fail(ErrorCode::kInvalidArgument, "train: there is no soft prompt to train");
    if (options_.train_adapters && parts.adapters.empty())
      return fail(ErrorCode::kInvalidArgument, "train: there are no adapters to train");
    ISTHMUS_ASSIGN(channel_, Channel::make(codec, static_cast<int64_t>(dims)));
    state_ = {.run = describe() + ", codec " + codec.to_string() + ", from " + std::string(origin)};
    for (const auto& [name, matrix] : artefact::to_named(parts)) place(name, matrix);
    for (const auto& [name, adapter] : parts.adapters)
      ISTHMUS_TRY(
          model_.adapt(name, value(name + std::string(kDown)), value(name + std::string(kUp))));
    return {};
  }

  Result<Slope> slope() {
    ISTHMUS_ASSIGN(const double loss, accumulate());
    artefact::NamedMatrices gradients;
    for (const auto& [name, part] : state_.trained)
      gradients.emplace(name, matrix_of(part.value.grad()));
    ISTHMUS_ASSIGN(Parts parts, artefact::to_parts(std::move(gradients)));
    return Slope{.loss = loss, .gradients = std::move(parts)};
  }

  Result<StepReport> step() {
    ISTHMUS_ASSIGN(const double loss, accumulate());
    StepReport report{.step = state_.steps + 1, .loss = loss};
    report.gradient_norm = clip_gradients(state_.trained, options_.clip_gradient);
    if (!std::isfinite(report.loss) || !std::isfinite(report.gradient_norm)) {
      return fail(ErrorCode::kNotFinite, "train: step " + std::to_string(report.step) +
                                             " has a loss or a gradient that is not finite");
    }
    adamw_step(state_.trained, report.step, rate(), options_.weight_decay);
    state_.steps = report.step;
    return report;
  }

  Result<double> validate() {
    const at::NoGradGuard no_gradients;
    const auto count = static_cast<size_t>(options_.validation_windows);
    double sum = 0;
    for (size_t i = 0; i < count; ++i) {
      ISTHMUS_ASSIGN(
          const at::Tensor loss,
          loss_of(batches_.validation(i), stream(options_.seed, Purpose::kValidation), i));
      sum += loss.item<double>();
    }
    if (!std::isfinite(sum))
      return fail(ErrorCode::kNotFinite, "train: the held-out loss is not finite");
    return sum / static_cast<double>(count);
  }

  [[nodiscard]] Result<Parts> parts() const {
    artefact::NamedMatrices named;
    for (const auto& [name, tensor] : state_.fixed) named.emplace(name, matrix_of(tensor));
    for (const auto& [name, part] : state_.trained) named.emplace(name, matrix_of(part.value));
    return artefact::to_parts(std::move(named));
  }

  Status save(const std::filesystem::path& path, const std::string& note) {
    state_.note = note;
    return save_checkpoint(path, state_);
  }

  Result<std::string> resume(const std::filesystem::path& path) {
    ISTHMUS_TRY(load_checkpoint(path, state_));
    return state_.note;
  }

 private:
  /// Leaves the gradients of the next step's batches in the parts. \returns the mean loss.
  Result<double> accumulate() {
    forget_gradients();  // of batches before one that failed
    double total = 0;
    for (int64_t i = 0; i < options_.accumulate; ++i) {
      const auto draw = static_cast<uint64_t>(state_.steps * options_.accumulate + i);
      ISTHMUS_ASSIGN(const at::Tensor loss, loss_of(batches_.training(draw),
                                                    stream(options_.seed, Purpose::kNoise), draw));
      (loss / static_cast<double>(options_.accumulate)).backward();
      total += loss.item<double>();
    }
    return total / static_cast<double>(options_.accumulate);
  }

  void forget_gradients() {
    for (auto& [name, part] : state_.trained) part.value.mutable_grad().reset();
  }

  [[nodiscard]] bool is_trained(std::string_view name) const {
    if (name == kEncoder || name == kDecoder) return options_.train_projection;
    if (name == kSoftPrompt) return options_.train_soft_prompt;
    return options_.train_adapters;
  }

  void place(const std::string& name, const Matrix& matrix) {
    const at::Tensor tensor = tensor_of(matrix.view(), model_.device());
    if (is_trained(name)) {
      state_.trained.emplace(name, trained(tensor));
    } else {
      state_.fixed.emplace(name, tensor);
    }
  }

  [[nodiscard]] const at::Tensor& value(std::string_view part) const {
    const std::string name(part);
    const auto found = state_.trained.find(name);
    return found != state_.trained.end() ? found->second.value : state_.fixed.at(name);
  }

  [[nodiscard]] bool has_soft_prompt() const {
    const std::string name(kSoftPrompt);
    return state_.trained.contains(name) || state_.fixed.contains(name);
  }

  /// Everything that decides the weights after a step, and what they are measured on, in words.
  [[nodiscard]] std::string describe() const {
    std::ostringstream text;
    text.precision(std::numeric_limits<double>::max_digits10);
    const auto add = [&text](const char* name, const auto& value) {
      text << ", " << name << ' ' << value;
    };
    text << "model " << fingerprint_;
    add("precision", options_.precision);
    add("data", data_hash());
    add("held out", batches_.held_out_hash());
    add("validation windows", options_.validation_windows);
    add("cut", options_.cut);
    add("projection", options_.train_projection);
    add("soft prompt", options_.train_soft_prompt);
    add("adapters", options_.train_adapters);
    add("distil", options_.distil);
    if (options_.prefix) {
      add("prefix from", options_.prefix->least);
      add("to", options_.prefix->most);
    }
    add("window", options_.window);
    add("batch", options_.batch);
    add("accumulate", options_.accumulate);
    add("steps", options_.steps);
    add("warm-up", options_.warm_up);
    add("rate", options_.rate);
    add("weight decay", options_.weight_decay);
    add("gradient", options_.clip_gradient);
    add("seed", options_.seed);
    return std::move(text).str();
  }

  /// Of the next step: rises over the warm-up, then falls along a cosine to a tenth. The cosine
  /// counts from the first step, so that what was trained so can be made again.
  [[nodiscard]] double rate() const {
    const auto done = static_cast<double>(state_.steps);
    const auto warm_up = static_cast<double>(options_.warm_up);
    if (done < warm_up) return options_.rate * (done + 1) / warm_up;
    const double way = std::min(1.0, done / static_cast<double>(options_.steps));
    return options_.rate * (0.55 + 0.45 * std::cos(std::numbers::pi * way));
  }

  /// Mean over the predictions that count.
  Result<at::Tensor> loss_of(const Batch& batch, uint64_t noise, uint64_t draw) {
    const at::Tensor clean = model_.boundary(batch.ids.narrow(1, 0, options_.window));
    const at::Tensor latents = at::matmul(clean.view({-1, clean.size(2)}), value(kEncoder).t());
    ISTHMUS_ASSIGN(const at::Tensor crossed, channel_->cross(latents, noise, draw));
    at::Tensor rows = at::matmul(crossed, value(kDecoder).t()).view(clean.sizes());
    at::Tensor counts;
    if (batch.passing.defined()) {
      const at::Tensor pass = batch.passing.to(model_.device());
      rows = at::where(pass.unsqueeze(2), rows, clean);
      // Row t predicts token t + 1, which must be one behind the prefix.
      counts = at::logical_not(at::constant_pad_nd(pass.narrow(1, 1, pass.size(1) - 1), {0, 1}))
                   .to(at::kFloat);
    }
    if (has_soft_prompt()) {
      const at::Tensor& prompt = value(kSoftPrompt);
      rows = at::cat(
          {prompt.unsqueeze(0).expand({rows.size(0), prompt.size(0), prompt.size(1)}), rows}, 1);
    }
    const at::Tensor losses = options_.distil
                                  ? model_.divergences(rows, clean)
                                  : model_.losses(rows, batch.ids.narrow(1, 1, options_.window));
    return counts.defined() ? (losses * counts).sum() / counts.sum() : losses.mean();
  }

  FrozenModel model_;
  std::string fingerprint_;
  std::optional<Channel> channel_;
  TrainOptions options_;
  Batches batches_;
  Checkpoint state_;
};

Result<Trainer> Trainer::make(std::shared_ptr<const model::ModelFile> file, TrainText text,
                              TrainOptions options) {
  ISTHMUS_TRY(options.validate());
  const auto least = static_cast<size_t>(options.window) + 1;
  if (text.training.size() < least || text.held_out.size() < least) {
    return fail(ErrorCode::kInvalidArgument, "train: the texts have " +
                                                 std::to_string(text.training.size()) + " and " +
                                                 std::to_string(text.held_out.size()) +
                                                 " tokens, both need " + std::to_string(least));
  }
  return guarded([&]() -> Result<Trainer> {
    if (options.threads > 0) at::set_num_threads(options.threads);
    ThreadPool pool(static_cast<size_t>(std::max(options.threads, 0)));
    ISTHMUS_ASSIGN(const model::Fingerprint fingerprint, model::fingerprint(*file, pool));
    ISTHMUS_ASSIGN(FrozenModel model,
                   FrozenModel::load(std::move(file), options.cut, options.device,
                                     options.precision, options.recompute));
    return Trainer(std::make_unique<Impl>(std::move(model), fingerprint.to_string(),
                                          std::move(text), std::move(options)));
  });
}

Trainer::Trainer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Trainer::Trainer(Trainer&&) noexcept = default;
Trainer& Trainer::operator=(Trainer&&) noexcept = default;
Trainer::~Trainer() = default;

Result<Matrix> Trainer::boundary_rows(size_t tokens) const {
  return guarded([&]() -> Result<Matrix> { return impl_->boundary_rows(tokens); });
}

Result<Matrix> Trainer::boundary_rows(std::span<const int32_t> tokens) const {
  return guarded([&]() -> Result<Matrix> { return impl_->boundary_rows(tokens); });
}

Status Trainer::start_from(const Parts& parts, const codec::CodecSpec& codec,
                           std::string_view origin) {
  return guarded([&] { return impl_->start_from(parts, codec, origin); });
}

Result<Slope> Trainer::slope() const {
  return guarded([&] { return impl_->slope(); });
}

Result<StepReport> Trainer::step() {
  return guarded([&] { return impl_->step(); });
}

Result<double> Trainer::validate() const {
  return guarded([&] { return impl_->validate(); });
}

const TrainOptions& Trainer::options() const {
  return impl_->options();
}

int64_t Trainer::steps_done() const {
  return impl_->steps_done();
}

Result<Parts> Trainer::parts() const {
  return guarded([&] { return impl_->parts(); });
}

std::string Trainer::data_hash() const {
  return impl_->data_hash();
}

const std::string& Trainer::fingerprint() const {
  return impl_->fingerprint();
}

Status Trainer::save(const std::filesystem::path& path, const std::string& note) const {
  return guarded([&] { return impl_->save(path, note); });
}

Result<std::string> Trainer::resume(const std::filesystem::path& path) {
  return guarded([&] { return impl_->resume(path); });
}

}  // namespace isthmus::train
