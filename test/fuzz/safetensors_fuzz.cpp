// Any bytes as a safetensors file, and as each of the JSON files of a Hugging Face folder.
#include <isthmus/model/safetensors.h>

#include <cstdint>
#include <cstdlib>
#include <span>

#include "../../lib/model/hf_config.h"
#include "../../lib/model/hf_tokenizer.h"
#include "../../lib/model/json_object.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  namespace model = isthmus::model;
  const auto bytes = std::as_bytes(std::span(data, size));
  if (const auto tensors = model::safetensors::parse(bytes)) {
    for (const model::Tensor& tensor : *tensors) {
      if (tensor.shape.size() > 2) continue;
      isthmus::Matrix last(1, static_cast<size_t>(tensor.cols()));
      if (!model::read_rows(tensor, tensor.rows() - 1, last.view())) std::abort();
    }
  }
  const auto document = model::parse_json(bytes, "fuzz.json");
  if (!document) return 0;
  if (const auto config = model::read_hf_config(*document)) {
    if (!config->config.validate()) std::abort();
  }
  if (const auto spec = model::read_hf_tokenizer({*document, *document, *document, *document})) {
    if (spec->pieces.size() != spec->kinds.size()) std::abort();
  }
  return 0;
}
