// Low-rank changes of a model's matrices (LoRA: Hu et al. 2021, arXiv 2106.09685): W + up * down in
// place of W, with no more memory than the two factors take.
#pragma once

#include <isthmus/core/error.h>
#include <isthmus/core/matrix.h>
#include <isthmus/model/model_file.h>
#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

namespace isthmus::model {

/// What is added to a matrix [out, in].
struct LowRank {
  Matrix down;  ///< [r, in]
  Matrix up;    ///< [out, r]
};

/// By the name of the tensor that each changes, which is one that `layer_of_matrix` knows.
using Adapters = std::map<std::string, LowRank>;

/// The matrices that every layer has, by their part of the name.
inline constexpr std::array<std::string_view, 7> kLayerMatrices = {
    "attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"};

/// "blk.3.attn_q.weight" for 3 and "attn_q".
[[nodiscard]] std::string layer_matrix(int32_t layer, std::string_view matrix);

/// The layer that such a name belongs to; nothing for any other name.
[[nodiscard]] std::optional<int32_t> layer_of_matrix(std::string_view name);

/// `file` with those matrices changed: `read_rows` adds the product to what the file says. All else
/// is the file's, also the bytes and so the fingerprint. \returns kNotFound naming a tensor that
/// the file lacks; kModelMismatch naming one whose shape its factors do not fit.
[[nodiscard]] Result<std::shared_ptr<const ModelFile>> adapt(
    std::shared_ptr<const ModelFile> file, std::shared_ptr<const Adapters> adapters);

}  // namespace isthmus::model
