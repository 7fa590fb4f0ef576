// What a Device owns. Its address is stable: sessions and the chat encoder borrow from it.
#pragma once

#include <isthmus/core/thread_pool.h>
#include <isthmus/edge/device.h>

#include <optional>
#include <utility>

namespace isthmus::edge {

struct Device::Impl {
  Impl(text::Tokenizer t, size_t threads) : tokenizer(std::move(t)), pool(threads) {}

  text::Tokenizer tokenizer;
  std::optional<text::ChatEncoder> chat;
  ThreadPool pool;
  std::unique_ptr<engine::Engine> engine;
  std::optional<int32_t> cut;
  std::optional<int32_t> tail;
};

}  // namespace isthmus::edge
