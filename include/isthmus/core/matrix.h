// Row-major float matrices: an owner and two views. Dimension letters everywhere in Isthmus:
// B batch, T tokens, D hidden size, H heads, K head size, V vocabulary, L layers.
#pragma once

#include <cstddef>
#include <span>
#include <stdexcept>
#include <type_traits>
#include <vector>

namespace isthmus {

/// Borrowed [rows, cols] matrix, rows `cols` apart. `T` is `float` or `const float`.
template <typename T>
class MatrixView {
 public:
  MatrixView() = default;
  MatrixView(T* data, size_t rows, size_t cols) : data_(data), rows_(rows), cols_(cols) {}
  /// A mutable view is also a const view.
  template <typename U>
  requires(std::is_same_v<const U, T>)
      MatrixView(MatrixView<U> other)  // NOLINT(google-explicit-constructor)
      : data_(other.data()), rows_(other.rows()), cols_(other.cols()) {}

  [[nodiscard]] T* data() const { return data_; }
  [[nodiscard]] size_t rows() const { return rows_; }
  [[nodiscard]] size_t cols() const { return cols_; }
  [[nodiscard]] bool empty() const { return rows_ == 0 || cols_ == 0; }
  [[nodiscard]] std::span<T> row(size_t r) const { return {data_ + r * cols_, cols_}; }
  [[nodiscard]] std::span<T> values() const { return {data_, rows_ * cols_}; }
  /// Rows [first, first + count). \throws std::out_of_range
  [[nodiscard]] MatrixView middle_rows(size_t first, size_t count) const {
    if (first > rows_ || count > rows_ - first) throw std::out_of_range("matrix: middle_rows");
    return {data_ + first * cols_, count, cols_};
  }

 private:
  T* data_ = nullptr;
  size_t rows_ = 0;
  size_t cols_ = 0;
};

/// Owned [rows, cols] matrix of float, zero when made.
class Matrix {
 public:
  Matrix() = default;
  Matrix(size_t rows, size_t cols) : rows_(rows), cols_(cols), values_(rows * cols) {}

  [[nodiscard]] size_t rows() const { return rows_; }
  [[nodiscard]] size_t cols() const { return cols_; }
  [[nodiscard]] bool empty() const { return values_.empty(); }
  [[nodiscard]] float* data() { return values_.data(); }
  [[nodiscard]] const float* data() const { return values_.data(); }
  [[nodiscard]] std::span<float> row(size_t r) { return {data() + r * cols_, cols_}; }
  [[nodiscard]] std::span<const float> row(size_t r) const { return {data() + r * cols_, cols_}; }
  [[nodiscard]] MatrixView<float> view() { return {data(), rows_, cols_}; }
  [[nodiscard]] MatrixView<const float> view() const { return {data(), rows_, cols_}; }

 private:
  size_t rows_ = 0;
  size_t cols_ = 0;
  std::vector<float> values_;
};

}  // namespace isthmus
