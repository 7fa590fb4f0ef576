#include "measure.h"

#include <isthmus/artefact/artefact.h>
#include <isthmus/codec/codec.h>
#include <isthmus/core/random.h>
#include <isthmus/core/thread_pool.h>
#include <isthmus/engine/cpu_engine.h>
#include <isthmus/engine/sampler.h>
#include <isthmus/model/model_file.h>
#include <isthmus/text/tokenizer.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <fstream>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <utility>

#include "common/artefact_flags.h"
#include "common/bandwidth.h"
#include "common/calibration_flags.h"
#include "common/memory.h"
#include "common/terminal.h"
#include "common/text_file.h"
#include "stopwatch.h"

namespace isthmus::tools {
namespace {

using engine::Engine;
using engine::LayerWindow;
using planner::Affine;
using planner::MachineProfile;

constexpr int32_t kChunk = 128;     // tokens of the largest prompt chunk measured
constexpr int32_t kFar = 1024;      // positions in front of a token, for the effect of length
constexpr int32_t kCodecRows = 64;  // of the larger message
constexpr std::array<double, 4> kIdleMs = {0, 2, 20, 100};
constexpr size_t kSweepBytes = 64'000'000;  // more than the last cache of a device holds
constexpr const char* kText =
    "The old lighthouse stood at the end of a long pier, and every evening its keeper climbed the "
    "stairs with a lamp in one hand and a book in the other. He wrote down the weather, the ships "
    "he had seen, and now and then a thought. \"Fog from the west,\" says an entry of March, \"and "
    "two fishing boats came back early. I repaired the rail.\" Visitors asked him whether he was "
    "lonely; he said that the sea had more to tell than most people, if one learnt to listen. In "
    "1987 an automatic light replaced him. He moved to a house on the hill, from where he could "
    "still see the beam turn, once in twelve seconds, and he went on writing. The notebooks, some "
    "forty of them, are kept in the museum of the harbour today: a record of wind, tides, repairs "
    "and prices, and between the lines the story of a patient man.\n";

/// Everything about one machine and one model while it is being measured.
class Measurement {
 public:
  Measurement(const ProfileFlags& flags, std::shared_ptr<const model::ModelFile> file)
      : flags_(flags),
        file_(std::move(file)),
        layers_(file_->config().layer_count),
        pool_(static_cast<size_t>(flags.threads)),
        progress_("measuring") {}

  Result<MachineProfile> run() {
    const model::ModelConfig& config = file_->config();
    profile_.precision = flags_.engine.precision;
    profile_.threads = static_cast<int32_t>(pool_.thread_count());
    profile_.model = {.architecture = config.architecture,
                      .layer_count = layers_,
                      .hidden_size = config.hidden_size,
                      .vocab_size = config.vocab_size};
    profile_.machine = processor() + ", " + std::to_string(pool_.thread_count()) + " threads";
    if (flags_.watts_computing > 0)
      profile_.watts = planner::Watts{flags_.watts_computing, flags_.watts_waiting};
    ISTHMUS_ASSIGN(const uint64_t free_bytes, available_bytes());
    profile_.free_bytes = static_cast<double>(free_bytes);
    ISTHMUS_TRY(read_tokens());
    count_weights();
    ISTHMUS_TRY(measure_program());
    sweep_.emplace(kSweepBytes);
    profile_.read_bytes_per_second = read_bandwidth(pool_);
    for (const int32_t bits : flags_.weight_bits) ISTHMUS_TRY(measure_weights(bits));
    for (const int32_t bits : flags_.kv_bits) ISTHMUS_TRY(measure_kv(bits));
    ISTHMUS_TRY(measure_codecs());
    ISTHMUS_TRY(measure_idle());
    profile_.spread = spread_sum_ / std::max(1, spread_count_);
    ISTHMUS_TRY(profile_.validate());
    return profile_;
  }

 private:
  static std::string processor() {
    std::ifstream info("/proc/cpuinfo");
    for (std::string line; std::getline(info, line);) {
      if (line.starts_with("model name")) return line.substr(line.find(':') + 2);
    }
    return "unknown processor";
  }

