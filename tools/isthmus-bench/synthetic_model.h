// Models of well-known shapes with random weights, so that speed at any size can be measured
// without a file. What they say is noise.
#pragma once

#include <isthmus/core/error.h>
#include <isthmus/model/model_file.h>

#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace isthmus::tools {

/// Names that `make_synthetic_model` knows.
[[nodiscard]] std::vector<std::string> synthetic_shapes();

/// Layers in Q4_0, embedding and head in Q8_0. Tensors of one type share their bytes, so the model
/// itself takes little memory; an engine's copies do not.
/// \returns kInvalidArgument for a name that is not in `synthetic_shapes`.
[[nodiscard]] Result<std::shared_ptr<const model::ModelFile>> make_synthetic_model(
    std::string_view shape);

}  // namespace isthmus::tools
