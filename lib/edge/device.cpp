#include <isthmus/core/thread_pool.h>
#include <isthmus/edge/device.h>
#include <isthmus/engine/cpu_engine.h>
#include <isthmus/model/model_file.h>

#include <algorithm>
#include <utility>

#include "device_impl.h"
#include "pipeline.h"
#include "session_impl.h"

namespace isthmus::edge {
namespace {

Status check_placement(const DeviceOptions& options, int32_t layer_count) {
  const auto outside = [&](std::string_view name, int32_t value, int32_t low) {
    return fail(ErrorCode::kInvalidArgument,
                "edge: " + std::string(name) + " is " + std::to_string(value) + ", must be in [" +
                    std::to_string(low) + ", " + std::to_string(layer_count) + "] for this model");
  };
  if (options.threads > ThreadPool::kMaxThreads) {
    return fail(ErrorCode::kInvalidArgument, "edge: threads is " + std::to_string(options.threads) +
                                                 ", must be at most " +
                                                 std::to_string(ThreadPool::kMaxThreads));
  }
  if (options.tail && !options.cut)
    return fail(ErrorCode::kInvalidArgument, "edge: a tail needs a cut");
  if (options.cut && (*options.cut < 0 || *options.cut > layer_count))
    return outside("cut", *options.cut, 0);
  if (options.tail && (*options.tail < *options.cut || *options.tail > layer_count)) {
    return outside("tail", *options.tail, *options.cut);
  }
  return {};
}

model::Part part_for(const DeviceOptions& options, int32_t layer_count) {
  model::Part part{.embedding = true, .head = !options.cut || options.tail};
  const int32_t front_end = options.cut.value_or(layer_count);
  const int32_t tail_first = std::max(options.tail.value_or(layer_count), front_end);
  if (front_end > 0) part.layers.emplace_back(0, front_end);
  if (tail_first < layer_count) part.layers.emplace_back(tail_first, layer_count);
  return part;
}

}  // namespace

codec::CodecSpec default_codec() {
  return {.quantizer = codec::Step{.step = 0.18F, .trellis = true},
          .split = codec::Split{.threshold = 16},
          .rans = true};
}

Status SessionOptions::validate() const {
  if (max_tokens < 1) {
    return fail(ErrorCode::kInvalidArgument,
                "edge: max_tokens is " + std::to_string(max_tokens) + ", must be at least 1");
  }
  constexpr std::chrono::milliseconds kDay = std::chrono::hours(24);
  const std::pair<std::string_view, std::chrono::milliseconds> timeouts[] = {
      {"connect_timeout", connect_timeout},
      {"request_timeout", request_timeout},
      {"reconnect_timeout", reconnect_timeout},
      {"resume_timeout", resume_timeout}};
  for (const auto& [name, value] : timeouts) {
    const bool may_be_none = name == "resume_timeout";
    if (value.count() < (may_be_none ? 0 : 1) || value > kDay) {
      return fail(ErrorCode::kInvalidArgument, "edge: " + std::string(name) + " is " +
                                                   std::to_string(value.count()) +
                                                   " ms, must be in [1 ms, 1 day]");
    }
  }
  ISTHMUS_TRY(verify.validate());
  if ((codec_down && codec_down->mechanism() != nullptr) || codec_clean.mechanism() != nullptr) {
    return fail(ErrorCode::kUnsupported,
                "edge: a mechanism belongs into `codec` alone, which is what the device sends");
  }
  if (codec_down && codec_down->project) {
    return fail(ErrorCode::kUnsupported,
                "edge: a projection is of the rows at the cut, not of those that come back");
  }
  if (codec.mechanism() != nullptr && ledger == nullptr) {
    return fail(ErrorCode::kInvalidArgument,
                "edge: '" + codec.to_string() + "' has a mechanism, whose releases need a ledger");
  }
  return {};
}

Result<Device> Device::load(const DeviceOptions& options) {
  ISTHMUS_ASSIGN(const auto file, model::ModelFile::open(options.model));
  ISTHMUS_TRY(check_placement(options, file->config().layer_count));
  ISTHMUS_ASSIGN(text::Tokenizer tokenizer, text::Tokenizer::make(file->tokenizer()));
  auto impl = std::make_unique<Impl>(file, std::move(tokenizer), options.threads);
  text::ChatFormat format = text::ChatFormat::kRaw;
  if (options.chat_format) {
    format = *options.chat_format;
  } else {
    ISTHMUS_ASSIGN(format, text::detect_chat_format(file->tokenizer().chat_template));
  }
  ISTHMUS_ASSIGN(impl->chat, text::ChatEncoder::make(impl->tokenizer, format));
  ISTHMUS_ASSIGN(impl->engine,
                 engine::load_cpu_engine(file, part_for(options, file->config().layer_count),
                                         impl->pool, options.engine, options.progress));
  impl->engine_options = options.engine;
  impl->cut = options.cut;
  impl->tail = options.tail;
  return Device(std::move(impl));
}

Result<Session> Device::open_session(const SessionOptions& options) {
  ISTHMUS_TRY(options.validate());
  std::unique_ptr<Pipeline> pipeline;
  if (impl_->cut) {
    Split split{.cut = *impl_->cut, .tail = impl_->tail};
    ISTHMUS_ASSIGN(split.fingerprint, fingerprint());
    if (options.verify.share > 0 && options.verify.server.empty()) {
      ISTHMUS_ASSIGN(split.reference, impl_->reference());
    }
    ISTHMUS_ASSIGN(pipeline, make_split_pipeline(*impl_->engine, split, options));
  } else {
    const int32_t max_tokens = std::min(options.max_tokens, config().context_length);
    ISTHMUS_ASSIGN(pipeline, make_local_pipeline(*impl_->engine, max_tokens));
  }
  return Session(
      std::make_unique<Session::Impl>(impl_->tokenizer, *impl_->chat, std::move(pipeline)));
}

Result<engine::Engine*> Device::Impl::reference() {
  if (back == nullptr) {
    const int32_t end = tail.value_or(file->config().layer_count);
    model::Part part{.head = !tail};
    if (*cut < end) part.layers.emplace_back(*cut, end);
    ISTHMUS_ASSIGN(back, engine::load_cpu_engine(file, part, pool, engine_options));
  }
  return back.get();
}

Result<model::Fingerprint> Device::fingerprint() {
  if (!impl_->fingerprint) {
    ISTHMUS_ASSIGN(impl_->fingerprint, model::fingerprint(*impl_->file, impl_->pool));
  }
  return *impl_->fingerprint;
}

Device::Device(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Device::Device(Device&&) noexcept = default;
Device& Device::operator=(Device&&) noexcept = default;
Device::~Device() = default;

const model::ModelConfig& Device::config() const {
  return impl_->engine->config();
}
const text::Tokenizer& Device::tokenizer() const {
  return impl_->tokenizer;
}
engine::EngineInfo Device::engine_info() const {
  return impl_->engine->info();
}
text::ChatFormat Device::chat_format() const {
  return impl_->chat->format();
}

}  // namespace isthmus::edge
