// config.json of a Hugging Face folder, in the forms that transformers 4 and 5 write.
#pragma once

#include <isthmus/core/error.h>
#include <isthmus/model/config.h>
#include <nlohmann/json.hpp>

#include "architecture.h"

namespace isthmus::model {

struct HfConfig {
  ModelConfig config;
  const Architecture* architecture = nullptr;
};

/// The config, validated. \returns kNotFound or kCorrupt naming the field, or kUnsupported naming
/// what is.
[[nodiscard]] Result<HfConfig> read_hf_config(const nlohmann::json& document);

}  // namespace isthmus::model
