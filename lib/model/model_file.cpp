#include <isthmus/kernels/dtype.h>
#include <isthmus/model/adapters.h>
#include <isthmus/model/model_file.h>

#include <system_error>
#include <utility>

#include "loaded_model.h"

namespace isthmus::model {
namespace {

/// Adds rows first_row and up of up * down.
void add_rows(const LowRank& adapter, uint64_t first_row, MatrixView<float> out) {
  for (size_t r = 0; r < out.rows(); ++r) {
    const std::span<const float> weights = adapter.up.row(first_row + r);
    const std::span<float> row = out.row(r);
    for (size_t k = 0; k < weights.size(); ++k) {
      const std::span<const float> direction = adapter.down.row(k);
      for (size_t i = 0; i < row.size(); ++i) row[i] += weights[k] * direction[i];
    }
  }
}

}  // namespace

LoadedModel::LoadedModel(ModelParts parts, std::vector<MappedFile> files)
    : parts_(std::move(parts)), files_(std::move(files)) {
  index_.reserve(parts_.tensors.size());
  for (const Tensor& tensor : parts_.tensors) index_.emplace(tensor.name, &tensor);
}

Result<const Tensor*> LoadedModel::find(std::string_view name) const {
  const auto found = index_.find(name);
  if (found != index_.end()) return found->second;
  const std::string where =
      parts_.slice.empty() ? "missing" : "missing; the file is a slice with " + parts_.slice;
  return fail(ErrorCode::kNotFound, "model: tensor '" + std::string(name) + "' is " + where);
}

Result<std::shared_ptr<const ModelFile>> ModelFile::open(const std::filesystem::path& path) {
  std::error_code ignored;  // then it is no folder, and mapping it says what is wrong
  if (std::filesystem::is_directory(path, ignored)) return open_hf_folder(path);
  ISTHMUS_ASSIGN(auto file, MappedFile::open(path));
  ISTHMUS_ASSIGN(auto parts, read_gguf_model(file.bytes()));
  std::vector<MappedFile> files;
  files.push_back(std::move(file));
  return std::make_shared<const LoadedModel>(std::move(parts), std::move(files));
}

Status read_rows(const Tensor& tensor, uint64_t first_row, MatrixView<float> out) {
  const DTypeInfo* info = dtype_info(tensor.type);
  if (info == nullptr || tensor.shape.empty() || tensor.shape.size() > 2 ||
      out.cols() != tensor.cols() || first_row > tensor.rows() ||
      out.rows() > tensor.rows() - first_row) {
    return fail(ErrorCode::kInvalidArgument,
                "model: rows " + std::to_string(first_row) + " to " +
                    std::to_string(first_row + out.rows()) + " of " + std::to_string(out.cols()) +
                    " columns are not in tensor '" + tensor.name + "'");
  }
  const size_t row_bytes = out.cols() / info->block_elements * info->block_bytes;
  ISTHMUS_TRY(kernels::dequantize(
      tensor.type, tensor.data.subspan(first_row * row_bytes, out.rows() * row_bytes),
      out.values()));
  if (tensor.adapter != nullptr) add_rows(*tensor.adapter, first_row, out);
  return {};
}

void LoadedModel::release(const Tensor& tensor) const {
  for (const MappedFile& file : files_) file.release(tensor.data);
}

}  // namespace isthmus::model
