// What was trained for one cut of one model: a projection, and what teaches the layers behind the
// cut to read what comes out of it (DEL: Gu et al. 2026, arXiv 2602.11513).
//
// One safetensors file. Tensors, F16, or F32 that is rounded to it: "encoder" [d, D], the device's
// part; "decoder" [D, d] and, if there are any, "soft_prompt" [m, D] and for each adapted matrix
// [out, in] of a layer behind the cut "blk.3.attn_q.weight.lora_a" [r, in] and
// "blk.3.attn_q.weight.lora_b" [out, r], whose product (b times a) is added to it, the server's
// part. Metadata, all texts: "format"
// ("isthmus-artefact-1"), "model", "fingerprint", "cut", "codec", "data", "command", and under
// every tensor's name the BLAKE2b hash of its shape and F16 bytes, also of one that is in the other
// side's part alone. The artefact is named by the hash of its metadata, so both parts prove that
// they belong together.
//
// An artefact is public: it is made of public text, and nothing in it protects anything.
#pragma once

#include <isthmus/artefact/parts.h>
#include <isthmus/codec/projection.h>
#include <isthmus/codec/spec.h>
#include <isthmus/core/error.h>
#include <isthmus/core/matrix.h>
#include <isthmus/model/config.h>
#include <isthmus/model/model_file.h>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace isthmus::artefact {

/// What an artefact was made for and of.
struct Origin {
  std::string model;        ///< `model_name` of its config
  std::string fingerprint;  ///< of the very weights that it was trained on (model::fingerprint)
  int32_t cut = 0;
  codec::CodecSpec codec;  ///< the stages behind the projection that it was trained with
  std::string data;        ///< hash of the tokens it was trained on
  std::string command;     ///< that made it
};

/// Architecture, layers, hidden size and vocabulary, as "llama-30x576x49152". Models of one shape
/// are not told apart.
[[nodiscard]] std::string model_name(const model::ModelConfig& config);

/// Immutable. Copies share their matrices.
class Artefact {
 public:
  /// Numbers are rounded to half precision, as files hold them.
  /// \param parts at most kMaxSoftPrompt rows and kMaxRank of an adapter
  /// \returns what Projection::make returns; kInvalidArgument for parts that do not fit each other
  /// or the cut, a codec that projects, or texts that are not UTF-8; kNotFinite.
  [[nodiscard]] static Result<Artefact> make(Origin origin, Parts parts);

  /// Reads bytes that may come from anyone, a whole artefact or one side's part. \returns
  /// kTruncated, kTooLarge, kCorrupt (also for a tensor that is not the one the artefact is named
  /// after), kUnsupported for another format, kNotFinite, what Projection::make returns.
  [[nodiscard]] static Result<Artefact> parse(std::span<const std::byte> bytes);
  /// `parse` of a file. \returns also kNotFound, kIo.
  [[nodiscard]] static Result<Artefact> load(const std::filesystem::path& path);

  /// \param half which tensors are written
  /// \throws std::invalid_argument for a half that this is not.
  [[nodiscard]] std::vector<std::byte> serialize(Half half = Half::kBoth) const;
  /// The same to a file, which appears under its name only when complete. \returns kIo,
  /// kTooLarge for what `load` would refuse.
  [[nodiscard]] Status save(const std::filesystem::path& path, Half half = Half::kBoth) const;

  [[nodiscard]] const Origin& origin() const { return origin_; }
  /// First 8 bytes of the hash, as a big-endian number; `projection()->id()`.
  [[nodiscard]] uint64_t id() const { return projection_->id(); }
  [[nodiscard]] const std::shared_ptr<const codec::Projection>& projection() const {
    return projection_;
  }
  /// What is here of it: the server's part has no encoder, the device's nothing else.
  [[nodiscard]] const Parts& parts() const { return *parts_; }
  [[nodiscard]] MatrixView<const float> encoder() const { return parts_->encoder.view(); }
  [[nodiscard]] MatrixView<const float> decoder() const { return parts_->decoder.view(); }
  [[nodiscard]] MatrixView<const float> soft_prompt() const { return parts_->soft_prompt.view(); }
  /// `parts().adapters`, kept alive.
  [[nodiscard]] std::shared_ptr<const model::Adapters> adapters() const {
    return {parts_, &parts_->adapters};
  }
  /// Whether the server puts one in front of a session; either half knows.
  [[nodiscard]] bool has_soft_prompt() const;
  /// One past the last layer that has adapters, 0 without any; either half knows. Layers in front
  /// of it and behind the cut are right on the server alone.
  [[nodiscard]] int32_t adapted_end() const;
  /// The whole codec: `origin().codec` behind this projection.
  [[nodiscard]] codec::CodecSpec codec() const;

  /// \returns kModelMismatch unless it was made for a model of this shape, cut there. Other weights
  /// of that shape, say a finer quantisation, are no error: how well they work is another matter.
  [[nodiscard]] Status check(const model::ModelConfig& config, int32_t cut) const;

  /// The least tail of a session with it: a soft prompt stands in the server's cache alone, and
  /// adapted layers are the server's. Either half knows.
  [[nodiscard]] int32_t least_tail(int32_t layer_count) const;
  /// \param tail from where on layers behind the cut run on the device; layer_count for none
  /// \returns kUnsupported below least_tail.
  [[nodiscard]] Status check_tail(int32_t tail, int32_t layer_count) const;

  static constexpr size_t kMaxSoftPrompt = 1024;
  static constexpr size_t kMaxRank = 256;

 private:
  struct FileTensors {
    std::vector<std::vector<std::byte>> contents;
    std::vector<model::Tensor> tensors;  // of the contents
  };
  [[nodiscard]] FileTensors file_tensors(Half half) const;
  [[nodiscard]] static Result<Artefact> make(std::map<std::string, std::string> metadata,
                                             NamedMatrices named);

  Origin origin_;
  std::map<std::string, std::string> metadata_;
  std::shared_ptr<const Parts> parts_;  // half precision
  std::shared_ptr<const codec::Projection> projection_;
};

/// Those that a side has; either its half or all of them.
using Artefacts = std::vector<std::shared_ptr<const Artefact>>;

/// The one that the spec names; null when it names none or it is not there.
[[nodiscard]] std::shared_ptr<const Artefact> find(const codec::CodecSpec& spec,
                                                   const Artefacts& artefacts);

/// The one that has adapters; null without one. \returns kInvalidArgument when there are more: a
/// server's weights, which all its sessions share, can have those of one.
[[nodiscard]] Result<std::shared_ptr<const Artefact>> find_adapted(const Artefacts& artefacts);

/// What a server with these artefacts computes with: `file`, with the adapters of `find_adapted` if
/// there is one. \returns kModelMismatch unless `fingerprint` is that of the weights that they were
/// trained on, which they change number by number; the errors of find_adapted and model::adapt.
[[nodiscard]] Result<std::shared_ptr<const model::ModelFile>> adapted_model(
    const std::shared_ptr<const model::ModelFile>& file, const Artefacts& artefacts,
    const std::string& fingerprint);

/// Its projection, or null without one.
[[nodiscard]] std::shared_ptr<const codec::Projection> projection_of(
    const std::shared_ptr<const Artefact>& artefact);

}  // namespace isthmus::artefact
