#include "support/gguf_writer.h"

#include <algorithm>
#include <stdexcept>

namespace isthmus::test {
namespace {

// Type numbers of the format.
constexpr uint32_t kU32 = 4;
constexpr uint32_t kI32 = 5;
constexpr uint32_t kF32 = 6;
constexpr uint32_t kBool = 7;
constexpr uint32_t kString = 8;
constexpr uint32_t kArray = 9;
constexpr uint32_t kU64 = 10;
constexpr uint32_t kF64 = 12;

uint32_t type_of(bool) {
  return kBool;
}
uint32_t type_of(uint32_t) {
  return kU32;
}
uint32_t type_of(int32_t) {
  return kI32;
}
uint32_t type_of(uint64_t) {
  return kU64;
}
uint32_t type_of(float) {
  return kF32;
}
uint32_t type_of(double) {
  return kF64;
}
uint32_t type_of(const std::string&) {
  return kString;
}
template <typename T>
uint32_t type_of(const std::vector<T>&) {
  return kArray;
}

template <typename T>
std::string value_bytes(T number) {
  return little_endian(number);
}
template <>
std::string value_bytes(bool value) {
  return std::string(1, value ? '\1' : '\0');
}
std::string value_bytes(const std::string& text) {
  return gguf_string(text);
}
template <typename T>
std::string value_bytes(const std::vector<T>& items) {
  std::string bytes = little_endian(type_of(T())) + little_endian<uint64_t>(items.size());
  for (const auto& item : items) bytes += value_bytes(static_cast<T>(item));
  return bytes;
}

void pad(std::string& bytes, uint64_t alignment) {
  while (bytes.size() % alignment != 0) bytes += '\0';
}

}  // namespace

std::string gguf_string(std::string_view text) {
  return little_endian<uint64_t>(text.size()).append(text);
}

void GgufFile::set(const std::string& key, const GgufValue& value) {
  std::visit([&](const auto& v) { set_raw(key, type_of(v), value_bytes(v)); }, value);
}

void GgufFile::set_raw(const std::string& key, uint32_t type, const std::string& value) {
  Entry entry{key, little_endian(type) + value, {}};
  const auto found =
      std::find_if(entries.begin(), entries.end(), [&](const Entry& e) { return e.key == key; });
  if (found != entries.end()) {
    *found = entry;
  } else {
    entries.push_back(entry);
  }
}

void GgufFile::erase(std::string_view key) {
  std::erase_if(entries, [key](const Entry& entry) { return entry.key == key; });
}

void GgufFile::add_tensor(const std::string& name, const std::vector<uint64_t>& shape) {
  Tensor tensor{name, {shape.rbegin(), shape.rend()}, 0, {}, {}, {}, {}};
  uint64_t count = 1;
  for (const uint64_t dim : shape) count *= dim;
  for (uint64_t i = 0; i < count; ++i) tensor.data += little_endian(static_cast<float>(i));
  tensors.push_back(tensor);
}

GgufFile::Tensor& GgufFile::tensor(std::string_view name) {
  for (Tensor& tensor : tensors) {
    if (tensor.name == name) return tensor;
  }
  throw std::out_of_range("no tensor " + std::string(name));
}

std::string GgufFile::bytes() const {
  std::string file = magic + little_endian(version);
  file += little_endian<uint64_t>(tensor_count.value_or(tensors.size()));
  file += little_endian<uint64_t>(entry_count.value_or(entries.size()));
  for (const Entry& entry : entries) {
    file += little_endian<uint64_t>(entry.key_length.value_or(entry.key.size()));
    file += entry.key + entry.bytes;
  }
  std::string data;
  for (const Tensor& tensor : tensors) {
    file += little_endian<uint64_t>(tensor.name_length.value_or(tensor.name.size())) + tensor.name;
    file += little_endian(tensor.dim_count.value_or(static_cast<uint32_t>(tensor.dims.size())));
    for (const uint64_t dim : tensor.dims) file += little_endian(dim);
    file +=
        little_endian(tensor.type) + little_endian<uint64_t>(tensor.offset.value_or(data.size()));
    data += tensor.data;
    pad(data, alignment);
  }
  pad(file, alignment);
  return file + data;
}

GgufFile tiny_gguf() {
  GgufFile file;
  file.set("general.architecture", "llama");
  file.set("llama.block_count", 2U);
  file.set("llama.context_length", 32U);
  file.set("llama.embedding_length", 8U);
  file.set("llama.feed_forward_length", 12U);
  file.set("llama.attention.head_count", 2U);
  file.set("llama.attention.head_count_kv", 1U);
  file.set("llama.attention.layer_norm_rms_epsilon", 1e-5F);
  file.set("llama.rope.freq_base", 500.0F);
  file.set("tokenizer.ggml.model", "gpt2");
  file.set("tokenizer.ggml.pre", "smollm");
  file.set("tokenizer.ggml.tokens",
           std::vector<std::string>{"<|endoftext|>", "<|im_start|>", "<|im_end|>", "a", "b", "ab"});
  file.set("tokenizer.ggml.token_type", std::vector<int32_t>{3, 3, 3, 1, 1, 1});
  file.set("tokenizer.ggml.merges", std::vector<std::string>{"a b"});
  file.set("tokenizer.ggml.bos_token_id", 1U);
  file.set("tokenizer.ggml.eos_token_id", 2U);
  file.set("tokenizer.chat_template", "<|im_start|>");

  file.add_tensor("token_embd.weight", {6, 8});
  file.add_tensor("output_norm.weight", {8});
  for (const std::string blk : {"blk.0.", "blk.1."}) {
    file.add_tensor(blk + "attn_norm.weight", {8});
    file.add_tensor(blk + "attn_q.weight", {8, 8});
    file.add_tensor(blk + "attn_k.weight", {4, 8});
    file.add_tensor(blk + "attn_v.weight", {4, 8});
    file.add_tensor(blk + "attn_output.weight", {8, 8});
    file.add_tensor(blk + "ffn_norm.weight", {8});
    file.add_tensor(blk + "ffn_gate.weight", {12, 8});
    file.add_tensor(blk + "ffn_up.weight", {12, 8});
    file.add_tensor(blk + "ffn_down.weight", {8, 12});
  }
  return file;
}

}  // namespace isthmus::test
