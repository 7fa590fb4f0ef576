#include "slice.h"

#include <isthmus/core/thread_pool.h>
#include <isthmus/model/fingerprint.h>
#include <isthmus/model/model_file.h>

#include <algorithm>
#include <cstring>
#include <system_error>
#include <utility>

#include "architecture.h"
#include "atomic_file.h"
#include "loaded_model.h"

namespace isthmus::model {
namespace {

using gguf::ValueType;

// Bytes in front of the data section.
class Header {
 public:
  template <typename T>
  void number(T value) {
    bytes_.append(reinterpret_cast<const char*>(&value), sizeof value);
  }
  void raw(std::span<const std::byte> bytes) {
    bytes_.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  }
  void string(std::string_view text) {
    number<uint64_t>(text.size());
    bytes_ += text;
  }
  template <typename T>
  void entry(std::string_view key, ValueType type, T value) {
    string(key);
    number(static_cast<uint32_t>(type));
    number(value);
  }
  void pad_to(uint64_t alignment) { bytes_.resize(aligned(bytes_.size(), alignment)); }
  [[nodiscard]] std::span<const std::byte> bytes() const {
    return std::as_bytes(std::span(bytes_));
  }

  [[nodiscard]] static uint64_t aligned(uint64_t size, uint64_t alignment) {
    return (size + alignment - 1) / alignment * alignment;
  }

