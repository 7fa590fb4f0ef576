#include <isthmus/model/fingerprint.h>
#include <sodium.h>

#include <algorithm>
#include <bit>
#include <string_view>
#include <utility>

#include "architecture.h"
#include "slice.h"

namespace isthmus::model {
namespace {

constexpr size_t kShared = 0;
constexpr size_t kEmbedding = 1;
constexpr size_t kHead = 2;
static_assert(kPartsBesideLayers == 3);

class Hash {
 public:
  explicit Hash(std::string_view what) {
    crypto_generichash_init(&state_, nullptr, 0, sizeof(Digest));
    text(what);
  }
  void bytes(std::span<const std::byte> bytes) {
    crypto_generichash_update(&state_, reinterpret_cast<const unsigned char*>(bytes.data()),
                              bytes.size());
  }
  void number(uint64_t value) {
    std::array<std::byte, sizeof value> little;
    for (std::byte& byte : little) {
      byte = static_cast<std::byte>(value);
      value >>= 8U;
    }
    bytes(little);
  }
  void number(float value) { number(uint64_t{std::bit_cast<uint32_t>(value)}); }
  void numbers(std::span<const float> values) {
    number(uint64_t{values.size()});
    for (const float value : values) number(value);
  }
  void text(std::string_view text) {
    number(text.size());
    bytes(std::as_bytes(std::span(text)));
  }
  [[nodiscard]] Digest finish() {
    Digest digest;
    crypto_generichash_final(&state_, reinterpret_cast<unsigned char*>(digest.data()),
                             digest.size());
    return digest;
  }

 private:
  crypto_generichash_state state_;
};

Digest tensor_digest(const Tensor& tensor) {
  Hash hash("tensor");
  hash.text(tensor.name);
  hash.number(static_cast<uint64_t>(tensor.type));
  hash.number(tensor.shape.size());
  for (const uint64_t size : tensor.shape) hash.number(size);
  hash.number(tensor.data.size());
  hash.bytes(tensor.data);
  return hash.finish();
}

/// The same for a file and its slices, and for whoever else computes the same of equal weights.
Digest config_digest(const ModelConfig& c) {
  Hash hash("config");
  for (const int32_t size : {c.layer_count, c.hidden_size, c.head_count, c.kv_head_count,
                             c.head_size, c.mlp_size, c.vocab_size}) {
    hash.number(static_cast<uint64_t>(size));
  }
  for (const float number : {c.norm_epsilon, c.norm_weight_offset, c.embedding_scale,
                             c.attention_scale, c.attention_softcap, c.final_softcap}) {
    hash.number(number);
  }
  hash.number(static_cast<uint64_t>(c.activation));
  for (const bool trait : {c.qkv_bias, c.output_bias, c.qk_norm, c.post_norms, c.tied_head}) {
    hash.number(uint64_t{trait});
  }
  hash.number(static_cast<uint64_t>(c.rope_pairs));
  hash.numbers(c.rope_global);
  hash.numbers(c.rope_local);
  for (const LayerAttention& layer : c.layers) {
    hash.number(static_cast<uint64_t>(layer.window));
    hash.number(uint64_t{layer.local_rope});
  }
  return hash.finish();
}

size_t part_of(std::string_view name) {
  if (const auto layer = split_layer_name(name, "blk."))
    return kPartsBesideLayers + static_cast<size_t>(layer->layer);
  if (name == "token_embd.weight") return kEmbedding;
  if (name == "output_norm.weight" || name == "output.weight") return kHead;
  return kShared;
}

std::string describe(size_t part) {
  if (part == kShared) return "shared part";
  if (part == kEmbedding) return "embedding";
  if (part == kHead) return "head";
  return "layer " + std::to_string(part - kPartsBesideLayers);
}

struct Leaf {
  const Tensor* tensor = nullptr;
  size_t part = 0;
  Digest digest{};
};

std::vector<Leaf> hash_tensors(const ModelFile& file, ThreadPool& pool) {
  std::vector<Leaf> leaves;
  for (const Tensor& tensor : file.tensors())
    leaves.push_back({.tensor = &tensor, .part = part_of(tensor.name)});
  pool.parallel_for(leaves.size(), /*grain=*/1, [&](size_t begin, size_t end) {
    for (Leaf& leaf : std::span(leaves).subspan(begin, end - begin)) {
      leaf.digest = tensor_digest(*leaf.tensor);
      file.release(*leaf.tensor);
    }
  });
  std::sort(leaves.begin(), leaves.end(), [](const Leaf& a, const Leaf& b) {
    return std::pair(a.part, std::string_view(a.tensor->name)) <
           std::pair(b.part, std::string_view(b.tensor->name));
  });
  return leaves;
}

}  // namespace

Result<std::vector<Digest>> part_digests(const ModelFile& file, ThreadPool& pool) {
  const size_t count = kPartsBesideLayers + static_cast<size_t>(file.config().layer_count);
  const std::span<const Digest> source = file.source_digests();
  if (file.is_slice() && source.size() != count) {
    return fail(ErrorCode::kUnsupported,
                "model: the slice does not carry the digests of its source; cut it again");
  }
  // Which tensors a file holds is known; which a part has is what its digest says.
  const std::vector<Leaf> leaves = hash_tensors(file, pool);
  std::vector<Digest> digests;
  auto leaf = leaves.begin();
  for (size_t part = 0; part < count; ++part) {
    Hash hash("part");
    const auto first = leaf;
    for (; leaf != leaves.end() && leaf->part == part; ++leaf) hash.bytes(leaf->digest);
    digests.push_back(hash.finish());
    if (!file.is_slice() || digests.back() == source[part]) continue;
    if (leaf != first) {
      return fail(ErrorCode::kCorrupt,
                  "model: the slice's " + describe(part) + " is not the one it was cut from");
    }
    digests.back() = source[part];
  }
  return digests;
}

Result<Fingerprint> fingerprint(const ModelFile& file, ThreadPool& pool) {
  ISTHMUS_ASSIGN(const std::vector<Digest> parts, part_digests(file, pool));
  Hash hash("model");
  for (const Digest& part : parts) hash.bytes(part);
  hash.bytes(config_digest(file.config()));
  return Fingerprint{hash.finish()};
}

std::string Fingerprint::to_string() const {
  std::string hex(2 * digest.size() + 1, '\0');
  sodium_bin2hex(hex.data(), hex.size(), reinterpret_cast<const unsigned char*>(digest.data()),
                 digest.size());
  hex.pop_back();
  return hex;
}

}  // namespace isthmus::model
