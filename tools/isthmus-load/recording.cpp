#include "recording.h"

#include <isthmus/core/random.h>
#include <isthmus/core/thread_pool.h>
#include <isthmus/engine/cpu_engine.h>
#include <isthmus/model/fingerprint.h>
#include <isthmus/model/model_file.h>

#include <algorithm>
#include <utility>

#include "common/terminal.h"

namespace isthmus::tools {
namespace {

constexpr uint64_t kTextSeed = 1;

/// The same for everybody who has the same vocabulary.
std::vector<int32_t> random_tokens(int32_t count, int32_t vocab_size) {
  std::vector<int32_t> tokens;
  for (int32_t i = 0; i < count; ++i) {
    tokens.push_back(
        static_cast<int32_t>(counter_uniform(kTextSeed, static_cast<uint64_t>(i)) * vocab_size));
  }
  return tokens;
}

wire::Open open_message(const model::ModelConfig& config, const model::Fingerprint& fingerprint,
                        int32_t cut, const LoadFlags& flags) {
  return {.model = {.architecture = config.architecture,
                    .layer_count = static_cast<uint32_t>(config.layer_count),
                    .hidden_size = static_cast<uint32_t>(config.hidden_size),
                    .vocab_size = static_cast<uint32_t>(config.vocab_size),
                    .fingerprint = fingerprint.digest},
          .cut = static_cast<uint32_t>(cut),
          .tail = static_cast<uint32_t>(config.layer_count),
          .codec_up = flags.codec.to_string(),
          .codec_down = "f32",
          .max_tokens = static_cast<uint32_t>(flags.most_tokens())};
}

Result<Matrix> front_rows(engine::Engine& engine, int32_t cut, std::span<const int32_t> tokens) {
  ISTHMUS_ASSIGN(const auto cache,
                 engine.make_cache({0, cut}, static_cast<int32_t>(tokens.size())));
  const engine::Slice slice{.cache = cache.get(), .tokens = tokens};
  ISTHMUS_ASSIGN(std::vector<Matrix> rows, engine.forward({&slice, 1}));
  return std::move(rows.front());
}

}  // namespace

Result<std::vector<Recording>> record(const LoadFlags& flags) {
  ISTHMUS_ASSIGN(const auto file, model::ModelFile::open(flags.model));
  const model::ModelConfig& config = file->config();
  const int32_t deepest = *std::max_element(flags.cuts.begin(), flags.cuts.end());
  if (deepest > config.layer_count) {
    return fail(ErrorCode::kInvalidArgument, "--cuts names layer " + std::to_string(deepest) +
                                                 ", the model has " +
                                                 std::to_string(config.layer_count));
  }
  ThreadPool pool(0);
  ISTHMUS_ASSIGN(const model::Fingerprint fingerprint, model::fingerprint(*file, pool));
  model::Part part;
  part.embedding = true;
  if (deepest > 0) part.layers.emplace_back(0, deepest);
  ProgressBar bar("recording");
  ISTHMUS_ASSIGN(const auto engine,
                 engine::load_cpu_engine(file, part, pool, flags.engine.options(),
                                         [&](double fraction) { bar.update(fraction); }));
  const std::vector<int32_t> tokens = random_tokens(flags.most_tokens(), config.vocab_size);
  std::vector<Recording> recordings;
  for (const int32_t cut : flags.cuts) {
    ISTHMUS_ASSIGN(Matrix rows, front_rows(*engine, cut, tokens));
    ISTHMUS_ASSIGN(
        codec::BoundaryCodec codec,
        codec::BoundaryCodec::make(flags.codec, static_cast<size_t>(config.hidden_size)));
    if (codec.is_random()) {
      return fail(ErrorCode::kUnsupported, "--codec '" + codec.spec().to_string() +
                                               "' draws its rows anew: it cannot be recorded");
    }
    recordings.push_back({open_message(config, fingerprint, cut, flags), std::move(rows),
                          std::make_shared<codec::BoundaryCodec>(std::move(codec))});
  }
  return recordings;
}

}  // namespace isthmus::tools