 private:
  std::string bytes_;
};

std::string range_text(int32_t first, int32_t end) {
  return std::to_string(first) + ":" + std::to_string(end);
}

bool belongs(const Tensor& tensor, const Part& part, const ModelConfig& config) {
  if (const auto layer = split_layer_name(tensor.name, "blk.")) return part.has_layer(layer->layer);
  if (tensor.name == "token_embd.weight") {
    return part.embedding || (part.head && config.tied_head);
  }
  if (tensor.name == "output.weight" || tensor.name == "output_norm.weight") return part.head;
  return true;  // rope_freqs.weight, which is part of the config and small
}

// A source that is a slice itself may lack what is asked for.
Status check_complete(const ModelFile& source, const Part& part) {
  if (part.embedding) ISTHMUS_TRY(source.find("token_embd.weight"));
  if (part.head) {
    ISTHMUS_TRY(source.find("output_norm.weight"));
    ISTHMUS_TRY(source.find(source.config().tied_head ? "token_embd.weight" : "output.weight"));
  }
  for (const auto& [first, end] : part.layers) {
    for (int32_t layer = first; layer < end; ++layer) {
      ISTHMUS_TRY(source.find("blk." + std::to_string(layer) + ".attn_norm.weight"));
    }
  }
  return {};
}

void write_slice_entries(const Part& part, const ModelConfig& config,
                         std::span<const Digest> digests, Header& header) {
  header.string(kSliceLayers);
  header.number(static_cast<uint32_t>(ValueType::kArray));
  header.number(static_cast<uint32_t>(ValueType::kI32));
  header.number<uint64_t>(part.layers.size() * 2);
  for (const auto& [first, end] : part.layers) {
    header.number(first);
    header.number(end);
  }
  header.entry<uint8_t>(kSliceEmbedding, ValueType::kBool, part.embedding ? 1 : 0);
  header.entry<uint8_t>(kSliceHead, ValueType::kBool, part.head ? 1 : 0);
  header.entry<uint8_t>(kSliceTiedHead, ValueType::kBool, config.tied_head ? 1 : 0);
  header.entry<uint8_t>(kSliceQkvBias, ValueType::kBool, config.qkv_bias ? 1 : 0);
  header.entry<uint8_t>(kSliceOutputBias, ValueType::kBool, config.output_bias ? 1 : 0);
  header.entry<uint32_t>(kSliceVocabSize, ValueType::kU32,
                         static_cast<uint32_t>(config.vocab_size));
  header.string(kSliceDigests);
  header.number(static_cast<uint32_t>(ValueType::kArray));
  header.number(static_cast<uint32_t>(ValueType::kU8));
  header.number<uint64_t>(digests.size() * sizeof(Digest));
  for (const Digest& digest : digests) header.raw(digest);
}
constexpr uint64_t kSliceEntryCount = 8;

Header make_header(const gguf::Contents& source, const std::vector<const Tensor*>& tensors,
                   const Part& part, const ModelConfig& config, std::span<const Digest> digests) {
  std::vector<const gguf::Entry*> kept;
  for (const gguf::Entry& entry : source.metadata.entries()) {
    if (!entry.key.starts_with(kSlicePrefix)) kept.push_back(&entry);
  }
  Header header;
  header.raw(std::as_bytes(std::span(gguf::kMagic)));
  header.number<uint32_t>(3);
  header.number<uint64_t>(tensors.size());
  header.number<uint64_t>(kept.size() + kSliceEntryCount);
  for (const gguf::Entry* entry : kept) header.raw(entry->whole);
  write_slice_entries(part, config, digests, header);
  uint64_t offset = 0;
  for (const Tensor* tensor : tensors) {
    header.string(tensor->name);
    header.number(static_cast<uint32_t>(tensor->shape.size()));
    for (size_t i = tensor->shape.size(); i-- > 0;) header.number(tensor->shape[i]);
    header.number(static_cast<uint32_t>(tensor->type));
    header.number(offset);
    offset = Header::aligned(offset + tensor->data.size(), source.alignment);
  }
  header.pad_to(source.alignment);
  return header;
}

Status write_file(const Header& header, const std::vector<const Tensor*>& tensors,
                  uint64_t alignment, const std::filesystem::path& destination) {
  ISTHMUS_ASSIGN(auto file, AtomicFile::create(destination));
  ISTHMUS_TRY(file.write(header.bytes()));
  for (const Tensor* tensor : tensors) {
    const size_t bytes = tensor->data.size();
    const std::vector<std::byte> padding(Header::aligned(bytes, alignment) - bytes);
    ISTHMUS_TRY(file.write(tensor->data));
    ISTHMUS_TRY(file.write(padding));
  }
  return file.commit();
}

}  // namespace

Result<std::string> describe_slice(const gguf::Metadata& metadata) {
  if (metadata.find(kSliceLayers) == nullptr) return std::string();
  ISTHMUS_ASSIGN(const auto bounds, metadata.list<int32_t>(kSliceLayers));
  ISTHMUS_ASSIGN(const auto embedding, metadata.get<bool>(kSliceEmbedding));
  ISTHMUS_ASSIGN(const auto head, metadata.get<bool>(kSliceHead));
  std::string text = bounds.size() < 2 ? "no layers" : "layers";
  for (size_t i = 0; i + 1 < bounds.size(); i += 2) {
    text += ' ';
    text += range_text(bounds[i], bounds[i + 1]);
  }
  if (embedding) text += ", the embedding";
  if (head) text += ", the head";
  return text;
}

Result<std::vector<Digest>> read_slice_digests(const gguf::Metadata& metadata,
                                               int32_t layer_count) {
  ISTHMUS_ASSIGN(const auto bytes, metadata.list<int32_t>(kSliceDigests));
  std::vector<Digest> digests(bytes.size() / sizeof(Digest));
  const size_t expected = kPartsBesideLayers + static_cast<size_t>(layer_count);
  if (bytes.empty()) return digests;
  const bool are_bytes =
      std::all_of(bytes.begin(), bytes.end(), [](int32_t b) { return b >= 0 && b < 256; });
  if (bytes.size() != expected * sizeof(Digest) || !are_bytes) {
    return fail(ErrorCode::kCorrupt, "gguf: the slice's digests are not " +
                                         std::to_string(expected) + " times " +
                                         std::to_string(sizeof(Digest)) + " bytes");
  }
  for (size_t i = 0; i < bytes.size(); ++i) {
    digests[i / sizeof(Digest)][i % sizeof(Digest)] = static_cast<std::byte>(bytes[i]);
  }
  return digests;
}

Status write_slice(const std::filesystem::path& source, const Part& part,
                   const std::filesystem::path& destination) {
  std::error_code ignored;  // then it is no folder, and mapping it says what is wrong
  if (std::filesystem::is_directory(source, ignored)) {
    return fail(ErrorCode::kUnsupported,
                "model: '" + source.string() + "' is a folder; only a GGUF can be sliced");
  }
  ISTHMUS_ASSIGN(const auto file, MappedFile::open(source));
  ISTHMUS_ASSIGN(const auto contents, gguf::parse(file.bytes()));
  ISTHMUS_ASSIGN(auto parts, read_gguf_model(contents));
  const LoadedModel model(std::move(parts), {});
  ISTHMUS_TRY(part.validate(model.config().layer_count));
  ISTHMUS_TRY(check_complete(model, part));

  std::vector<const Tensor*> tensors;
  for (const Tensor& tensor : contents.tensors) {
    if (belongs(tensor, part, model.config())) tensors.push_back(&tensor);
  }
  ThreadPool pool;
  ISTHMUS_ASSIGN(const std::vector<Digest> digests, part_digests(model, pool));
  const Header header = make_header(contents, tensors, part, model.config(), digests);
  return write_file(header, tensors, contents.alignment, destination);
}

}  // namespace isthmus::model
