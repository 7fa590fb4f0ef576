// What a sliced GGUF says about itself: metadata beside that of the model it was cut from.
//
//   isthmus.slice.layers      array of i32   first, end, first, end, ... of the layers it holds
//   isthmus.slice.embedding   bool           it holds the embedding table for looking tokens up
//   isthmus.slice.head        bool           it holds the final norm and the LM head
//   isthmus.slice.tied_head   bool           the model's head is its embedding table, held or not
//   isthmus.slice.qkv_bias    bool           the model's layers add biases to queries, keys, values
//   isthmus.slice.output_bias bool           and to what the heads give
//   isthmus.slice.vocab_size  u32            of the model, whose tables may be elsewhere
//   isthmus.slice.digests     array of u8    32 bytes for each part of the model: shared,
//                                            embedding, head, and each layer (fingerprint.h)
//
// Slices made before the biases were written down lack them; a reader then goes by the tensors.
#pragma once

#include <isthmus/core/error.h>
#include <isthmus/model/model_file.h>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "gguf.h"

namespace isthmus::model {

inline constexpr std::string_view kSlicePrefix = "isthmus.slice.";
inline constexpr std::string_view kSliceLayers = "isthmus.slice.layers";
inline constexpr std::string_view kSliceEmbedding = "isthmus.slice.embedding";
inline constexpr std::string_view kSliceHead = "isthmus.slice.head";
inline constexpr std::string_view kSliceTiedHead = "isthmus.slice.tied_head";
inline constexpr std::string_view kSliceQkvBias = "isthmus.slice.qkv_bias";
inline constexpr std::string_view kSliceOutputBias = "isthmus.slice.output_bias";
inline constexpr std::string_view kSliceVocabSize = "isthmus.slice.vocab_size";
inline constexpr std::string_view kSliceDigests = "isthmus.slice.digests";

/// A model's shared part, its embedding and its head; the layers follow.
inline constexpr size_t kPartsBesideLayers = 3;

/// What a slice holds, in words; empty for a whole model. \returns kCorrupt.
[[nodiscard]] Result<std::string> describe_slice(const gguf::Metadata& metadata);

/// The digests that a slice carries; none for a whole model, or a slice that has none. \returns
/// kCorrupt when their number is not that of a model with so many layers.
[[nodiscard]] Result<std::vector<Digest>> read_slice_digests(const gguf::Metadata& metadata,
                                                             int32_t layer_count);

}  // namespace isthmus::model
