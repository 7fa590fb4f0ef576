// The checks that every engine makes before it touches a cache.
#pragma once

#include <isthmus/core/error.h>
#include <isthmus/engine/engine.h>
#include <cstdint>
#include <span>

namespace isthmus::engine {

/// Whether an engine that holds `part` can make such a cache.
/// \returns kInvalidArgument when a layer of the window is not held or capacity < 1.
[[nodiscard]] Status check_cache(const Engine& engine, LayerWindow layers, int32_t capacity);

/// Everything `Engine::forward` promises about its input.
/// \returns kInvalidArgument, kContextFull or kNotFinite naming the slice.
[[nodiscard]] Status check_batch(const Engine& engine, std::span<const Slice> slices);

/// Tokens of a slice, however they are given.
[[nodiscard]] size_t token_count(const Slice& slice);

/// Rows of a slice's result.
[[nodiscard]] size_t output_count(const Slice& slice);

}  // namespace isthmus::engine
