#include "rope.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <string>

namespace isthmus::kernels::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kMaxBlocks = 1 << 16;  // the loop strides over what is left

__device__ float load(float value) {
  return value;
}
__device__ float load(__nv_bfloat16 value) {
  return __bfloat162float(value);
}
__device__ float load(__half value) {
  return __half2float(value);
}

template <typename T>
__device__ T store(float value);
template <>
__device__ float store<float>(float value) {
  return value;
}
template <>
__device__ __nv_bfloat16 store<__nv_bfloat16>(float value) {
  return __float2bfloat16_rn(value);
}
template <>
__device__ __half store<__half>(float value) {
  return __float2half_rn(value);
}

/// One thread per pair; neighbouring threads take neighbouring pairs of one head.
/// values [rows, heads, 2 * pairs], positions [rows], frequencies [pairs].
template <typename T>
__global__ void rotate_pairs(T* __restrict__ values, const int32_t* __restrict__ positions,
                             const float* __restrict__ frequencies, int64_t count, int32_t heads,
                             int32_t pairs, bool half_apart) {
  const int64_t stride = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count;
       i += stride) {
    const int64_t head = i / pairs;
    const auto pair = static_cast<int32_t>(i - head * pairs);
    const int64_t start = head * 2 * pairs;
    const int64_t first = start + (half_apart ? pair : 2 * pair);
    const int64_t second = half_apart ? first + pairs : first + 1;
    // sincosf, not its fast form: positions make angles of many turns.
    float sine = 0;
    float cosine = 0;
    sincosf(static_cast<float>(positions[head / heads]) * frequencies[pair], &sine, &cosine);
    const float x = load(values[first]);
    const float y = load(values[second]);
    values[first] = store<T>(x * cosine - y * sine);
    values[second] = store<T>(y * cosine + x * sine);
  }
}

template <typename T>
void launch(const RopeRows& rows, cudaStream_t stream) {
  const int32_t pairs = rows.head_size / 2;
  const int64_t count = rows.rows * rows.heads * pairs;
  const auto blocks =
      static_cast<unsigned>(std::min((count + kThreads - 1) / kThreads, kMaxBlocks));
  rotate_pairs<T><<<blocks, kThreads, 0, stream>>>(static_cast<T*>(rows.values), rows.positions,
                                                   rows.frequencies, count, rows.heads, pairs,
                                                   rows.half_apart);
}

}  // namespace

Status rotate_rows(const RopeRows& rows, void* stream) {
  if (rows.rows < 0 || rows.heads < 0 || rows.head_size < 0 || rows.head_size % 2 != 0) {
    return fail(ErrorCode::kInvalidArgument, "cuda: cannot rotate [" + std::to_string(rows.rows) +
                                                 ", " + std::to_string(rows.heads) + ", " +
                                                 std::to_string(rows.head_size) + "]");
  }
  if (rows.rows == 0 || rows.heads == 0 || rows.head_size == 0) return {};
  auto* const cuda_stream = static_cast<cudaStream_t>(stream);
  switch (rows.element) {
    case Element::kF32:
      launch<float>(rows, cuda_stream);
      break;
    case Element::kBf16:
      launch<__nv_bfloat16>(rows, cuda_stream);
      break;
    case Element::kF16:
      launch<__half>(rows, cuda_stream);
      break;
  }
  if (const cudaError_t error = cudaGetLastError(); error != cudaSuccess) {
    return fail(ErrorCode::kDeviceFailed,
                std::string("cuda: rotation did not launch: ") + cudaGetErrorString(error));
  }
  return {};
}

}  // namespace isthmus::kernels::cuda