  // What takes long, roughly in proportion: weights of one precision as much as four others.
  void advance(double share) {
    constexpr double kOfWeights = 4;
    const double all = kOfWeights * static_cast<double>(flags_.weight_bits.size()) +
                       static_cast<double>(flags_.kv_bits.size() + 2);
    done_ += share;
    progress_.update(std::min(1.0, done_ / all));
  }

  // Between two steps of a session a machine waits for the network: its caches fill with what other
  // programs do, and threads fall asleep. A loop that does nothing else measures a speed that
  // sessions never see.
  void rest(double ms) {
    sweep_->read(pool_);
    std::this_thread::sleep_for(std::chrono::duration<double, std::milli>(ms));
  }

  // Medians, each time after a rest.
  Result<std::vector<double>> time(const std::vector<std::function<Status()>>& calls,
                                   double progress) {
    const double step = progress / (flags_.repetitions * static_cast<double>(calls.size()));
    ISTHMUS_ASSIGN(const std::vector<Timing> timings, time_rounds(flags_.repetitions, calls, [&] {
                     advance(step);
                     rest(flags_.pause_ms);
                   }));
    std::vector<double> medians;
    for (const Timing& timing : timings) {
      medians.push_back(timing.median);
      spread_sum_ += timing.spread;
      ++spread_count_;
    }
    return medians;
  }

  Status read_tokens() {
    std::string text = kText;
    if (!flags_.text.empty()) {
      ISTHMUS_ASSIGN(text, read_text(flags_.text));
    }
    ISTHMUS_ASSIGN(const text::Tokenizer tokenizer, text::Tokenizer::make(file_->tokenizer()));
    const std::vector<int32_t> once = tokenizer.encode(text);
    if (once.empty()) return fail(ErrorCode::kInvalidArgument, "the text has no tokens");
    while (tokens_.size() < kFar + 64) tokens_.insert(tokens_.end(), once.begin(), once.end());
    return {};
  }

  engine::CpuEngineOptions engine_options(int32_t bits, int32_t kv_bits) const {
    EngineFlags flags = flags_.engine;
    flags.weight_bits = bits;
    flags.kv_bits = kv_bits;
    return flags.options();
  }

  Result<std::unique_ptr<Engine>> load(const model::Part& part, int32_t bits, int32_t kv_bits) {
    return engine::load_cpu_engine(file_, part, pool_, engine_options(bits, kv_bits));
  }

  Result<std::unique_ptr<Engine>> load_whole(int32_t bits, int32_t kv_bits) {
    return load({.layers = {{0, layers_}}, .embedding = true, .head = true}, bits, kv_bits);
  }

  // Matrices only: nearly all arithmetic is theirs.
  void count_weights() {
    const std::string head = file_->config().tied_head ? "token_embd.weight" : "output.weight";
    planner::WeightCount& count = profile_.weight_count.emplace();
    for (const model::Tensor& tensor : file_->tensors()) {
      if (tensor.shape.size() < 2) continue;
      const uint64_t numbers = tensor.rows() * tensor.cols();
      if (tensor.name.starts_with("blk.")) count.layers += numbers;
      if (tensor.name == head) count.head = numbers;
    }
  }

  // Runs a front of one layer: what this process holds beside weights is the program's own.
  Status measure_program() {
    ISTHMUS_ASSIGN(const auto front,
                   load({.layers = {{0, 1}}, .embedding = true}, flags_.weight_bits.front(), 16));
    ISTHMUS_TRY(feed(*front, {0, 1}, kChunk));
    ISTHMUS_ASSIGN(const uint64_t resident, resident_bytes());
    const double weights = static_cast<double>(front->info().weight_bytes);
    profile_.base_bytes = std::max(0.0, static_cast<double>(resident) - weights);
    return {};
  }

  // One call of `count` tokens from position 0.
  Status feed(Engine& engine, LayerWindow window, int32_t count) {
    ISTHMUS_ASSIGN(const auto cache, engine.make_cache(window, count));
    const engine::Slice slice{.cache = cache.get(),
                              .tokens = std::span(tokens_).first(static_cast<size_t>(count))};
    ISTHMUS_TRY(engine.forward({&slice, 1}));
    return {};
  }

