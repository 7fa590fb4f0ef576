#include "boundary.h"

#include <ATen/ATen.h>

#include <cstring>
#include <utility>
#include <variant>

namespace isthmus::train {
namespace {

at::Tensor clipped(const at::Tensor& latents, const codec::Clip& clip) {
  at::Tensor result = latents;
  if (clip.l2 > 0) {
    const at::Tensor norm = at::linalg_vector_norm(result, 2, -1, /*keepdim=*/true);
    result = result * at::clamp_max(clip.l2 / at::clamp_min(norm, clip.l2), 1);
  }
  if (clip.max > 0) result = at::clamp(result, -clip.max, clip.max);
  return result;
}

}  // namespace

at::Tensor tensor_of(MatrixView<const float> matrix, at::Device device) {
  const at::Tensor borrowed = at::from_blob(
      const_cast<float*>(matrix.data()),
      {static_cast<int64_t>(matrix.rows()), static_cast<int64_t>(matrix.cols())}, at::kFloat);
  return borrowed.clone().to(device);
}

Matrix matrix_of(const at::Tensor& tensor) {
  const at::Tensor host = tensor.detach().to(at::kCPU, at::kFloat).contiguous();
  Matrix matrix(static_cast<size_t>(host.size(0)), static_cast<size_t>(host.size(1)));
  std::memcpy(matrix.data(), host.const_data_ptr<float>(),
              static_cast<size_t>(host.numel()) * sizeof(float));
  return matrix;
}

Result<Channel> Channel::make(const codec::CodecSpec& spec, int64_t dims) {
  if (spec.project) {
    return fail(ErrorCode::kUnsupported, "train: '" + spec.to_string() +
                                             "' projects, it must say what follows a projection");
  }
  if (spec.clip && (spec.split || !std::holds_alternative<std::monostate>(spec.transform))) {
    return fail(ErrorCode::kUnsupported,
                "train: '" + spec.to_string() +
                    "' clips what a transform or a split has left of the latents, whose gradient "
                    "is that of a clip alone; a projection turns them as well");
  }
  auto noise = std::make_unique<NamedNoise>();
  ISTHMUS_ASSIGN(auto codec, codec::BoundaryCodec::make(spec, static_cast<size_t>(dims),
                                                        {.random = noise.get()}));
  return Channel(std::move(noise), std::move(codec));
}

Result<at::Tensor> Channel::cross(const at::Tensor& latents, uint64_t seed, uint64_t draw) {
  noise_->restart(seed, draw);
  Matrix rows = matrix_of(latents);
  for (size_t r = 0; r < rows.rows(); ++r) {
    const MatrixView<float> row = rows.view().middle_rows(r, 1);
    ISTHMUS_ASSIGN(const auto message, codec_.encode(row));
    ISTHMUS_TRY(codec_.decode_into(message, row));
  }
  const at::Tensor crossed = tensor_of(std::as_const(rows).view(), latents.device());
  const auto& clip = codec_.spec().clip;
  const at::Tensor smooth = clip ? clipped(latents, *clip) : latents;
  // The value of one, the gradient of the other.
  return smooth + (crossed - smooth).detach();
}

}  // namespace isthmus::train
