// Where training starts: principal components and the decoder that fits them, adapters that change
// nothing.
#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <isthmus/core/random.h>
#include <isthmus/train/trainer.h>

#include <cmath>
#include <string>
#include <utility>

#include "boundary.h"
#include "torch_engine/device.h"

namespace isthmus::train {
namespace {

/// A rotation [d, d], evenly drawn.
at::Tensor random_rotation(int64_t dims, uint64_t seed) {
  at::Tensor gaussian = at::empty({dims, dims}, at::kFloat);
  for (int64_t i = 0; i < gaussian.numel(); ++i) {
    // Twelve uniform numbers make a Gaussian that is good enough to turn by.
    double sum = -6;
    for (uint64_t j = 0; j < 12; ++j)
      sum += counter_uniform(seed, static_cast<uint64_t>(i) * 12 + j);
    gaussian.data_ptr<float>()[i] = static_cast<float>(sum);
  }
  return std::get<0>(at::linalg_qr(gaussian));
}

}  // namespace

Result<Matrix> principal_components(MatrixView<const float> rows, size_t dims, uint64_t seed) {
  if (dims < 1 || dims > rows.cols() || rows.rows() < dims) {
    return fail(ErrorCode::kInvalidArgument, "train: " + std::to_string(dims) + " dimensions of " +
                                                 std::to_string(rows.rows()) + " rows of " +
                                                 std::to_string(rows.cols()));
  }
  return torch_engine::guarded([&]() -> Result<Matrix> {
    const at::NoGradGuard no_gradients;
    const at::Tensor x = tensor_of(rows, at::kCPU);
    const auto count = static_cast<int64_t>(dims);
    const at::Tensor vectors = std::get<1>(at::linalg_eigh(at::matmul(x.t(), x)));
    const at::Tensor largest = vectors.narrow(1, vectors.size(1) - count, count);  // [D, d]
    return matrix_of(at::matmul(random_rotation(count, seed), largest.t()));
  });
}

Result<Matrix> fit_decoder(MatrixView<const float> rows, const Matrix& encoder,
                           const codec::CodecSpec& codec, uint64_t seed) {
  return torch_engine::guarded([&]() -> Result<Matrix> {
    const at::NoGradGuard no_gradients;
    ISTHMUS_ASSIGN(Channel channel, Channel::make(codec, static_cast<int64_t>(encoder.rows())));
    const at::Tensor x = tensor_of(rows, at::kCPU);
    const at::Tensor latents = at::matmul(x, tensor_of(encoder.view(), at::kCPU).t());
    ISTHMUS_ASSIGN(const at::Tensor z, channel.cross(latents, seed, /*draw=*/0));
    const at::Tensor moments = at::matmul(z.t(), z).to(at::kDouble);
    // Enough to keep a latent that is always 0 from making the system singular.
    const at::Tensor ridge =
        at::eye(moments.size(0), moments.options()) * (moments.diagonal().mean() * 1e-6);
    const at::Tensor fit = at::linalg_solve(moments + ridge, at::matmul(z.t(), x).to(at::kDouble));
    return matrix_of(fit.t());
  });
}

Result<model::Adapters> fresh_adapters(const model::ModelFile& file, int32_t first, int32_t end,
                                       size_t rank, uint64_t seed) {
  const int32_t layers = file.config().layer_count;
  if (rank < 1 || rank > artefact::Artefact::kMaxRank || first < 0 || end <= first ||
      end > layers) {
    return fail(ErrorCode::kInvalidArgument,
                "train: adapters of rank " + std::to_string(rank) + " for layers [" +
                    std::to_string(first) + ", " + std::to_string(end) + ") of " +
                    std::to_string(layers) + ", the rank may be 1 to " +
                    std::to_string(artefact::Artefact::kMaxRank));
  }
  model::Adapters adapters;
  uint64_t drawn = 0;
  for (int32_t layer = first; layer < end; ++layer) {
    for (const std::string_view matrix : model::kLayerMatrices) {
      const std::string name = model::layer_matrix(layer, matrix);
      ISTHMUS_ASSIGN(const model::Tensor* const tensor, file.find(name));
      model::LowRank adapter{Matrix(rank, tensor->cols()), Matrix(tensor->rows(), rank)};
      const double most = 1 / std::sqrt(static_cast<double>(tensor->cols()));
      for (float& value : adapter.down.view().values())
        value = static_cast<float>(most * (2 * counter_uniform(seed, drawn++) - 1));
      adapters.emplace(name, std::move(adapter));
    }
  }
  return adapters;
}

}  // namespace isthmus::train