  // 0, 1, 2, 4, ... and L layers: a few stay in the processor's caches, so they are not
  // proportional.
  std::vector<int32_t> points() const {
    std::vector<int32_t> list = {0};
    for (int32_t n = 1; n < layers_; n *= 2) list.push_back(n);
    list.push_back(layers_);
    return list;
  }

  Status measure_weights(int32_t bits) {
    planner::WeightCost cost{.bits = bits};
    for (int32_t layer = 0; layer < layers_; ++layer) {
      ISTHMUS_ASSIGN(const auto one, load({.layers = {{layer, layer + 1}}}, bits, 16));
      cost.layer_bytes.push_back(one->info().weight_bytes);
    }
    ISTHMUS_ASSIGN(const auto head, load({.head = true}, bits, 16));
    cost.head_bytes = head->info().weight_bytes;
    ISTHMUS_ASSIGN(const auto engine, load_whole(bits, 16));
    cost.time.tokens = {1, 8, 32, kChunk};
    std::vector<std::function<Status()>> calls;
    for (const int32_t n : points()) {
      cost.time.layers.push_back(n);
      for (const double tokens : cost.time.tokens) {
        ISTHMUS_ASSIGN(auto call, segment_call(*engine, {0, n}, static_cast<int32_t>(tokens)));
        calls.push_back(std::move(call));
      }
    }
    ISTHMUS_ASSIGN(auto head_call, this->head_call(*engine));
    calls.push_back(std::move(head_call));
    ISTHMUS_ASSIGN(cost.time.seconds, time(calls, 4));
    cost.head_seconds = std::max(0.0, cost.time.seconds.back() - cost.time.seconds.front());
    cost.time.seconds.pop_back();
    profile_.weights.push_back(std::move(cost));
    return {};
  }

  Result<std::function<Status()>> segment_call(Engine& engine, LayerWindow window, int32_t count) {
    ISTHMUS_ASSIGN(std::shared_ptr<engine::KvCache> cache,
                   engine.make_cache(window, flags_.repetitions + kChunk));
    return [this, &engine, cache, count]() -> Status {
      // Tokens are decoded one behind the other, prompts begin anew.
      if (count > 1) ISTHMUS_TRY(cache->truncate(0));
      return step(engine, *cache, count);
    };
  }

  Status step(Engine& engine, engine::KvCache& cache, int32_t count) {
    const auto first = static_cast<size_t>(cache.length());
    const engine::Slice slice{
        .cache = &cache, .tokens = std::span(tokens_).subspan(first, static_cast<size_t>(count))};
    ISTHMUS_TRY(engine.forward({&slice, 1}));
    return {};
  }

  // Final norm, head and the choice of a token, for one row.
  Result<std::function<Status()>> head_call(Engine& engine) {
    ISTHMUS_ASSIGN(std::shared_ptr<engine::KvCache> cache,
                   engine.make_cache({layers_, layers_}, 1));
    const auto row =
        std::make_shared<const Matrix>(1, static_cast<size_t>(file_->config().hidden_size));
    return [&engine, cache, row]() -> Status {
      ISTHMUS_TRY(cache->truncate(0));
      const engine::Slice slice{.cache = cache.get(),
                                .hidden = row->view(),
                                .output = engine::Output::kLogits,
                                .rows = engine::Rows::kLast};
      ISTHMUS_ASSIGN(const auto outputs, engine.forward({&slice, 1}));
      ISTHMUS_TRY(engine::sample(outputs.front().row(0), {}, {}, 0));
      return {};
    };
  }

