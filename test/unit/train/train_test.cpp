// Training on tiny models: its loss is the engine's and the device's, its gradients are the
// loss's, it learns, and it goes on as if it had never stopped.
#include <isthmus/codec/codec.h>
#include <isthmus/core/thread_pool.h>
#include <isthmus/engine/cpu_engine.h>
#include <isthmus/model/safetensors.h>
#include <isthmus/train/fit.h>
#include <isthmus/train/trainer.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <fstream>
#include <vector>

#include "noise.h"
#include "support/catch.h"
#include "support/temp_folder.h"
#include "support/tiny_model.h"

namespace isthmus::train {
namespace {

using test::value_of;

constexpr int64_t kWindow = 12;

/// Numbers without a pattern, from -size to size.
Matrix some(size_t rows, size_t cols, uint64_t seed, double size) {
  Matrix matrix(rows, cols);
  for (size_t i = 0; i < rows * cols; ++i)
    matrix.data()[i] = static_cast<float>(size * (2 * counter_uniform(seed, i) - 1));
  return matrix;
}

std::shared_ptr<test::TinyModel> tiny(size_t index = 0) {
  return std::make_shared<test::TinyModel>(test::tiny_configs().at(index).config);
}

TrainText text_for(const model::ModelConfig& config) {
  std::vector<int32_t> tokens = test::tiny_tokens(80, config.vocab_size);
  return {.training = {tokens.begin(), tokens.begin() + 50},
          .held_out = {tokens.begin() + 50, tokens.end()}};
}

TrainOptions small_options() {
  TrainOptions options;
  options.cut = 1;
  options.train_soft_prompt = true;
  options.window = kWindow;
  options.batch = 2;
  options.steps = 8;
  options.warm_up = 2;
  options.rate = 0.01;
  options.validation_windows = 2;
  options.threads = 1;
  return options;
}

Parts some_parts(const model::ModelConfig& config, size_t dims, size_t prompt_rows = 2) {
  const auto width = static_cast<size_t>(config.hidden_size);
  return {.encoder = some(dims, width, 1, 0.5),
          .decoder = some(width, dims, 2, 0.5),
          .soft_prompt = some(prompt_rows, width, 3, 1)};
}

/// Of two layers behind the cut, both factors with something in them.
model::Adapters some_adapters(const model::ModelFile& file, int32_t first = 2) {
  model::Adapters adapters = value_of(fresh_adapters(file, first, first + 2, /*rank=*/3, 1));
  uint64_t seed = 50;
  for (auto& [name, adapter] : adapters)
    adapter.up = some(adapter.up.rows(), adapter.up.cols(), ++seed, 0.2);
  return adapters;
}

Trainer make(const std::shared_ptr<test::TinyModel>& model, const TrainOptions& options,
             const Parts& parts, const std::string& codec) {
  Trainer trainer = value_of(Trainer::make(model, text_for(model->config()), options));
  value_of(trainer.start_from(parts, value_of(codec::CodecSpec::parse(codec))));
  return trainer;
}

bool same_bits(const Matrix& a, const Matrix& b) {
  return a.rows() == b.rows() && a.cols() == b.cols() &&
         std::memcmp(a.data(), b.data(), a.rows() * a.cols() * sizeof(float)) == 0;
}

bool same_bits(const model::Adapters& a, const model::Adapters& b) {
  return std::ranges::equal(a, b, [](const auto& x, const auto& y) {
    return x.first == y.first && same_bits(x.second.down, y.second.down) &&
           same_bits(x.second.up, y.second.up);
  });
}

bool same_bits(const Parts& a, const Parts& b) {
  return same_bits(a.encoder, b.encoder) && same_bits(a.decoder, b.decoder) &&
         same_bits(a.soft_prompt, b.soft_prompt) && same_bits(a.adapters, b.adapters);
}

double product(const Matrix& a, const Matrix& b) {
  double sum = 0;
  for (size_t i = 0; i < a.rows() * a.cols(); ++i) sum += double{a.data()[i]} * double{b.data()[i]};
  return sum;
}

/// The loss when one part, by its name, is moved along a direction.
double loss_at(const std::shared_ptr<test::TinyModel>& model, const TrainOptions& options,
               const Parts& parts, const std::string& part, const Matrix& direction, double way,
               const std::string& codec) {
  artefact::NamedMatrices named = artefact::to_named(parts);
  Matrix& moved = named.at(part);
  for (size_t i = 0; i < direction.rows() * direction.cols(); ++i)
    moved.data()[i] += static_cast<float>(way * double{direction.data()[i]});
  const Parts there = value_of(artefact::to_parts(std::move(named)));
  return value_of(make(model, options, there, codec).slope()).loss;
}

TEST_CASE("gradients are the loss's slopes, for every kind of model", "[train][gradient]") {
  const auto index = GENERATE(range(size_t{0}, test::tiny_configs().size()));
  const auto model = tiny(index);
  TrainOptions options = small_options();
  options.recompute = GENERATE(false, true);
  options.distil = GENERATE(false, true);
  if (GENERATE(false, true)) options.prefix = Prefix{.least = 0.3, .most = 0.8};
  CAPTURE(test::tiny_configs().at(index).name, options.recompute, options.distil,
          options.prefix.has_value());
  options.train_adapters = true;
  Parts parts = some_parts(model->config(), 6);
  parts.adapters = some_adapters(*model);
  const Slope slope = value_of(make(model, options, parts, "f32").slope());
  const artefact::NamedMatrices gradients = artefact::to_named(slope.gradients);
  REQUIRE(gradients.size() == 3 + 2 * 14);
  for (const auto& [part, gradient] : gradients) {
    // Adapters of one layer stand for those of the other.
    if (part.starts_with("blk.3.")) continue;
    CAPTURE(part);
    const double norm = std::sqrt(product(gradient, gradient));
    REQUIRE(norm > 0);
    // Along the gradient itself, where the slope is its norm, and along a direction of chance.
    std::vector<Matrix> directions = {gradient};
    if (!part.starts_with("blk."))
      directions.push_back(some(gradient.rows(), gradient.cols(), 9, 1));
    for (const Matrix& direction : directions) {
      const double length = std::sqrt(product(direction, direction));
      const double h = 2e-2 / length;
      const double rise = loss_at(model, options, parts, part, direction, h, "f32") -
                          loss_at(model, options, parts, part, direction, -h, "f32");
      const double expected = product(gradient, direction);
      CHECK(rise / (2 * h) == Approx(expected).margin(0.02 * norm * length));
    }
  }
}

TEST_CASE("what crosses unchanged has nothing to learn from the clean model", "[train]") {
  const auto model = tiny();
  TrainOptions options = small_options();
  options.distil = true;
  options.train_soft_prompt = false;
  const auto width = static_cast<size_t>(model->config().hidden_size);
  Parts parts = some_parts(model->config(), width, 0);
  for (Matrix* part : {&parts.encoder, &parts.decoder}) {
    *part = Matrix(width, width);
    for (size_t i = 0; i < width; ++i) part->row(i)[i] = 1;
  }
  const Slope same = value_of(make(model, options, parts, "f32").slope());
  CHECK(same.loss == Approx(0).margin(1e-6));
  CHECK(product(same.gradients.encoder, same.gradients.encoder) < 1e-8);
  Parts adapted = parts;
  adapted.adapters = some_adapters(*model);
  CHECK(value_of(make(model, options, adapted, "f32").slope()).loss > 1e-3);
  for (float& value : parts.decoder.view().values()) value *= 0.5F;
  CHECK(value_of(make(model, options, parts, "f32").slope()).loss > 1e-3);
}

TEST_CASE("the gradient of a codec is its clip's", "[train][gradient]") {
  const auto model = tiny();
  const TrainOptions options = small_options();
  Parts parts = some_parts(model->config(), 6);
  SECTION("a norm that is cut down turns gradients with it") {
    const std::string codec = "clip:l2=0.5|step:0.01";
    const Slope slope = value_of(make(model, options, parts, codec).slope());
    const double norm = std::sqrt(product(slope.gradients.encoder, slope.gradients.encoder));
    const double h = 0.01 / norm;
    const double rise =
        loss_at(model, options, parts, "encoder", slope.gradients.encoder, h, codec) -
        loss_at(model, options, parts, "encoder", slope.gradients.encoder, -h, codec);
    CHECK(rise / (2 * h) == Approx(norm * norm).epsilon(0.1));
  }
  SECTION("a coordinate that is cut off has none") {
    for (float& value : parts.encoder.view().values()) value *= 1e4F;
    for (const char* codec : {"clip:max=0.01|int4", "clip:max=0.01|binomial:4:mu=20"}) {
      CAPTURE(codec);
      const Slope slope = value_of(make(model, options, parts, codec).slope());
      CHECK(product(slope.gradients.encoder, slope.gradients.encoder) == 0);
      CHECK(product(slope.gradients.decoder, slope.gradients.decoder) > 0);
    }
  }
}

/// Mean loss of the held-out windows by the device's codec and the exact engine, a row a message,
/// with the draws that training names.
double loss_on_device(const std::shared_ptr<test::TinyModel>& model, const TrainOptions& options,
                      const Parts& parts, const std::string& codec) {
  ThreadPool pool(1);
  const auto engine = value_of(engine::load_cpu_engine(
      value_of(model::adapt(model, std::make_shared<const model::Adapters>(parts.adapters))),
      test::whole_model(model->config()), pool, {.precision = engine::Precision::kExact}));
  const auto projection = std::make_shared<const codec::Projection>(
      value_of(codec::Projection::make(7, parts.encoder, parts.decoder)));
  NamedNoise noise;
  const std::string spec = "proj:" + std::to_string(projection->dims()) + ":0000000000000007|";
  const auto device = value_of(codec::BoundaryCodec::make(
      value_of(codec::CodecSpec::parse(spec + codec)), projection->width(),
      {.projection = projection, .random = &noise}));
  const std::vector<int32_t> held_out = text_for(model->config()).held_out;
  const size_t room = held_out.size() - kWindow - 1;
  double sum = 0;
  for (size_t w = 0; w < 2; ++w) {
    const std::span<const int32_t> tokens = std::span(held_out).subspan(room * w, kWindow + 1);
    const auto front = value_of(engine->make_cache({0, options.cut}, kWindow));
    const engine::Slice first{.cache = front.get(), .tokens = tokens.first(kWindow)};
    const Matrix rows = std::move(value_of(engine->forward({&first, 1})).front());
    const Matrix& prompt = parts.soft_prompt;
    Matrix crossed(prompt.rows() + kWindow, rows.cols());
    std::copy_n(prompt.data(), prompt.rows() * prompt.cols(), crossed.data());
    noise.restart(stream(options.seed, Purpose::kValidation), w);
    for (size_t r = 0; r < kWindow; ++r) {
      const auto message = value_of(device.encode(rows.view().middle_rows(r, 1)));
      value_of(device.decode_into(message, crossed.view().middle_rows(prompt.rows() + r, 1)));
    }
    const auto back = value_of(engine->make_cache({options.cut, model->config().layer_count}, 64));
    const engine::Slice second{.cache = back.get(),
                               .hidden = std::as_const(crossed).view(),
                               .output = engine::Output::kLogits};
    const Matrix logits = std::move(value_of(engine->forward({&second, 1})).front());
    for (size_t t = 0; t < kWindow; ++t) {
      double total = 0;
      const auto scores = logits.row(prompt.rows() + t);
      for (const float score : scores) total += std::exp(double{score});
      sum += std::log(total) - double{scores[static_cast<size_t>(tokens[t + 1])]};
    }
  }
  return sum / (2 * kWindow);
}

TEST_CASE("training's loss is what the device's codec and the engine make of the same draws",
          "[train]") {
  const auto codec = GENERATE(as<std::string>(), "f32", "int4", "rotate|int3|rans",
                              "clip:max=0.4|binomial:4:mu=20", "clip:l2=1,max=0.5|dgauss:mu=8");
  const size_t prompt_rows = GENERATE(0, 3);
  CAPTURE(codec, prompt_rows);
  const auto model = tiny();
  TrainOptions options = small_options();
  options.cut = GENERATE(0, 2);
  options.train_soft_prompt = prompt_rows > 0;
  Parts parts = some_parts(model->config(), 6, prompt_rows);
  if (prompt_rows > 0) parts.adapters = some_adapters(*model);
  const double trained = value_of(make(model, options, parts, codec).validate());
  CHECK(trained == Approx(loss_on_device(model, options, parts, codec)).epsilon(1e-5));
  // Other draws give another loss, so equal ones were drawn above.
  if (codec.find("mu=") == std::string::npos) return;
  options.seed += 1;
  CHECK(std::abs(value_of(make(model, options, parts, codec).validate()) - trained) > 1e-3);
}

TEST_CASE("training lowers the loss on what it has not seen", "[train]") {
  const auto model = tiny();
  TrainOptions options = small_options();
  options.steps = 40;
  // Every part alone, and all together.
  const int trained = GENERATE(0, 1, 2, 3);
  options.train_projection = trained == 0 || trained == 3;
  options.train_soft_prompt = trained == 1 || trained == 3;
  options.train_adapters = trained == 2 || trained == 3;
  options.recompute = trained == 2;
  options.rate = 0.03;
  CAPTURE(trained);
  // A text that repeats itself, so that there is something to learn.
  TrainText text;
  const std::vector<int32_t> words = test::tiny_tokens(5, model->config().vocab_size);
  for (size_t i = 0; i < 200; ++i)
    (i < 120 ? text.training : text.held_out).push_back(words[i % 5]);
  Trainer trainer = value_of(Trainer::make(model, text, options));
  Parts parts = some_parts(model->config(), 6);
  parts.adapters = value_of(fresh_adapters(*model, 1, 3, 2, 1));
  value_of(trainer.start_from(parts,
                              value_of(codec::CodecSpec::parse("clip:max=0.5|binomial:4:mu=60"))));
  std::vector<double> losses;
  int64_t steps = 0;
  const FitEvents events{.on_step = [&](const StepReport& report) { steps = report.step; },
                         .on_validation =
                             [&](int64_t, double loss, bool) {
                               losses.push_back(loss);
                               return Status();
                             }};
  const FitResult result = value_of(fit(trainer, {.validate_every = 10}, events));
  CHECK(steps == 40);
  CHECK(losses.size() == 5);
  CHECK(result.best_loss == *std::ranges::min_element(losses));
  CHECK(result.best_loss < losses.front() - 0.2);
  CHECK_FALSE(result.ended_early);
  // What is not trained stays.
  const Parts now = value_of(trainer.parts());
  CHECK(same_bits(now.encoder, parts.encoder) == !options.train_projection);
  CHECK(same_bits(now.decoder, parts.decoder) == !options.train_projection);
  CHECK(same_bits(now.soft_prompt, parts.soft_prompt) == !options.train_soft_prompt);
  CHECK(same_bits(now.adapters, parts.adapters) == !options.train_adapters);
}

TEST_CASE("a run that goes on from a checkpoint makes the same weights", "[train][checkpoint]") {
  const auto model = tiny();
  TrainOptions options = small_options();
  options.accumulate = 2;
  options.prefix = Prefix{};
  options.train_adapters = true;
  const std::string codec = "clip:max=0.5|binomial:4:mu=30";
  Parts parts = some_parts(model->config(), 6);
  parts.adapters = value_of(fresh_adapters(*model, 1, 4, 2, 1));
  const test::TempFolder folder;
  const FitOptions saved{.validate_every = 4, .checkpoint = folder.path() / "run"};
  Trainer whole = make(model, options, parts, codec);
  const FitResult expected = value_of(fit(whole, {.validate_every = 4}, {}));
  {
    Trainer first = make(model, options, parts, codec);
    const FitEvents stop{
        .on_validation = [](int64_t steps, double, bool) -> Status {
          if (steps < 8) return {};
          return fail(ErrorCode::kCancelled, "enough");
        },
        .note = [&] { return "two lines\nafter " + std::to_string(first.steps_done()); }};
    CHECK_FAILS_WITH(fit(first, saved, stop), ErrorCode::kCancelled);  // after 4 steps were kept
  }
  Trainer second = make(model, options, parts, codec);
  std::string note;
  const FitEvents resumed{.on_resume = [&](const std::string& kept) {
    note = kept;
    return Status();
  }};
  const FitResult result = value_of(fit(second, saved, resumed));
  CHECK(note == "two lines\nafter 4");
  CHECK(second.steps_done() == 8);
  CHECK(same_bits(value_of(second.parts()), value_of(whole.parts())));
  CHECK(result.best_loss == expected.best_loss);
  CHECK(result.best_steps == expected.best_steps);
}

TEST_CASE("a log of any length goes into a checkpoint and out of it", "[train][checkpoint]") {
  const auto model = tiny();
  const test::TempFolder folder;
  const auto path = folder.path() / "run";
  Trainer trainer = make(model, small_options(), some_parts(model->config(), 6), "int8");
  // The last one is more than a header may have.
  for (const size_t length : {size_t{0}, size_t{1}, size_t{4}, size_t{101'000'000}}) {
    CAPTURE(length);
    std::string note(length, '\n');
    if (length > 1) note.back() = '\0';
    value_of(trainer.save(path, note));
    CHECK((value_of(trainer.resume(path)) == note));
  }
}

TEST_CASE("a checkpoint that cannot be looked at is an error", "[train][checkpoint]") {
  const auto model = tiny();
  const test::TempFolder folder;
  Trainer trainer = make(model, small_options(), some_parts(model->config(), 6), "int8");
  const auto path = folder.path() / std::string(300, 'x');  // longer than names may be
  CHECK_FAILS_WITH(fit(trainer, {.checkpoint = path}, {}), ErrorCode::kIo);
}

TEST_CASE("a run ends when nothing gets better any more", "[train]") {
  const auto model = tiny();
  TrainOptions options = small_options();
  options.rate = 1e-9;  // nothing moves
  Trainer trainer = make(model, options, some_parts(model->config(), 6), "int8");
  const FitResult result = value_of(fit(trainer, {.validate_every = 1, .patience = 2}, {}));
  CHECK(result.ended_early);
  CHECK(trainer.steps_done() < options.steps);
}

TEST_CASE("a checkpoint of another run, or none, is refused", "[train][checkpoint]") {
  const auto model = tiny();
  TrainOptions options = small_options();
  const Parts parts = some_parts(model->config(), 6);
  const test::TempFolder folder;
  const auto path = folder.path() / "run";
  Trainer trainer = make(model, options, parts, "int8");
  value_of(trainer.step());
  value_of(trainer.save(path, "a note"));
  CHECK(value_of(trainer.resume(path)) == "a note");
  CHECK_FAILS_WITH(trainer.resume(folder.path() / "none"), ErrorCode::kNotFound);
  CHECK_FAILS_WITH(make(model, options, parts, "int4").resume(path), ErrorCode::kInvalidArgument);
  options.seed = 2;
  CHECK_FAILS_WITH(make(model, options, parts, "int8").resume(path), ErrorCode::kInvalidArgument);
  CHECK_FAILS_WITH(fit(trainer, {.checkpoint = path}, {}), ErrorCode::kCorrupt);  // not fit's note

  // Another model of the same shape, other arithmetic, and other measurements.
  const auto other = tiny();
  other->set("blk.2.attn_q.weight", 5, 0.5F);
  CHECK_FAILS_WITH(make(other, small_options(), parts, "int8").resume(path),
                   ErrorCode::kInvalidArgument);
  const auto refused = [&](const auto& change) {
    TrainOptions changed = small_options();
    change(changed);
    CHECK_FAILS_WITH(make(model, changed, parts, "int8").resume(path), ErrorCode::kInvalidArgument);
  };
  refused([](TrainOptions& o) { o.precision = "bf16"; });
  refused([](TrainOptions& o) { o.validation_windows = 1; });
  refused([](TrainOptions& o) { o.rate += 1e-9; });
  TrainText text = text_for(model->config());
  text.held_out.pop_back();
  Trainer measured = value_of(Trainer::make(model, text, small_options()));
  value_of(measured.start_from(parts, value_of(codec::CodecSpec::parse("int8"))));
  CHECK_FAILS_WITH(measured.resume(path), ErrorCode::kInvalidArgument);
  Trainer begun = value_of(Trainer::make(model, text_for(model->config()), small_options()));
  value_of(begun.start_from(parts, value_of(codec::CodecSpec::parse("int8")), "other parts"));
  CHECK_FAILS_WITH(begun.resume(path), ErrorCode::kInvalidArgument);

  std::ifstream in(path, std::ios::binary);
  const std::string bytes((std::istreambuf_iterator<char>(in)), {});
  for (size_t length = 0; length < bytes.size(); length += 1 + length / 16) {
    CAPTURE(length);
    const auto cut = folder.path() / "cut";
    std::ofstream(cut, std::ios::binary) << bytes.substr(0, length);
    REQUIRE_FALSE(trainer.resume(cut));
  }
}

TEST_CASE("a checkpoint that is refused changes nothing", "[train][checkpoint]") {
  const auto model = tiny();
  const test::TempFolder folder;
  const auto path = folder.path() / "run";
  Trainer trainer = make(model, small_options(), some_parts(model->config(), 6), "int8");
  value_of(trainer.save(path));
  value_of(trainer.step());
  const Parts now = value_of(trainer.parts());

  const auto bytes = value_of(model::safetensors::load(path, 1 << 20));
  auto tensors = value_of(model::safetensors::parse(bytes));
  tensors.pop_back();
  const auto broken = folder.path() / "broken";
  value_of(
      model::safetensors::save(broken, tensors, value_of(model::safetensors::metadata(bytes))));
  CHECK_FAILS_WITH(trainer.resume(broken), ErrorCode::kCorrupt);
  CHECK(trainer.steps_done() == 1);
  CHECK(same_bits(value_of(trainer.parts()), now));
}

TEST_CASE("a step that fails leaves nothing behind", "[train][checkpoint]") {
  const auto model = tiny();
  const TrainText text = text_for(model->config());
  // A word that occurs once, whose row no codec takes: steps fail at their first or second batch.
  const auto once = std::ranges::find_if(
      text.training, [&](int32_t id) { return std::ranges::count(text.training, id) == 1; });
  REQUIRE(once != text.training.end());
  const auto width = static_cast<size_t>(model->config().hidden_size);
  model->set("token_embd.weight", static_cast<size_t>(*once) * width, 1e32F);
  TrainOptions options = small_options();
  options.cut = 0;
  options.batch = 1;
  options.accumulate = 2;
  const test::TempFolder folder;
  const auto path = folder.path() / "run";
  int failed = 0;
  for (options.seed = 1; options.seed <= 20; ++options.seed) {
    Trainer trainer = make(model, options, some_parts(model->config(), 6), "int4");
    value_of(trainer.save(path));
    const auto first = trainer.step();
    auto last = first;
    while (last && trainer.steps_done() < options.steps) last = trainer.step();
    if (!first || last) continue;
    ++failed;
    CHECK_FAILS_WITH(last, ErrorCode::kNotFinite);
    value_of(trainer.resume(path));
    const StepReport again = value_of(trainer.step());
    CHECK(again.loss == first->loss);
    CHECK(again.gradient_norm == first->gradient_norm);
  }
  CHECK(failed > 2);
}

TEST_CASE("what a codec loses is least behind a fitted decoder", "[train][start]") {
  const Matrix rows = some(200, 12, 4, 1);
  const auto codec = value_of(codec::CodecSpec::parse("clip:max=0.8|int3"));
  const Matrix encoder = value_of(principal_components(rows.view(), 5, 1));
  // Orthonormal rows.
  for (size_t a = 0; a < 5; ++a) {
    for (size_t b = 0; b < 5; ++b) {
      double sum = 0;
      for (size_t i = 0; i < 12; ++i) sum += double{encoder.row(a)[i]} * double{encoder.row(b)[i]};
      CHECK(sum == Approx(a == b ? 1 : 0).margin(1e-4));
    }
  }
  const Matrix decoder = value_of(fit_decoder(rows.view(), encoder, codec, 1));
  const auto error_of = [&](const Matrix& with) {
    const auto projection = std::make_shared<const codec::Projection>(
        value_of(codec::Projection::make(7, encoder, with)));
    const auto device = value_of(codec::BoundaryCodec::make(
        value_of(codec::CodecSpec::parse("proj:5:0000000000000007|clip:max=0.8|int3")), 12,
        {.projection = projection}));
    Matrix back(rows.rows(), rows.cols());
    value_of(device.decode_into(value_of(device.encode(rows.view())), back.view()));
    double sum = 0;
    for (size_t i = 0; i < rows.rows() * rows.cols(); ++i)
      sum += std::pow(double{rows.data()[i]} - double{back.data()[i]}, 2);
    return sum;
  };
  const double least = error_of(decoder);
  for (uint64_t seed = 10; seed < 16; ++seed) {
    Matrix other = decoder;
    const Matrix change = some(12, 5, seed, 0.05);
    for (size_t i = 0; i < 60; ++i) other.data()[i] += change.data()[i];
    CHECK(error_of(other) > least);
  }
  CHECK_FAILS_WITH(principal_components(rows.view(), 13, 1), ErrorCode::kInvalidArgument);
  CHECK_FAILS_WITH(principal_components(rows.view().middle_rows(0, 3), 5, 1),
                   ErrorCode::kInvalidArgument);
}

TEST_CASE("what makes no sense is refused by name", "[train]") {
  const auto model = tiny();
  const TrainText text = text_for(model->config());
  const auto refused = [&](const auto& change, const std::string& name) {
    TrainOptions options = small_options();
    change(options);
    const auto made = Trainer::make(model, text, options);
    CHECK_FAILS_WITH(made, ErrorCode::kInvalidArgument);
    CHECK(made.error().message.find(name) != std::string::npos);
  };
  refused([](TrainOptions& o) { o.cut = 5; }, "cut is 5");
  refused([](TrainOptions& o) { o.window = 1; }, "window");
  refused([](TrainOptions& o) { o.window = 40; }, "tokens, both need 41");
  refused([](TrainOptions& o) { o.batch = 0; }, "batch");
  refused([](TrainOptions& o) { o.accumulate = 0; }, "accumulate");
  refused([](TrainOptions& o) { o.steps = 0; }, "steps");
  refused([](TrainOptions& o) { o.warm_up = -1; }, "warm_up");
  refused([](TrainOptions& o) { o.warm_up = o.steps + 1; }, "warm_up");
  refused([](TrainOptions& o) { o.rate = 0; }, "rate");
  refused([](TrainOptions& o) { o.rate = std::nan(""); }, "rate");
  refused([](TrainOptions& o) { o.clip_gradient = 0; }, "clip_gradient");
  refused([](TrainOptions& o) { o.weight_decay = 2; }, "weight_decay");
  refused([](TrainOptions& o) { o.validation_windows = 0; }, "validation_windows");
  refused([](TrainOptions& o) { o.prefix = Prefix{.least = 0.5, .most = 0.4}; }, "prefix");
  refused([](TrainOptions& o) { o.train_projection = o.train_soft_prompt = false; }, "nothing");
  refused([](TrainOptions& o) { o.precision = "int8"; }, "precision");
  refused([](TrainOptions& o) { o.device = "tpu"; }, "device");

  Trainer trainer = value_of(Trainer::make(model, text, small_options()));
  const auto codec = value_of(codec::CodecSpec::parse("int4"));
  Parts parts = some_parts(model->config(), 6, 0);
  CHECK_FAILS_WITH(trainer.start_from(parts, codec), ErrorCode::kInvalidArgument);
  parts = some_parts(model->config(), 6);
  parts.decoder = parts.encoder;
  CHECK_FAILS_WITH(trainer.start_from(parts, codec), ErrorCode::kInvalidArgument);
  parts = some_parts(model->config(), 6);
  parts.adapters = some_adapters(*model, 0);  // in front of the cut
  CHECK_FAILS_WITH(trainer.start_from(parts, codec), ErrorCode::kInvalidArgument);
  parts.adapters = some_adapters(*model);
  parts.adapters.begin()->second.up = some(3, 3, 1, 1);
  CHECK_FAILS_WITH(trainer.start_from(parts, codec), ErrorCode::kInvalidArgument);
  parts = some_parts(model->config(), 6);
  CHECK_FAILS_WITH(
      trainer.start_from(parts, value_of(codec::CodecSpec::parse("proj:6:0123456789abcdef|int4"))),
      ErrorCode::kUnsupported);
  const Matrix rows = some(20, parts.encoder.cols(), 4, 1);
  for (const char* stages : {"rotate|clip:max=1|int4", "split:1|clip:l2=1|int4"}) {
    const auto spec = value_of(codec::CodecSpec::parse(stages));
    CHECK_FAILS_WITH(trainer.start_from(parts, spec), ErrorCode::kUnsupported);
    CHECK_FAILS_WITH(fit_decoder(rows.view(), parts.encoder, spec, 1), ErrorCode::kUnsupported);
  }
  CHECK(trainer.start_from(parts, value_of(codec::CodecSpec::parse("split:1|rotate|int4"))));
}

TEST_CASE("fresh adapters change nothing, and have a place", "[train][start]") {
  const auto model = tiny();
  const TrainOptions options = small_options();
  Parts parts = some_parts(model->config(), 6);
  const double before = value_of(make(model, options, parts, "f32").validate());
  parts.adapters = value_of(fresh_adapters(*model, 1, 4, 2, 7));
  CHECK(parts.adapters.size() == 21);
  CHECK(value_of(make(model, options, parts, "f32").validate()) == before);
  CHECK(same_bits(parts.adapters, value_of(fresh_adapters(*model, 1, 4, 2, 7))));
  CHECK_FALSE(same_bits(parts.adapters, value_of(fresh_adapters(*model, 1, 4, 2, 8))));
  for (const auto& [first, end, rank] :
       {std::tuple{1, 5, 2}, {1, 1, 2}, {-1, 2, 2}, {1, 2, 0}, {1, 2, 257}}) {
    CAPTURE(first, end, rank);
    CHECK_FAILS_WITH(fresh_adapters(*model, first, end, static_cast<size_t>(rank), 1),
                     ErrorCode::kInvalidArgument);
  }
}

}  // namespace
}  // namespace isthmus::train
