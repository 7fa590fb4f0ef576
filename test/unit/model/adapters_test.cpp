// Adapters: what is read through them is W + up * down, and nothing else changes.
#include <isthmus/core/random.h>
#include <isthmus/core/thread_pool.h>
#include <isthmus/model/adapters.h>
#include <isthmus/model/fingerprint.h>

#include <cmath>
#include <string>

#include "support/catch.h"
#include "support/tiny_model.h"

namespace isthmus::model {
namespace {

using test::value_of;

Matrix some(size_t rows, size_t cols, uint64_t seed) {
  Matrix matrix(rows, cols);
  for (size_t i = 0; i < rows * cols; ++i)
    matrix.data()[i] = static_cast<float>(2 * counter_uniform(seed, i) - 1);
  return matrix;
}

/// One of every matrix of two layers, of ranks 1 to 3.
Adapters some_adapters(const ModelFile& file) {
  Adapters adapters;
  uint64_t seed = 0;
  for (const int32_t layer : {1, 3}) {
    for (const std::string_view matrix : kLayerMatrices) {
      const std::string name = layer_matrix(layer, matrix);
      const Tensor& tensor = *value_of(file.find(name));
      const size_t rank = 1 + seed % 3;
      adapters[name] = {some(rank, tensor.cols(), seed), some(tensor.rows(), rank, seed + 100)};
      ++seed;
    }
  }
  return adapters;
}

TEST_CASE("an adapted matrix is read as W + up * down, all else as it is", "[model][adapters]") {
  const auto file = std::make_shared<test::TinyModel>(test::tiny_configs().front().config);
  const Adapters adapters = some_adapters(*file);
  const auto adapted = value_of(adapt(file, std::make_shared<const Adapters>(adapters)));
  REQUIRE(adapted->tensors().size() == file->tensors().size());
  for (const Tensor& tensor : file->tensors()) {
    CAPTURE(tensor.name);
    if (tensor.shape.size() != 2) continue;
    const size_t first = tensor.rows() / 3;
    Matrix before(tensor.rows() - first, tensor.cols());
    Matrix after = before;
    value_of(read_rows(tensor, first, before.view()));
    value_of(read_rows(*value_of(adapted->find(tensor.name)), first, after.view()));
    const auto found = adapters.find(tensor.name);
    double worst = 0;
    for (size_t r = 0; r < after.rows(); ++r) {
      for (size_t c = 0; c < after.cols(); ++c) {
        double expected = before.row(r)[c];
        for (size_t k = 0; found != adapters.end() && k < found->second.down.rows(); ++k)
          expected += double{found->second.up.row(first + r)[k]} * found->second.down.row(k)[c];
        worst = std::max(worst, std::abs(expected - double{after.row(r)[c]}));
      }
    }
    CHECK(worst < 1e-6);
  }
  ThreadPool pool(1);
  CHECK(value_of(fingerprint(*adapted, pool)) == value_of(fingerprint(*file, pool)));
  CHECK_FAILS_WITH(adapted->find("blk.9.attn_q.weight"), ErrorCode::kNotFound);
}

TEST_CASE("an adapter that fits no matrix is refused", "[model][adapters]") {
  const auto file = std::make_shared<test::TinyModel>(test::tiny_configs().front().config);
  const auto changed = [&](auto change) {
    auto adapters = std::make_shared<Adapters>(some_adapters(*file));
    change(*adapters);
    return adapt(file, adapters);
  };
  const std::string name = layer_matrix(1, "ffn_up");
  CHECK_FAILS_WITH(changed([&](Adapters& a) { a[layer_matrix(4, "ffn_up")] = a[name]; }),
                   ErrorCode::kNotFound);
  CHECK_FAILS_WITH(changed([&](Adapters& a) { a["output_norm.weight"] = a[name]; }),
                   ErrorCode::kModelMismatch);
  const LowRank good = some_adapters(*file).at(name);
  const size_t rank = good.down.rows();
  for (const LowRank& bad : {LowRank{Matrix(rank, good.down.cols() + 1), good.up},
                             LowRank{good.down, Matrix(good.up.rows() - 1, rank)},
                             LowRank{good.down, Matrix(good.up.rows(), rank + 1)}}) {
    CHECK_FAILS_WITH(changed([&](Adapters& a) { a[name] = bad; }), ErrorCode::kModelMismatch);
  }
}

TEST_CASE("only a layer's seven matrices have names that adapters know", "[model][adapters]") {
  CHECK(layer_matrix(3, "attn_q") == "blk.3.attn_q.weight");
  CHECK(layer_of_matrix("blk.3.attn_q.weight") == 3);
  CHECK(layer_of_matrix("blk.12.ffn_down.weight") == 12);
  for (const char* name :
       {"", "blk.", "blk.3.", "blk.3.attn_q", "blk.03.attn_q.weight", "blk.-1.attn_q.weight",
        "blk.3.attn_q.weights", "blk.3.attn_q.bias", "blk.3.attn_norm.weight", "output.weight",
        "blk.99999999999.attn_q.weight", "xblk.3.attn_q.weight"}) {
    CAPTURE(name);
    CHECK_FALSE(layer_of_matrix(name));
  }
}

}  // namespace
}  // namespace isthmus::model