  // A token behind many others against one behind few.
  Status measure_kv(int32_t bits) {
    const int32_t far = std::min(kFar, file_->config().context_length - 64);
    ISTHMUS_ASSIGN(const auto engine, load_whole(flags_.weight_bits.front(), bits));
    ISTHMUS_ASSIGN(const auto cache, engine->make_cache({0, layers_}, far + 64));
    ISTHMUS_ASSIGN(const auto near, engine->make_cache({0, layers_}, 64));
    planner::KvCost cost{.bits = bits};
    cost.bytes_per_token_and_layer =
        static_cast<double>(engine->info().kv_bytes_per_token_and_layer);
    while (cache->length() < far)
      ISTHMUS_TRY(step(*engine, *cache, std::min(kChunk, far - cache->length())));
    ISTHMUS_TRY(step(*engine, *near, 1));
    const auto decode_behind = [&](engine::KvCache& tokens) {
      return [this, &engine, &tokens, length = tokens.length()]() -> Status {
        ISTHMUS_TRY(tokens.truncate(length));
        return step(*engine, tokens, 1);
      };
    };
    ISTHMUS_ASSIGN(const std::vector<double> seconds,
                   time({decode_behind(*cache), decode_behind(*near)}, 1));
    cost.seconds_per_pair_and_layer =
        std::max(0.0, (seconds[0] - seconds[1]) / (layers_ * (far - 1.0)));
    profile_.kv.push_back(cost);
    return {};
  }

  // A token right behind another, and after waits, against one as all else is measured.
  Status measure_idle() {
    ISTHMUS_ASSIGN(const auto engine, load_whole(flags_.weight_bits.front(), 16));
    ISTHMUS_ASSIGN(const auto cache, engine->make_cache({0, layers_}, 1));
    const auto token = [&]() -> Status {
      ISTHMUS_TRY(cache->truncate(0));
      return step(*engine, *cache, 1);
    };
    const std::vector<std::function<Status()>> calls(kIdleMs.size() + 1, token);
    size_t turn = 0;
    ISTHMUS_ASSIGN(const std::vector<Timing> timings, time_rounds(flags_.repetitions, calls, [&] {
                     const size_t which = turn++ % calls.size();
                     const double pause = which == 0 ? flags_.pause_ms : kIdleMs[which - 1];
                     advance(1.0 / (flags_.repetitions * static_cast<double>(calls.size())));
                     if (pause == 0) {
                       (void)token();  // the next one reports what fails
                       return;
                     }
                     rest(pause);
                   }));
    for (size_t i = 0; i < kIdleMs.size(); ++i) {
      profile_.idle.push_back(
          {.seconds = 1e-3 * kIdleMs[i], .factor = timings[i + 1].median / timings.front().median});
    }
    return {};
  }

  Status measure_codecs() {
    ISTHMUS_ASSIGN(const auto calibrations, load_calibrations(flags_.calibrations));
    ISTHMUS_ASSIGN(const artefact::Artefacts artefacts, load_artefacts(flags_.artefacts));
    ISTHMUS_ASSIGN(const auto engine, load_whole(flags_.weight_bits.front(), 16));
    std::set<int32_t> cuts;
    for (int32_t i = 0; i <= 4; ++i) cuts.insert(i * layers_ / 4);
    for (const auto& artefact : artefacts) {
      ISTHMUS_TRY(artefact->check(file_->config(), artefact->origin().cut));
      if (artefact->has_soft_prompt() || artefact->adapted_end() > 0) {
        return fail(ErrorCode::kUnsupported,
                    "isthmus-plan: what a soft prompt or adapters cost a server is not measured");
      }
      cuts.insert(artefact->origin().cut);
    }
    for (const int32_t cut : cuts) {
      ISTHMUS_ASSIGN(const auto cache, engine->make_cache({0, cut}, kCodecRows));
      const engine::Slice slice{.cache = cache.get(),
                                .tokens = std::span(tokens_).first(kCodecRows)};
      ISTHMUS_ASSIGN(std::vector<Matrix> outputs, engine->forward({&slice, 1}));
      boundaries_.emplace_back(cut, std::move(outputs.front()));
    }
    std::vector<CodecTrial> trials;
    for (const std::string& text : flags_.specs) {
      ISTHMUS_ASSIGN(const codec::CodecSpec spec, codec::CodecSpec::parse(text));
      const auto artefact = artefact::find(spec, artefacts);
      ISTHMUS_ASSIGN(auto codec, codec::BoundaryCodec::make(
                                     spec, static_cast<size_t>(file_->config().hidden_size),
                                     {.calibration = codec::find_calibration(spec, calibrations),
                                      .projection = artefact::projection_of(artefact),
                                      .random = &random_}));
      trials.push_back({.codec = std::move(codec)});
      planner::CodecCost& cost = profile_.codecs.emplace_back();
      cost.spec = trials.back().codec.spec().to_string();  // as audits and evaluations name it
      cost.up_only = spec.mechanism() != nullptr;
      if (artefact) cost.made_for_cut = artefact->origin().cut;
      ISTHMUS_ASSIGN(cost.sizes, message_sizes(trials.back().codec, cost));
    }
    std::vector<std::function<Status()>> calls;
    for (CodecTrial& trial : trials) add_codec_calls(trial, calls);
    ISTHMUS_ASSIGN(const std::vector<double> seconds, time(calls, 1));
    for (size_t i = 0; i < trials.size(); ++i) {
      const double* four = seconds.data() + 4 * i;
      profile_.codecs[i].encode_seconds = affine(four[0], four[2]);
      profile_.codecs[i].decode_seconds = affine(four[1], four[3]);
    }
    return {};
  }

