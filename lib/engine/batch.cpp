#include <isthmus/engine/batch.h>

#include <algorithm>
#include <cmath>
#include <string>

namespace isthmus::engine {
namespace {

std::string describe(LayerWindow layers) {
  return "layers [" + std::to_string(layers.first) + ", " + std::to_string(layers.end) + ")";
}

/// Checks of one slice; `name` is "slice 3".
class SliceCheck {
 public:
  SliceCheck(const model::ModelConfig& config, const model::Part& part, const Slice& slice,
             std::string name)
      : config_(config), part_(part), slice_(slice), name_(std::move(name)) {}

  Status run() const {
    if (slice_.cache == nullptr) return invalid("has no cache");
    ISTHMUS_TRY(check_input_kind());
    ISTHMUS_TRY(check_output());
    ISTHMUS_TRY(check_room());
    ISTHMUS_TRY(check_tokens());
    return check_hidden();
  }

 private:
  tl::unexpected<Error> invalid(const std::string& what) const {
    return fail(ErrorCode::kInvalidArgument, "engine: " + name_ + " " + what);
  }

  Status check_input_kind() const {
    const LayerWindow layers = slice_.cache->layers();
    if (!slice_.tokens.empty() && slice_.hidden.rows() > 0) {
      return invalid("has both tokens and hidden rows");
    }
    if (token_count(slice_) == 0) return invalid("has neither tokens nor hidden rows");
    if (slice_.tokens.empty()) return {};
    if (layers.first != 0) {
      return invalid("has tokens, but its window is " + describe(layers));
    }
    if (!part_.embedding) return invalid("has tokens, but this engine holds no embedding");
    return {};
  }

  Status check_output() const {
    if (slice_.output != Output::kLogits) return {};
    const LayerWindow layers = slice_.cache->layers();
    if (layers.end != config_.layer_count) {
      return invalid("wants logits, but its window is " + describe(layers) + " of " +
                     std::to_string(config_.layer_count));
    }
    if (!part_.head) return invalid("wants logits, but this engine holds no head");
    return {};
  }

  Status check_room() const {
    const auto left = static_cast<size_t>(slice_.cache->capacity() - slice_.cache->length());
    if (token_count(slice_) <= left) return {};
    return fail(ErrorCode::kContextFull,
                "engine: " + name_ + " has " + std::to_string(token_count(slice_)) +
                    " tokens, but its cache has room for " + std::to_string(left));
  }

  Status check_tokens() const {
    for (const int32_t id : slice_.tokens) {
      if (id < 0 || id >= config_.vocab_size) {
        return invalid("has token id " + std::to_string(id) + " of a vocabulary of " +
                       std::to_string(config_.vocab_size));
      }
    }
    return {};
  }

  Status check_hidden() const {
    if (slice_.hidden.rows() == 0) return {};
    const auto width = static_cast<size_t>(config_.hidden_size);
    if (slice_.hidden.cols() != width) {
      return invalid("has hidden rows of " + std::to_string(slice_.hidden.cols()) +
                     " values, not " + std::to_string(width));
    }
    for (size_t r = 0; r < slice_.hidden.rows(); ++r) {
      const auto row = slice_.hidden.row(r);
      if (!std::all_of(row.begin(), row.end(), [](float x) { return std::isfinite(x); })) {
        return fail(
            ErrorCode::kNotFinite,
            "engine: " + name_ + " has a NaN or infinity in hidden row " + std::to_string(r));
      }
    }
    return {};
  }

  const model::ModelConfig& config_;
  const model::Part& part_;
  const Slice& slice_;
  std::string name_;
};

}  // namespace

Status check_cache(const Engine& engine, LayerWindow layers, int32_t capacity) {
  if (capacity < 1) {
    return fail(ErrorCode::kInvalidArgument,
                "engine: cache capacity is " + std::to_string(capacity) + ", not at least 1");
  }
  if (layers.first < 0 || layers.end < layers.first || layers.end > engine.config().layer_count) {
    return fail(ErrorCode::kInvalidArgument, "engine: " + describe(layers) + " of a model with " +
                                                 std::to_string(engine.config().layer_count));
  }
  for (int32_t layer = layers.first; layer < layers.end; ++layer) {
    if (!engine.part().has_layer(layer)) {
      return fail(ErrorCode::kInvalidArgument, "engine: " + describe(layers) +
                                                   " asked for, but layer " +
                                                   std::to_string(layer) + " is not held");
    }
  }
  return {};
}

Status check_batch(const Engine& engine, std::span<const Slice> slices) {
  std::vector<const KvCache*> caches;
  caches.reserve(slices.size());
  for (size_t i = 0; i < slices.size(); ++i) {
    const std::string name = "slice " + std::to_string(i);
    ISTHMUS_TRY(SliceCheck(engine.config(), engine.part(), slices[i], name).run());
    caches.push_back(slices[i].cache);
  }
  std::sort(caches.begin(), caches.end());
  if (std::adjacent_find(caches.begin(), caches.end()) != caches.end()) {
    return fail(ErrorCode::kInvalidArgument, "engine: two slices share a cache");
  }
  for (const KvCache* cache : caches) {
    if (cache->owner() != engine.identity()) {
      return fail(ErrorCode::kInvalidArgument, "engine: a cache was made by another engine");
    }
  }
  return {};
}

size_t token_count(const Slice& slice) {
  return slice.tokens.empty() ? slice.hidden.rows() : slice.tokens.size();
}

size_t output_count(const Slice& slice) {
  switch (slice.rows) {
    case Rows::kNone:
      return 0;
    case Rows::kLast:
      return 1;
    case Rows::kAll:
      return token_count(slice);
  }
  return 0;
}

}  // namespace isthmus::engine
