#include <isthmus/artefact/artefact.h>
#include <isthmus/kernels/dtype.h>
#include <isthmus/model/safetensors.h>
#include <isthmus/text/tokenizer.h>

#include <sodium.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstring>
#include <limits>
#include <stdexcept>
#include <string_view>
#include <tuple>
#include <utility>

namespace isthmus::artefact {
namespace {

using Texts = std::map<std::string, std::string>;

constexpr const char* kFormat = "isthmus-artefact-1";
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

/// What is wrong with an adapter behind `cut`. Whether it fits the matrix is seen when the model is
/// there.
std::string complaint_about(const std::string& name, const model::LowRank& adapter, int32_t cut) {
  const size_t rank = adapter.down.rows();
  if (model::layer_of_matrix(name).value_or(-1) < cut)
    return "its adapter of '" + name + "' is for no matrix of a layer from " + std::to_string(cut);
  if (rank > 0 && rank <= Artefact::kMaxRank && adapter.up.cols() == rank) return {};
  return "its adapter of '" + name + "' is " + shape_of(adapter.up) + " times " +
         shape_of(adapter.down) + ", its rank may be 1 to " + std::to_string(Artefact::kMaxRank);
}

std::string complaint_about(const Parts& parts, size_t width, int32_t cut) {
  std::string wrong = complaint_about(parts.soft_prompt, width);
  for (const auto& [name, adapter] : parts.adapters)
    if (wrong.empty()) wrong = complaint_about(name, adapter, cut);
  return wrong;
}

bool is_finite(const Matrix& matrix) {
  return std::ranges::all_of(matrix.view().values(), [](float v) { return std::isfinite(v); });
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

Result<Artefact> Artefact::make(Origin origin, Parts parts) {
  if (origin.codec.project)
    return invalid("codec " + origin.codec.to_string() + " has a projection of its own");
  if (const std::string wrong = complaint_about(parts, parts.encoder.cols(), origin.cut);
      !wrong.empty())
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
  NamedMatrices named = to_named(std::move(parts));
  for (const auto& [name, matrix] : named) metadata[name] = hash_of(matrix);
  return make(std::move(metadata), std::move(named));
}

Result<Artefact> Artefact::make(Texts metadata, NamedMatrices named) {
  Artefact result;
  ISTHMUS_ASSIGN(result.origin_, origin_of(metadata));
  for (auto& [name, matrix] : named) {
    round_to_half(matrix);  // what its hash is of
    ISTHMUS_ASSIGN(const std::string hash, text_of(metadata, name));
    if (hash != hash_of(matrix)) return corrupt("tensor '" + name + "' is not the one it names");
    if (!is_finite(matrix)) {
      return fail(ErrorCode::kNotFinite,
                  "artefact: tensor '" + name + "' holds a number that is not finite");
    }
  }
  // The server's part must be whole: without its soft prompt it would read something else.
  const auto is_servers = [](const auto& entry) { return half_of(entry.first) == Half::kServer; };
  const bool has_servers = std::ranges::any_of(named, is_servers);
  for (const auto& entry : metadata) {
    if (has_servers && is_servers(entry) && !named.contains(entry.first))
      return corrupt("its '" + entry.first + "' is missing");
  }
  ISTHMUS_ASSIGN(Parts parts, to_parts(std::move(named)));
  if (parts.encoder.empty() && parts.decoder.empty())
    return corrupt("it has neither encoder nor decoder");
  ISTHMUS_ASSIGN(codec::Projection projection,
                 codec::Projection::make(id_of(metadata), parts.encoder, parts.decoder));
  if (const std::string wrong = complaint_about(parts, projection.width(), result.origin_.cut);
      !wrong.empty())
    return corrupt(wrong);
  result.projection_ = std::make_shared<const codec::Projection>(std::move(projection));
  result.parts_ = std::make_shared<const Parts>(std::move(parts));
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
  NamedMatrices named;
  for (const model::Tensor& tensor : tensors) {
    ISTHMUS_ASSIGN(named[tensor.name], read_matrix(tensor));
  }
  return make(std::move(metadata), std::move(named));
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
  const NamedMatrices named = to_named(*parts_);
  result.contents.reserve(named.size());
  for (const auto& [name, matrix] : named) {
    if (half != Half::kBoth && half_of(name) != half) continue;
    result.contents.push_back(halves(matrix));
    result.tensors.push_back({.name = name,
                              .type = DType::kF16,
                              .shape = {matrix.rows(), matrix.cols()},
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
  size_t bytes = 0;
  for (const std::vector<std::byte>& content : file.contents) bytes += content.size();
  if (bytes > kMaxFileBytes / 8 * 7) {  // the rest is for names and shapes
    return fail(ErrorCode::kTooLarge,
                "artefact: its tensors take " + std::to_string(bytes) + " bytes, too many to load");
  }
  return model::safetensors::save(path, file.tensors, metadata_);
}

bool Artefact::has_soft_prompt() const {
  return metadata_.contains(std::string(kSoftPrompt));
}

int32_t Artefact::adapted_end() const {
  int32_t end = 0;
  for (const auto& [name, hash] : metadata_) {
    if (!name.ends_with(kDown)) continue;
    const auto layer =
        model::layer_of_matrix(std::string_view(name).substr(0, name.size() - kDown.size()));
    // Of a part without them only their names are known, and those are the file's.
    if (layer && *layer < std::numeric_limits<int32_t>::max()) end = std::max(end, *layer + 1);
  }
  return end;
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

int32_t Artefact::least_tail(int32_t layer_count) const {
  return has_soft_prompt() ? layer_count : adapted_end();
}

Status Artefact::check_tail(int32_t tail, int32_t layer_count) const {
  const int32_t least = least_tail(layer_count);
  if (tail >= least) return {};
  return fail(ErrorCode::kUnsupported, "artefact: layers from " + std::to_string(tail) +
                                           " on the device, those up to " + std::to_string(least) +
                                           " are right on the server alone, which has its " +
                                           (has_soft_prompt() ? "soft prompt" : "adapters"));
}

std::shared_ptr<const Artefact> find(const codec::CodecSpec& spec, const Artefacts& artefacts) {
  for (const auto& artefact : artefacts)
    if (spec.project && spec.project->artefact == artefact->id()) return artefact;
  return nullptr;
}

Result<std::shared_ptr<const Artefact>> find_adapted(const Artefacts& artefacts) {
  std::shared_ptr<const Artefact> adapted;
  for (const auto& artefact : artefacts) {
    if (artefact->parts().adapters.empty()) continue;
    if (adapted != nullptr) {
      return invalid("two have adapters, " + adapted->codec().to_string() + " and " +
                     artefact->codec().to_string() + ", a server's weights can have those of one");
    }
    adapted = artefact;
  }
  return adapted;
}

Result<std::shared_ptr<const model::ModelFile>> adapted_model(
    const std::shared_ptr<const model::ModelFile>& file, const Artefacts& artefacts,
    const std::string& fingerprint) {
  ISTHMUS_ASSIGN(const auto adapted, find_adapted(artefacts));
  if (adapted == nullptr) return file;
  if (fingerprint != adapted->origin().fingerprint) {
    return fail(ErrorCode::kModelMismatch, "artefact: its adapters change the weights " +
                                               adapted->origin().fingerprint + ", these are " +
                                               fingerprint);
  }
  return model::adapt(file, adapted->adapters());
}

std::shared_ptr<const codec::Projection> projection_of(
    const std::shared_ptr<const Artefact>& artefact) {
  return artefact == nullptr ? nullptr : artefact->projection();
}

}  // namespace isthmus::artefact
