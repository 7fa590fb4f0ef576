// A conversation: its place in the chat format, and what must happen before the next turn.
#pragma once

#include <isthmus/edge/device.h>

#include <memory>
#include <utility>
#include <vector>

#include "pipeline.h"

namespace isthmus::edge {

struct Session::Impl {
  Impl(const text::Tokenizer& t, const text::ChatEncoder& c, std::unique_ptr<Pipeline> p)
      : tokenizer(t), chat(c), pipeline(std::move(p)) {}

  Result<Reply> generate(std::span<const text::ChatMessage> messages,
                         const GenerateOptions& options, const OnText& on_text);

  const text::Tokenizer& tokenizer;  // the device's
  const text::ChatEncoder& chat;     // the device's
  std::unique_ptr<Pipeline> pipeline;
  bool is_first_turn = true;
  std::vector<int32_t> unfed;  // ids that belong to the conversation and are not yet in the caches
  int32_t turn_start = 0;      // tokens in the caches when the current turn began
  Reply unfinished;            // of a turn that failed
  bool turn_is_open = false;   // the last turn did not finish: take it back before the next
};

}  // namespace isthmus::edge
