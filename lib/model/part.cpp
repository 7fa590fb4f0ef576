// Which part of a model one side holds.
#include <isthmus/model/model_file.h>

namespace isthmus::model {

bool Part::has_layer(int32_t layer) const {
  for (const auto& [first, end] : layers) {
    if (layer >= first && layer < end) return true;
  }
  return false;
}

Status Part::validate(int32_t layer_count) const {
  int32_t previous_end = 0;
  for (const auto& [first, end] : layers) {
    if (first < previous_end || end < first || end > layer_count) {
      return fail(ErrorCode::kInvalidArgument, "model: layers [" + std::to_string(first) + ", " +
                                                   std::to_string(end) +
                                                   ") are not an increasing range inside [0, " +
                                                   std::to_string(layer_count) + ")");
    }
    previous_end = end;
  }
  return {};
}

Part available_part(const ModelFile& file) {
  const ModelConfig& config = file.config();
  const auto has = [&](const std::string& name) { return file.find(name).has_value(); };
  Part part;
  part.embedding = has("token_embd.weight");
  part.head =
      has("output_norm.weight") && has(config.tied_head ? "token_embd.weight" : "output.weight");
  for (int32_t layer = 0; layer < config.layer_count; ++layer) {
    const std::string prefix = "blk." + std::to_string(layer) + ".";
    if (!has(prefix + "attn_q.weight") || !has(prefix + "ffn_down.weight")) continue;
    if (!part.layers.empty() && part.layers.back().second == layer) {
      ++part.layers.back().second;
    } else {
      part.layers.emplace_back(layer, layer + 1);
    }
  }
  return part;
}

}  // namespace isthmus::model
