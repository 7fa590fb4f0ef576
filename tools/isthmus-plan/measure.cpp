#include "measure.h"

#include <isthmus/codec/codec.h>
#include <isthmus/core/random.h>
#include <isthmus/core/thread_pool.h>
#include <isthmus/engine/cpu_engine.h>
#include <isthmus/engine/sampler.h>
#include <isthmus/model/model_file.h>
#include <isthmus/text/tokenizer.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <memory>
#include <string>
#include <utility>

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
    ISTHMUS_ASSIGN(profile_.free_bytes, free_memory());
    ISTHMUS_TRY(read_tokens());
    ISTHMUS_TRY(measure_program());
    profile_.read_bytes_per_second = read_bandwidth(pool_);
    for (const int32_t bits : flags_.weight_bits) ISTHMUS_TRY(measure_weights(bits));
    for (const int32_t bits : flags_.kv_bits) ISTHMUS_TRY(measure_kv(bits));
    ISTHMUS_TRY(measure_codecs());
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

  // What the system could give to programs now.
  static Result<double> free_memory() {
    std::ifstream info("/proc/meminfo");
    for (std::string key; info >> key;) {
      double kibibytes = 0;
      if (key == "MemAvailable:" && info >> kibibytes) return 1024 * kibibytes;
    }
    return fail(ErrorCode::kUnsupported, "/proc/meminfo does not say how much memory is free");
  }

  // Steps of the progress bar: what takes long, roughly in proportion.
  void advance() {
    const size_t all = flags_.weight_bits.size() * (points().size() + 1) + flags_.kv_bits.size() +
                       flags_.specs.size();
    progress_.update(std::min(1.0, ++done_ / static_cast<double>(all)));
  }

  Result<Timing> time(int repetitions, double pause_s, const std::function<Status()>& call) {
    ISTHMUS_ASSIGN(const Timing timing, time_calls(repetitions, pause_s, call));
    spread_sum_ += timing.spread;
    ++spread_count_;
    return timing;
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
    for (const int32_t n : points()) {
      cost.time.layers.push_back(n);
      for (const double tokens : cost.time.tokens) {
        ISTHMUS_ASSIGN(const double seconds,
                       time_segment(*engine, {0, n}, static_cast<int32_t>(tokens)));
        cost.time.seconds.push_back(seconds);
      }
      advance();
    }
    ISTHMUS_ASSIGN(const double head_call, time_head(*engine));
    cost.head_seconds = std::max(0.0, head_call - cost.time.seconds.front());
    advance();
    profile_.weights.push_back(std::move(cost));
    return {};
  }

  Result<double> time_segment(Engine& engine, LayerWindow window, int32_t count) {
    const int repetitions = count == 1 ? 2 * flags_.repetitions : flags_.repetitions;
    ISTHMUS_ASSIGN(const auto cache, engine.make_cache(window, repetitions + kChunk));
    ISTHMUS_ASSIGN(const Timing timing, time(repetitions, 1e-3 * flags_.pause_ms, [&]() -> Status {
                     // Tokens are decoded one behind the other, prompts begin anew.
                     if (count > 1) ISTHMUS_TRY(cache->truncate(0));
                     return step(engine, *cache, count);
                   }));
    return timing.median;
  }

  Status step(Engine& engine, engine::KvCache& cache, int32_t count) {
    const auto first = static_cast<size_t>(cache.length());
    const engine::Slice slice{
        .cache = &cache, .tokens = std::span(tokens_).subspan(first, static_cast<size_t>(count))};
    ISTHMUS_TRY(engine.forward({&slice, 1}));
    return {};
  }

  // Final norm, head and the choice of a token, for one row.
  Result<double> time_head(Engine& engine) {
    const Matrix row(1, static_cast<size_t>(file_->config().hidden_size));
    ISTHMUS_ASSIGN(const auto cache, engine.make_cache({layers_, layers_}, 1));
    ISTHMUS_ASSIGN(const Timing timing,
                   time(2 * flags_.repetitions, 1e-3 * flags_.pause_ms, [&]() -> Status {
                     ISTHMUS_TRY(cache->truncate(0));
                     const engine::Slice slice{.cache = cache.get(),
                                               .hidden = row.view(),
                                               .output = engine::Output::kLogits,
                                               .rows = engine::Rows::kLast};
                     ISTHMUS_ASSIGN(const auto outputs, engine.forward({&slice, 1}));
                     ISTHMUS_TRY(engine::sample(outputs.front().row(0), {}, {}, 0));
                     return {};
                   }));
    return timing.median;
  }

  // A token behind many others against one behind few.
  Status measure_kv(int32_t bits) {
    const int32_t far = std::min(kFar, file_->config().context_length - 64);
    ISTHMUS_ASSIGN(const auto engine, load_whole(flags_.weight_bits.front(), bits));
    ISTHMUS_ASSIGN(const auto cache, engine->make_cache({0, layers_}, far + 64));
    planner::KvCost cost{.bits = bits};
    cost.bytes_per_token_and_layer =
        static_cast<double>(engine->info().kv_bytes_per_token_and_layer);
    const auto decode_at = [&](int32_t position) -> Result<double> {
      ISTHMUS_ASSIGN(const Timing timing, time(flags_.repetitions, 0, [&]() -> Status {
                       ISTHMUS_TRY(cache->truncate(position));
                       return step(*engine, *cache, 1);
                     }));
      return timing.median;
    };
    while (cache->length() < far)
      ISTHMUS_TRY(step(*engine, *cache, std::min(kChunk, far - cache->length())));
    ISTHMUS_ASSIGN(const double behind_many, decode_at(far));
    ISTHMUS_ASSIGN(const double behind_few, decode_at(1));
    cost.seconds_per_pair_and_layer =
        std::max(0.0, (behind_many - behind_few) / (layers_ * (far - 1.0)));
    profile_.kv.push_back(cost);
    advance();
    return {};
  }

  Status measure_codecs() {
    ISTHMUS_ASSIGN(const auto calibrations, load_calibrations(flags_.calibrations));
    ISTHMUS_ASSIGN(const auto engine, load_whole(flags_.weight_bits.front(), 16));
    std::vector<int32_t> cuts;
    for (int32_t i = 0; i <= 4; ++i)
      if (cuts.empty() || cuts.back() < i * layers_ / 4) cuts.push_back(i * layers_ / 4);
    for (const int32_t cut : cuts) {
      ISTHMUS_ASSIGN(const auto cache, engine->make_cache({0, cut}, kCodecRows));
      const engine::Slice slice{.cache = cache.get(),
                                .tokens = std::span(tokens_).first(kCodecRows)};
      ISTHMUS_ASSIGN(std::vector<Matrix> outputs, engine->forward({&slice, 1}));
      boundaries_.emplace_back(cut, std::move(outputs.front()));
    }
    for (const std::string& text : flags_.specs) {
      ISTHMUS_ASSIGN(const codec::CodecSpec spec, codec::CodecSpec::parse(text));
      SystemRandom random;
      ISTHMUS_ASSIGN(
          const auto codec,
          codec::BoundaryCodec::make(
              spec, static_cast<size_t>(file_->config().hidden_size),
              {.calibration = codec::find_calibration(spec, calibrations), .random = &random}));
      ISTHMUS_ASSIGN(planner::CodecCost cost, measure_codec(codec));
      cost.spec = text;
      profile_.codecs.push_back(std::move(cost));
      advance();
    }
    return {};
  }

  // What one row costs, and what each further one does.
  static Affine affine(double one, double many) {
    const double per_row = std::max(0.0, (many - one) / (kCodecRows - 1));
    return {.fixed = std::max(0.0, one - per_row), .per_row = per_row};
  }

  Result<planner::CodecCost> measure_codec(const codec::BoundaryCodec& codec) {
    planner::CodecCost cost;
    for (const auto& [cut, rows] : boundaries_) {
      size_t alone = 0;
      for (size_t r = 0; r < rows.rows(); ++r) {
        ISTHMUS_ASSIGN(const auto message, codec.encode(rows.view().middle_rows(r, 1)));
        alone += message.size();
      }
      ISTHMUS_ASSIGN(const auto together, codec.encode(rows.view()));
      const double one = static_cast<double>(alone) / static_cast<double>(rows.rows());
      cost.sizes.push_back({cut, affine(one, static_cast<double>(together.size()))});
    }
    const Matrix& rows = boundaries_[boundaries_.size() / 2].second;
    Matrix decoded(rows.rows(), rows.cols());
    double encode[2] = {};
    double decode[2] = {};
    for (const size_t many : {0, 1}) {
      const size_t count = many == 0 ? 1 : rows.rows();
      std::vector<std::byte> message;
      ISTHMUS_ASSIGN(const Timing encoding,
                     time(flags_.repetitions, 1e-3 * flags_.pause_ms, [&]() -> Status {
                       ISTHMUS_ASSIGN(message, codec.encode(rows.view().middle_rows(0, count)));
                       return {};
                     }));
      ISTHMUS_ASSIGN(const Timing decoding, time(flags_.repetitions, 1e-3 * flags_.pause_ms, [&] {
                       return codec.decode_into(message, decoded.view().middle_rows(0, count));
                     }));
      encode[many] = encoding.median;
      decode[many] = decoding.median;
    }
    cost.encode_seconds = affine(encode[0], encode[1]);
    cost.decode_seconds = affine(decode[0], decode[1]);
    return cost;
  }

  const ProfileFlags& flags_;
  std::shared_ptr<const model::ModelFile> file_;
  const int32_t layers_;
  ThreadPool pool_;
  ProgressBar progress_;
  int done_ = 0;
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
