#include <isthmus/model/adapters.h>

#include <algorithm>
#include <unordered_map>
#include <utility>
#include <vector>

#include "architecture.h"

namespace isthmus::model {
namespace {

constexpr std::string_view kLayer = "blk.";
constexpr std::string_view kWeight = ".weight";

class AdaptedFile final : public ModelFile {
 public:
  AdaptedFile(std::shared_ptr<const ModelFile> file, std::shared_ptr<const Adapters> adapters)
      : file_(std::move(file)), adapters_(std::move(adapters)) {
    tensors_.assign(file_->tensors().begin(), file_->tensors().end());
    for (Tensor& tensor : tensors_) {
      const auto found = adapters_->find(tensor.name);
      if (found != adapters_->end()) tensor.adapter = &found->second;
      index_.emplace(tensor.name, &tensor);
    }
  }

  [[nodiscard]] const ModelConfig& config() const override { return file_->config(); }
  [[nodiscard]] const text::TokenizerSpec& tokenizer() const override { return file_->tokenizer(); }
  [[nodiscard]] std::span<const Tensor> tensors() const override { return tensors_; }
  [[nodiscard]] Result<const Tensor*> find(std::string_view name) const override {
    const auto found = index_.find(name);
    if (found != index_.end()) return found->second;
    return file_->find(name);  // says why it is missing
  }
  void release(const Tensor& tensor) const override { file_->release(tensor); }
  [[nodiscard]] bool is_slice() const override { return file_->is_slice(); }
  [[nodiscard]] std::span<const Digest> source_digests() const override {
    return file_->source_digests();
  }

 private:
  std::shared_ptr<const ModelFile> file_;
  std::shared_ptr<const Adapters> adapters_;
  std::vector<Tensor> tensors_;
  std::unordered_map<std::string_view, const Tensor*> index_;
};

std::string describe(uint64_t rows, uint64_t cols) {
  return std::to_string(rows) + " x " + std::to_string(cols);
}

Status check_fit(const Tensor& tensor, const LowRank& adapter) {
  const size_t rank = adapter.down.rows();
  if (tensor.shape.size() == 2 && adapter.up.cols() == rank && adapter.up.rows() == tensor.rows() &&
      adapter.down.cols() == tensor.cols())
    return {};
  return fail(ErrorCode::kModelMismatch,
              "model: tensor '" + tensor.name + "' is " + describe(tensor.rows(), tensor.cols()) +
                  ", its adapter " + describe(adapter.up.rows(), adapter.up.cols()) + " times " +
                  describe(rank, adapter.down.cols()));
}

}  // namespace

std::string layer_matrix(int32_t layer, std::string_view matrix) {
  return std::string(kLayer) + std::to_string(layer) + "." + std::string(matrix) +
         std::string(kWeight);
}

std::optional<int32_t> layer_of_matrix(std::string_view name) {
  const auto split = split_layer_name(name, kLayer);
  if (!split) return std::nullopt;
  for (const std::string_view matrix : kLayerMatrices)
    if (name == layer_matrix(split->layer, matrix)) return split->layer;
  return std::nullopt;
}

Result<std::shared_ptr<const ModelFile>> adapt(std::shared_ptr<const ModelFile> file,
                                               std::shared_ptr<const Adapters> adapters) {
  for (const auto& [name, adapter] : *adapters) {
    ISTHMUS_ASSIGN(const Tensor* const tensor, file->find(name));
    ISTHMUS_TRY(check_fit(*tensor, adapter));
  }
  return std::make_shared<const AdaptedFile>(std::move(file), std::move(adapters));
}

}  // namespace isthmus::model
