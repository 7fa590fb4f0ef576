#include "batches.h"

#include <ATen/ATen.h>
#include <isthmus/core/random.h>

#include <sodium.h>

#include <array>
#include <cmath>
#include <utility>

#include "noise.h"

namespace isthmus::train {
namespace {

std::string hash_of(const std::vector<int32_t>& tokens) {
  std::array<unsigned char, 16> digest{};
  crypto_generichash(digest.data(), digest.size(),
                     reinterpret_cast<const unsigned char*>(tokens.data()),
                     tokens.size() * sizeof(int32_t), nullptr, 0);
  std::array<char, 2 * digest.size() + 1> text{};
  return sodium_bin2hex(text.data(), text.size(), digest.data(), digest.size());
}

}  // namespace

Batches::Batches(TrainText text, const TrainOptions& options)
    : text_(std::move(text)), options_(options) {}

Batch Batches::training(uint64_t draw) const {
  const auto size = static_cast<uint64_t>(options_.batch);
  const auto room =
      static_cast<double>(text_.training.size() - static_cast<size_t>(options_.window));
  std::vector<at::Tensor> ids;
  std::vector<int64_t> prefixes;
  for (uint64_t i = draw * size; i < (draw + 1) * size; ++i) {
    const double place = counter_uniform(stream(options_.seed, Purpose::kWindow), i) * room;
    ids.push_back(ids_at(text_.training, static_cast<size_t>(place)));
    if (!options_.prefix) continue;
    const double share = std::lerp(options_.prefix->least, options_.prefix->most,
                                   counter_uniform(stream(options_.seed, Purpose::kPrefix), i));
    prefixes.push_back(static_cast<int64_t>(share * static_cast<double>(options_.window)));
  }
  Batch batch{.ids = at::stack(ids)};
  if (options_.prefix) batch.passing = passing(prefixes);
  return batch;
}

Batch Batches::validation(size_t index) const {
  const auto count = static_cast<size_t>(options_.validation_windows);
  Batch batch{.ids = evenly_spaced(text_.held_out, index, count)};
  if (options_.prefix) {
    // The middle of the range, so that windows are comparable.
    const double share = (options_.prefix->least + options_.prefix->most) / 2;
    batch.passing = passing({static_cast<int64_t>(share * static_cast<double>(options_.window))});
  }
  return batch;
}

at::Tensor Batches::sample(size_t index, size_t count) const {
  return evenly_spaced(text_.training, index, count).narrow(1, 0, options_.window);
}

std::string Batches::data_hash() const {
  return hash_of(text_.training);
}

std::string Batches::held_out_hash() const {
  return hash_of(text_.held_out);
}

/// Ids [1, window + 1] of one of `count` windows spread evenly.
at::Tensor Batches::evenly_spaced(const std::vector<int32_t>& tokens, size_t index,
                                  size_t count) const {
  const size_t room = tokens.size() - static_cast<size_t>(options_.window) - 1;
  return ids_at(tokens, count == 1 ? 0 : room * index / (count - 1)).unsqueeze(0);
}

at::Tensor Batches::ids_at(const std::vector<int32_t>& tokens, size_t first) const {
  const auto begin = tokens.begin() + static_cast<std::ptrdiff_t>(first);
  const std::vector<int64_t> ids(begin, begin + options_.window + 1);
  return at::tensor(ids, at::kLong);
}

at::Tensor Batches::passing(const std::vector<int64_t>& prefixes) const {
  const at::Tensor position = at::arange(options_.window, at::kLong).unsqueeze(0);
  return position < at::tensor(prefixes, at::kLong).unsqueeze(1);
}

}  // namespace isthmus::train