  // What one row costs, and what each further one does.
  static Affine affine(double one, double many) {
    const double per_row = std::max(0.0, (many - one) / (kCodecRows - 1));
    return {.fixed = std::max(0.0, one - per_row), .per_row = per_row};
  }

  Result<std::vector<planner::MessageSize>> message_sizes(const codec::BoundaryCodec& codec,
                                                          const planner::CodecCost& cost) const {
    std::vector<planner::MessageSize> sizes;
    for (const auto& [cut, rows] : boundaries_) {
      if (!cost.crosses_at(cut)) continue;
      size_t alone = 0;
      for (size_t r = 0; r < rows.rows(); ++r) {
        ISTHMUS_ASSIGN(const auto message, codec.encode(rows.view().middle_rows(r, 1)));
        alone += message.size();
      }
      ISTHMUS_ASSIGN(const auto together, codec.encode(rows.view()));
      const double one = static_cast<double>(alone) / static_cast<double>(rows.rows());
      sizes.push_back({cut, affine(one, static_cast<double>(together.size()))});
    }
    return sizes;
  }

  // One codec while it is being timed.
  struct CodecTrial {
    codec::BoundaryCodec codec;
    std::vector<std::byte> one, many;  // messages of one row and of all
    Matrix decoded;
  };

  // Encoding and decoding one row, then all.
  void add_codec_calls(CodecTrial& trial, std::vector<std::function<Status()>>& calls) const {
    const Matrix& rows = boundaries_[boundaries_.size() / 2].second;
    trial.decoded = Matrix(rows.rows(), rows.cols());
    for (std::vector<std::byte>* message : {&trial.one, &trial.many}) {
      const size_t count = message == &trial.one ? 1 : rows.rows();
      calls.emplace_back([&rows, &trial, message, count]() -> Status {
        ISTHMUS_ASSIGN(*message, trial.codec.encode(rows.view().middle_rows(0, count)));
        return {};
      });
      calls.emplace_back([&trial, message, count] {
        return trial.codec.decode_into(*message, trial.decoded.view().middle_rows(0, count));
      });
    }
  }

  const ProfileFlags& flags_;
  std::shared_ptr<const model::ModelFile> file_;
  const int32_t layers_;
  ThreadPool pool_;
  ProgressBar progress_;
  std::optional<ReadingMatter> sweep_;  // once what programs take and leave free is known
  SystemRandom random_;
  double done_ = 0;
  double spread_sum_ = 0;
  int spread_count_ = 0;
  std::vector<int32_t> tokens_;
  std::vector<std::pair<int32_t, Matrix>> boundaries_;  // by cut
  MachineProfile profile_;
};

}  // namespace

Result<MachineProfile> measure_machine(const ProfileFlags& flags) {
  ISTHMUS_ASSIGN(auto file, model::ModelFile::open(flags.model));
  return Measurement(flags, std::move(file)).run();
}

}  // namespace isthmus::tools
