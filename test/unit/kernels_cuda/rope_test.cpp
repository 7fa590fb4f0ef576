// Runs on a CUDA device. Without one a case says so, and CTest counts the suite as skipped.
#include <cuda_runtime.h>
#include <isthmus/core/random.h>
#include <isthmus/kernels/dtype.h>
#include <kernels/cuda/rope.h>
#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "support/catch.h"

namespace isthmus::kernels::cuda {
namespace {

bool has_device() {
  int count = 0;
  if (cudaGetDeviceCount(&count) == cudaSuccess && count > 0) return true;
  WARN("no device: nothing was run");
  return false;
}

/// Memory on the device with the contents of a vector.
template <typename T>
class DeviceCopy {
 public:
  explicit DeviceCopy(const std::vector<T>& values) : size_(values.size()) {
    REQUIRE(cudaMalloc(&data_, std::max<size_t>(size_, 1) * sizeof(T)) == cudaSuccess);
    REQUIRE(cudaMemcpy(data_, values.data(), size_ * sizeof(T), cudaMemcpyHostToDevice) ==
            cudaSuccess);
  }
  ~DeviceCopy() { cudaFree(data_); }
  DeviceCopy(const DeviceCopy&) = delete;
  DeviceCopy& operator=(const DeviceCopy&) = delete;

  [[nodiscard]] T* data() { return static_cast<T*>(data_); }
  [[nodiscard]] std::vector<T> read() const {
    std::vector<T> values(size_);
    REQUIRE(cudaDeviceSynchronize() == cudaSuccess);
    REQUIRE(cudaMemcpy(values.data(), data_, size_ * sizeof(T), cudaMemcpyDeviceToHost) ==
            cudaSuccess);
    return values;
  }

 private:
  void* data_ = nullptr;
  size_t size_;
};

struct Case {
  int64_t rows;
  int32_t heads;
  int32_t head_size;
  bool half_apart;
};

/// The definition, in double from the float angle on.
std::vector<float> rotated(const Case& c, std::vector<float> values,
                           const std::vector<int32_t>& positions,
                           const std::vector<float>& frequencies) {
  const auto pairs = static_cast<size_t>(c.head_size / 2);
  const auto heads = static_cast<size_t>(c.heads);
  for (size_t head = 0; head < static_cast<size_t>(c.rows) * heads; ++head) {
    for (size_t pair = 0; pair < pairs; ++pair) {
      float& x = values[head * 2 * pairs + (c.half_apart ? pair : 2 * pair)];
      float& y = values[head * 2 * pairs + (c.half_apart ? pair + pairs : 2 * pair + 1)];
      const double angle = static_cast<float>(positions[head / heads]) * frequencies[pair];
      const double turned = x * std::cos(angle) - y * std::sin(angle);
      y = static_cast<float>(y * std::cos(angle) + x * std::sin(angle));
      x = static_cast<float>(turned);
    }
  }
  return values;
}

/// Numbers in [-8, 8) that every element type holds exactly.
std::vector<float> make_values(size_t count) {
  std::vector<float> values(count);
  for (size_t i = 0; i < count; ++i) {
    values[i] = static_cast<float>(std::floor(counter_uniform(7, i) * 256) - 128) / 16;
  }
  return values;
}

uint16_t to_half(float value, Element element) {
  return element == Element::kBf16 ? bf16_from_float(value) : f16_from_float(value);
}

float from_half(uint16_t bits, Element element) {
  return element == Element::kBf16 ? float_from_bf16(bits) : float_from_f16(bits);
}

/// What the device makes of `values` in storage type `element`.
std::vector<float> rotated_on_device(const Case& c, Element element,
                                     const std::vector<float>& values,
                                     const std::vector<int32_t>& positions,
                                     const std::vector<float>& frequencies) {
  DeviceCopy<int32_t> device_positions(positions);
  DeviceCopy<float> device_frequencies(frequencies);
  RopeRows rows;
  rows.positions = device_positions.data();
  rows.frequencies = device_frequencies.data();
  rows.element = element;
  rows.rows = c.rows;
  rows.heads = c.heads;
  rows.head_size = c.head_size;
  rows.half_apart = c.half_apart;
  if (element == Element::kF32) {
    DeviceCopy<float> device_values(values);
    rows.values = device_values.data();
    test::value_of(rotate_rows(rows, nullptr));
    return device_values.read();
  }
  std::vector<uint16_t> halves;
  for (const float value : values) halves.push_back(to_half(value, element));
  DeviceCopy<uint16_t> device_values(halves);
  rows.values = device_values.data();
  test::value_of(rotate_rows(rows, nullptr));
  std::vector<float> result;
  for (const uint16_t bits : device_values.read()) result.push_back(from_half(bits, element));
  return result;
}

}  // namespace

TEST_CASE("ragged rows rotate on the device as the definition says", "[kernels][rope][cuda]") {
  if (!has_device()) return;
  const Case c = GENERATE(Case{1, 1, 2, false}, Case{1, 9, 64, false}, Case{7, 3, 64, true},
                          Case{33, 4, 128, true}, Case{5, 2, 6, false}, Case{5, 2, 6, true},
                          Case{3000, 32, 256, true});
  const Element element = GENERATE(Element::kF32, Element::kBf16, Element::kF16);
  CAPTURE(c.rows, c.heads, c.head_size, c.half_apart, static_cast<int>(element));

  std::vector<int32_t> positions;
  for (int64_t row = 0; row < c.rows; ++row) {
    positions.push_back(static_cast<int32_t>(row * 7919 % 32768));
  }
  std::vector<float> frequencies;
  for (int32_t pair = 0; pair < c.head_size / 2; ++pair) {
    frequencies.push_back(
        std::pow(10000.0F, -2.0F * static_cast<float>(pair) / static_cast<float>(c.head_size)));
  }
  const auto values = make_values(static_cast<size_t>(c.rows * c.heads * c.head_size));
  const auto expected = rotated(c, values, positions, frequencies);
  const auto actual = rotated_on_device(c, element, values, positions, frequencies);

  // One rounding to the storage type on top of float's own: 8 or 11 significant bits of up to 16.
  const double tolerance =
      element == Element::kF32 ? 1e-5 : (element == Element::kBf16 ? 16.0 / 256 : 16.0 / 2048);
  double worst = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    worst = std::max(worst, std::fabs(static_cast<double>(expected[i]) - actual[i]));
  }
  CHECK(worst < tolerance);
}

TEST_CASE("a rotation refuses shapes that cannot be", "[kernels][rope]") {
  RopeRows rows;
  rows.rows = 1;
  rows.heads = 1;
  rows.head_size = 3;
  CHECK_FAILS_WITH(rotate_rows(rows, nullptr), ErrorCode::kInvalidArgument);
  rows.head_size = 4;
  rows.rows = -1;
  CHECK_FAILS_WITH(rotate_rows(rows, nullptr), ErrorCode::kInvalidArgument);
  rows.rows = 0;
  CHECK(rotate_rows(rows, nullptr).has_value());
}

}  // namespace isthmus::kernels::cuda
