// Any bytes as a GGUF model: an error, or a config and tensors that can be used.
#include <cstdint>
#include <cstdlib>
#include <span>

#include "../../lib/model/loaded_model.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  namespace model = isthmus::model;
  const auto parts = model::read_gguf_model(std::as_bytes(std::span(data, size)));
  if (!parts) return 0;
  if (!parts->config.validate()) std::abort();
  for (const model::Tensor& tensor : parts->tensors) {
    if (tensor.shape.size() > 2) continue;
    isthmus::Matrix last(1, static_cast<size_t>(tensor.cols()));
    if (!model::read_rows(tensor, tensor.rows() - 1, last.view())) std::abort();
  }
  return 0;
}
