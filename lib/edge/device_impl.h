// What a Device owns. Its address is stable: sessions and the chat encoder borrow from it.
#pragma once

#include <isthmus/core/thread_pool.h>
#include <isthmus/edge/device.h>
#include <isthmus/model/fingerprint.h>
#include <isthmus/model/model_file.h>

#include <memory>
#include <optional>
#include <utility>

namespace isthmus::edge {

struct Device::Impl {
  Impl(std::shared_ptr<const model::ModelFile> f, text::Tokenizer t, size_t threads)
      : file(std::move(f)), tokenizer(std::move(t)), pool(threads) {}

  /// The layers that the server runs. \returns the errors of load_cpu_engine.
  Result<engine::Engine*> reference();

  std::shared_ptr<const model::ModelFile> file;
  std::optional<model::Fingerprint> fingerprint;  // once it was asked for
  text::Tokenizer tokenizer;
  std::optional<text::ChatEncoder> chat;
  ThreadPool pool;
  std::unique_ptr<engine::Engine> engine;
  engine::CpuEngineOptions engine_options;
  std::unique_ptr<engine::Engine> back;  // what the server runs, once something is checked here
  std::optional<int32_t> cut;
  std::optional<int32_t> tail;
};

}  // namespace isthmus::edge
