// Front, back and tail inside one process: what two machines do, without a network between them.
// With the raw boundary the split model computes the very same bits as the whole one.
#include <isthmus/codec/codec.h>
#include <isthmus/core/thread_pool.h>
#include <isthmus/engine/cpu_engine.h>
#include <isthmus/engine/sampler.h>
#include <isthmus/model/model_file.h>
#include <isthmus/text/tokenizer.h>

#include <cstdio>
#include <cstring>

using namespace isthmus;

namespace {

// Runs one slice; rows of the result are hidden states or logits.
Result<Matrix> run(engine::Engine& engine, engine::Slice slice) {
  ISTHMUS_ASSIGN(std::vector<Matrix> outputs, engine.forward({&slice, 1}));
  return std::move(outputs.front());
}

// Encodes a boundary and decodes it again, as if it had crossed a network.
Result<Matrix> cross(const codec::BoundaryCodec& codec, const Matrix& boundary) {
  ISTHMUS_ASSIGN(const std::vector<std::byte> message, codec.encode(boundary.view()));
  Matrix arrived(boundary.rows(), boundary.cols());
  ISTHMUS_TRY(codec.decode_into(message, arrived.view()));
  std::printf("  %s boundary: %zu rows of %zu, %zu bytes\n", codec.spec().to_string().c_str(),
              boundary.rows(), boundary.cols(), message.size());
  return arrived;
}

Status demonstrate(const char* path) {
  ISTHMUS_ASSIGN(const auto file, model::ModelFile::open(path));
  ISTHMUS_ASSIGN(const auto tokenizer, text::Tokenizer::make(file->tokenizer()));
  const std::vector<int32_t> tokens = tokenizer.encode("The capital of France is");
  const int32_t layers = file->config().layer_count;
  const auto hidden_size = static_cast<size_t>(file->config().hidden_size);
  const int32_t cut = layers / 3;
  const int32_t tail = layers - 1;

  ThreadPool pool;
  const model::Part whole_model{.layers = {{0, layers}}, .embedding = true, .head = true};
  ISTHMUS_ASSIGN(const auto engine, engine::load_cpu_engine(file, whole_model, pool));
  const auto capacity = static_cast<int32_t>(tokens.size());

  ISTHMUS_ASSIGN(const auto whole_cache, engine->make_cache({0, layers}, capacity));
  ISTHMUS_ASSIGN(const Matrix whole, run(*engine, {.cache = whole_cache.get(),
                                                   .tokens = tokens,
                                                   .output = engine::Output::kLogits,
                                                   .rows = engine::Rows::kLast}));

  for (const codec::Format format :
       {codec::Format::kF32, codec::Format::kF16, codec::Format::kBf16}) {
    ISTHMUS_ASSIGN(const auto codec, codec::BoundaryCodec::make({format}, hidden_size));
    std::printf("front [0, %d), back [%d, %d), tail [%d, %d):\n", cut, cut, tail, tail, layers);
    ISTHMUS_ASSIGN(const auto front_cache, engine->make_cache({0, cut}, capacity));
    ISTHMUS_ASSIGN(const auto back_cache, engine->make_cache({cut, tail}, capacity));
    ISTHMUS_ASSIGN(const auto tail_cache, engine->make_cache({tail, layers}, capacity));

    ISTHMUS_ASSIGN(const Matrix front,
                   run(*engine, {.cache = front_cache.get(), .tokens = tokens}));
    ISTHMUS_ASSIGN(const Matrix up, cross(codec, front));
    ISTHMUS_ASSIGN(const Matrix back,
                   run(*engine, {.cache = back_cache.get(), .hidden = up.view()}));
    ISTHMUS_ASSIGN(const Matrix down, cross(codec, back));
    ISTHMUS_ASSIGN(const Matrix split, run(*engine, {.cache = tail_cache.get(),
                                                     .hidden = down.view(),
                                                     .output = engine::Output::kLogits,
                                                     .rows = engine::Rows::kLast}));

    const bool same = std::memcmp(split.data(), whole.data(), whole.cols() * sizeof(float)) == 0;
    ISTHMUS_ASSIGN(const int32_t next, engine::sample(split.row(0), {}, {}, capacity));
    std::printf(
        "  next token \"%s\", logits %s\n", tokenizer.decode({&next, 1}).c_str(),
        same ? "bit for bit those of the whole model" : "close to those of the whole model");
    if (format == codec::Format::kF32 && !same)
      return fail(ErrorCode::kInternal, "the raw boundary must change nothing");
  }
  return {};
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: %s MODEL\n", argv[0]);
    return 2;
  }
  if (const Status status = demonstrate(argv[1]); !status) {
    std::fprintf(stderr, "%s\n", status.error().message.c_str());
    return 1;
  }
  return 0;
}
