#include <isthmus/artefact/artefact.h>
#include <isthmus/kernels/dtype.h>
#include <isthmus/model/safetensors.h>
#include <isthmus/text/tokenizer.h>

#include <sodium.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstring>
#include <stdexcept>
#include <string_view>
#include <tuple>
#include <utility>

namespace isthmus::artefact {
namespace {

using Texts = std::map<std::string, std::string>;
using Matrices = std::map<std::string, Matrix>;

constexpr const char* kFormat = "isthmus-artefact-1";
constexpr const char* kEncoder = "encoder";
constexpr const char* kDecoder = "decoder";
constexpr const char* kSoftPrompt = "soft_prompt";
constexpr std::array kTensors = {kEncoder, kDecoder, kSoftPrompt};
constexpr size_t kMaxFileBytes = size_t{1} << 30U;

tl::unexpected<Error> corrupt(const std::string& reason) {
  return fail(ErrorCode::kCorrupt, "artefact: " + reason);
}

tl::unexpected<Error> invalid(const std::string& reason) {
  return fail(ErrorCode::kInvalidArgument, "artefact: " + reason);
}

std::string shape_of(const Matrix& matrix) {
  return std::to_string(matrix.rows()) + " x " + std::to_string(matrix.cols());
}

using Digest = std::array<unsigned char, 16>;

Digest digest_of(std::string_view bytes) {
  Digest digest{};
  crypto_generichash(digest.data(), digest.size(),
                     reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size(), nullptr,
                     0);
  return digest;
}

std::string hex(const Digest& digest) {
  std::array<char, 2 * std::tuple_size_v<Digest> + 1> text{};
  return sodium_bin2hex(text.data(), text.size(), digest.data(), digest.size());
}

/// A tensor's bytes in a file.
std::vector<std::byte> halves(const Matrix& matrix) {
  std::vector<std::byte> bytes(2 * matrix.view().values().size());
  for (size_t i = 0; i < bytes.size() / 2; ++i) {
    const uint16_t bits = kernels::f16_from_float(matrix.data()[i]);
    std::memcpy(&bytes[2 * i], &bits, sizeof bits);
  }
  return bytes;
}

std::string hash_of(const Matrix& matrix) {
  std::string text = shape_of(matrix);
  for (const std::byte byte : halves(matrix)) text += static_cast<char>(byte);
  return hex(digest_of(text));
}

/// A map is ordered and lengths are written out, so this tells any two apart.
uint64_t id_of(const Texts& metadata) {
  std::string text;
  for (const auto& [key, value] : metadata) {
    text += std::to_string(key.size()) + ":" + key + std::to_string(value.size()) + ":" + value;
  }
  uint64_t id = 0;
  const Digest digest = digest_of(text);
  for (size_t i = 0; i < 8; ++i) id = id << 8U | digest[i];
  return id;
}

Result<std::string> text_of(const Texts& metadata, const std::string& key) {
  const auto found = metadata.find(key);
  if (found == metadata.end()) return corrupt("its metadata lack '" + key + "'");
  return found->second;
}

Result<Origin> origin_of(const Texts& metadata) {
  Origin origin;
  ISTHMUS_ASSIGN(origin.model, text_of(metadata, "model"));
  ISTHMUS_ASSIGN(origin.fingerprint, text_of(metadata, "fingerprint"));
  ISTHMUS_ASSIGN(origin.data, text_of(metadata, "data"));
  ISTHMUS_ASSIGN(origin.command, text_of(metadata, "command"));
  ISTHMUS_ASSIGN(const std::string cut, text_of(metadata, "cut"));
  const auto read = std::from_chars(cut.data(), cut.data() + cut.size(), origin.cut);
  if (read.ec != std::errc() || read.ptr != cut.data() + cut.size() || origin.cut < 0) {
    return corrupt("its cut is '" + cut + "'");
  }
  ISTHMUS_ASSIGN(const std::string codec, text_of(metadata, "codec"));
  ISTHMUS_ASSIGN(origin.codec, codec::CodecSpec::parse(codec));
  if (origin.codec.project) return corrupt("its codec projects before its own projection");
  return origin;
}

Result<Matrix> read_matrix(const model::Tensor& tensor) {
  if (tensor.shape.size() != 2) return corrupt("tensor '" + tensor.name + "' is no matrix");
  if (tensor.type != DType::kF32 && tensor.type != DType::kF16) {
    return corrupt("tensor '" + tensor.name + "' is not F32 or F16");
  }
  Matrix matrix(tensor.rows(), tensor.cols());
  ISTHMUS_TRY(model::read_rows(tensor, 0, matrix.view()));
  return matrix;
}

/// What is wrong with a soft prompt for rows of `width`; nothing when it fits or there is none.
std::string complaint_about(const Matrix& soft_prompt, size_t width) {
  if (soft_prompt.empty() ||
      (soft_prompt.cols() == width && soft_prompt.rows() <= Artefact::kMaxSoftPrompt))
    return {};
  return "its soft prompt is " + shape_of(soft_prompt) + ", it may be 1 to " +
         std::to_string(Artefact::kMaxSoftPrompt) + " x " + std::to_string(width);
}

void round_to_half(Matrix& matrix) {
  for (float& value : matrix.view().values())
    value = kernels::float_from_f16(kernels::f16_from_float(value));
}

}  // namespace

std::string model_name(const model::ModelConfig& config) {
  return config.architecture + "-" + std::to_string(config.layer_count) + "x" +
         std::to_string(config.hidden_size) + "x" + std::to_string(config.vocab_size);
}

Result<Artefact> Artefact::make(Origin origin, const Matrix& encoder, const Matrix& decoder,
                                const Matrix& soft_prompt) {
  if (origin.codec.project)
    return invalid("codec " + origin.codec.to_string() + " has a projection of its own");
  if (const std::string wrong = complaint_about(soft_prompt, encoder.cols()); !wrong.empty())
    return invalid(wrong);
  Texts metadata = {{"format", kFormat},
                    {"model", std::move(origin.model)},
                    {"fingerprint", std::move(origin.fingerprint)},
                    {"cut", std::to_string(origin.cut)},
                    {"codec", origin.codec.to_string()},
                    {"data", std::move(origin.data)},
                    {"command", std::move(origin.command)}};
  for (const auto& [key, value] : metadata)
    if (text::replace_invalid_utf8(value) != value) return invalid("its " + key + " is not UTF-8");
  Matrices matrices = {{kEncoder, encoder}, {kDecoder, decoder}};
  if (!soft_prompt.empty()) matrices.emplace(kSoftPrompt, soft_prompt);
  for (auto& [name, matrix] : matrices) {
    round_to_half(matrix);
    metadata[name] = hash_of(matrix);
  }
  return make(std::move(metadata), std::move(matrices));
}

Result<Artefact> Artefact::make(Texts metadata, Matrices matrices) {
  Artefact result;
  ISTHMUS_ASSIGN(result.origin_, origin_of(metadata));
  for (const auto& [name, matrix] : matrices) {
    ISTHMUS_ASSIGN(const std::string hash, text_of(metadata, name));
    if (hash != hash_of(matrix)) return corrupt("tensor '" + name + "' is not the one it names");
  }
  if (matrices[kEncoder].empty() && matrices[kDecoder].empty())
    return corrupt("it has neither encoder nor decoder");
  ISTHMUS_ASSIGN(codec::Projection projection,
                 codec::Projection::make(id_of(metadata), matrices[kEncoder], matrices[kDecoder]));
  const Matrix& prompt = matrices[kSoftPrompt];
  if (const std::string wrong = complaint_about(prompt, projection.width()); !wrong.empty())
    return corrupt(wrong);
  // The server's part must be whole: without its soft prompt it would decode something else.
  if (projection.has_decoder() && metadata.contains(kSoftPrompt) && prompt.empty())
    return corrupt("its soft prompt is missing");
  result.projection_ = std::make_shared<const codec::Projection>(std::move(projection));
  for (auto& [name, matrix] : matrices) {
    if (!matrix.empty())
      result.matrices_.emplace(name, std::make_shared<const Matrix>(std::move(matrix)));
  }
  result.metadata_ = std::move(metadata);
  return result;
}

Result<Artefact> Artefact::parse(std::span<const std::byte> bytes) {
  ISTHMUS_ASSIGN(Texts metadata, model::safetensors::metadata(bytes));
  ISTHMUS_ASSIGN(const std::string format, text_of(metadata, "format"));
  if (format != kFormat) {
    return fail(ErrorCode::kUnsupported,
                "artefact: its format is '" + format + "', known is " + kFormat);
  }
  ISTHMUS_ASSIGN(const auto tensors, model::safetensors::parse(bytes));
  Matrices matrices;
  for (const model::Tensor& tensor : tensors) {
    if (std::find(kTensors.begin(), kTensors.end(), tensor.name) == kTensors.end())
      return corrupt("it has an unknown tensor '" + tensor.name + "'");
    ISTHMUS_ASSIGN(matrices[tensor.name], read_matrix(tensor));
  }
  return make(std::move(metadata), std::move(matrices));
}

Result<Artefact> Artefact::load(const std::filesystem::path& path) {
  ISTHMUS_ASSIGN(const auto bytes, model::safetensors::load(path, kMaxFileBytes));
  return parse(bytes);
}

Artefact::FileTensors Artefact::file_tensors(Half half) const {
  if ((half != Half::kServer && !projection_->has_encoder()) ||
      (half != Half::kDevice && !projection_->has_decoder())) {
    throw std::invalid_argument("artefact: that part is not here");
  }
  FileTensors result;
  result.contents.reserve(matrices_.size());
  for (const auto& [name, matrix] : matrices_) {
    const bool is_device = name == kEncoder;
    if (half != Half::kBoth && is_device != (half == Half::kDevice)) continue;
    result.contents.push_back(halves(*matrix));
    result.tensors.push_back({.name = name,
                              .type = DType::kF16,
                              .shape = {matrix->rows(), matrix->cols()},
                              .data = result.contents.back()});
  }
  return result;
}

std::vector<std::byte> Artefact::serialize(Half half) const {
  const FileTensors file = file_tensors(half);
  return model::safetensors::write(file.tensors, metadata_);
}

Status Artefact::save(const std::filesystem::path& path, Half half) const {
  const FileTensors file = file_tensors(half);
  return model::safetensors::save(path, file.tensors, metadata_);
}

MatrixView<const float> Artefact::matrix(const char* name) const {
  const auto found = matrices_.find(name);
  return found == matrices_.end() ? MatrixView<const float>() : found->second->view();
}

MatrixView<const float> Artefact::encoder() const {
  return matrix(kEncoder);
}

MatrixView<const float> Artefact::decoder() const {
  return matrix(kDecoder);
}

MatrixView<const float> Artefact::soft_prompt() const {
  return matrix(kSoftPrompt);
}

bool Artefact::has_soft_prompt() const {
  return metadata_.contains(kSoftPrompt);
}

codec::CodecSpec Artefact::codec() const {
  codec::CodecSpec spec = origin_.codec;
  spec.project = {.dims = static_cast<uint32_t>(projection_->dims()), .artefact = id()};
  return spec;
}

Status Artefact::check(const model::ModelConfig& config, int32_t cut) const {
  const std::string name = model_name(config);
  if (name == origin_.model && cut == origin_.cut) return {};
  return fail(ErrorCode::kModelMismatch, "artefact: made for " + origin_.model + " cut at " +
                                             std::to_string(origin_.cut) + ", this is " + name +
                                             " cut at " + std::to_string(cut));
}

std::shared_ptr<const Artefact> find(const codec::CodecSpec& spec, const Artefacts& artefacts) {
  for (const auto& artefact : artefacts)
    if (spec.project && spec.project->artefact == artefact->id()) return artefact;
  return nullptr;
}

std::shared_ptr<const codec::Projection> projection_of(
    const std::shared_ptr<const Artefact>& artefact) {
  return artefact == nullptr ? nullptr : artefact->projection();
}

}  // namespace isthmus::artefact
