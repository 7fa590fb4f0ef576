// A message without entropy coding is the rows' fields packed into bits. With it, one byte comes
// first: 0 for the same packing, else the number of bytes of the coder's state; then the stream.
// The last row's scale travels as what is left of that state.
#include <isthmus/codec/codec.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

#include "bits.h"
#include "coded_row.h"
#include "outliers.h"
#include "plain_format.h"
#include "quantizer.h"
#include "rans.h"
#include "transform.h"

namespace isthmus::codec {
namespace {

tl::unexpected<Error> corrupt(const std::string& reason) {
  return fail(ErrorCode::kCorrupt, "codec: payload " + reason);
}

void clip_row(const Clip& clip, std::span<float> row) {
  const double norm = clip.l2 > 0 ? std::sqrt(energy(row)) : 0;
  if (norm > double{clip.l2}) {
    const auto factor = static_cast<float>(double{clip.l2} / norm);
    for (float& value : row) value *= factor;
  }
  if (clip.max > 0) {
    for (float& value : row) value = std::min(std::max(value, -clip.max), clip.max);
  }
}

Status check_calibration(const CodecSpec& spec, size_t width, const Calibration* calibration) {
  const std::optional<uint64_t> wanted = spec.calibration();
  if (!wanted) return {};
  if (calibration == nullptr || calibration->hash() != *wanted) {
    return fail(ErrorCode::kNotFound,
                "codec: the calibration of '" + spec.to_string() + "' is not here");
  }
  if (calibration->width() != width) {
    return fail(ErrorCode::kInvalidArgument, "codec: the calibration is for rows of " +
                                                 std::to_string(calibration->width()) + ", not " +
                                                 std::to_string(width));
  }
  return {};
}

Status check_projection(const CodecSpec& spec, size_t width, const Projection* projection) {
  if (!spec.project) return {};
  if (projection == nullptr || projection->id() != spec.project->artefact) {
    return fail(ErrorCode::kNotFound,
                "codec: the artefact of '" + spec.to_string() + "' is not here");
  }
  if (projection->width() != width || projection->dims() != spec.project->dims) {
    return fail(ErrorCode::kInvalidArgument,
                "codec: the projection takes " + std::to_string(projection->width()) +
                    " numbers to " + std::to_string(projection->dims()) + ", not " +
                    std::to_string(width) + " to " + std::to_string(spec.project->dims));
  }
  return {};
}

/// How many components of each block the spec codes.
std::vector<size_t> used_components(const Quantizer& quantizer, const Calibration& calibration) {
  const auto* const step = std::get_if<Step>(&quantizer);
  std::vector<size_t> used;
  for (size_t first = 0; first < calibration.width(); first += calibration.block()) {
    size_t count = calibration.block();
    while (step != nullptr && count > 0 &&
           !is_worth_coding(*step, calibration.variance()[first + count - 1]))
      --count;
    used.push_back(count);
  }
  return used;
}

Result<std::unique_ptr<const RowTransform>> make_transform(const CodecSpec& spec, size_t width,
                                                           const Calibration* calibration) {
  if (const auto* rotate = std::get_if<Rotate>(&spec.transform)) {
    return make_rotation(rotate->seed, width);
  }
  if (std::holds_alternative<Klt>(spec.transform)) {
    return make_klt(*calibration, used_components(spec.quantizer, *calibration));
  }
  if (std::holds_alternative<Reorder>(spec.transform)) return make_reordering(*calibration);
  return nullptr;
}

/// The clip again in the mechanism's terms: it clips, so that its guarantee depends on no caller.
privacy::Clip mechanism_clip(const Clip& clip) {
  privacy::Clip result;
  if (clip.max > 0) result.coordinate = double{clip.max};
  if (clip.l2 > 0) result.norm_l2 = double{clip.l2};
  return result;
}

std::unique_ptr<const RowQuantizer> make_quantizer(const CodecSpec& spec,
                                                   const RowStatistics& rows) {
  if (const auto* step = std::get_if<Step>(&spec.quantizer))
    return make_step_quantizer(*step, rows);
  if (const auto* block = std::get_if<BlockFloat>(&spec.quantizer))
    return make_block_quantizer(*block, rows);
  return make_uniform_quantizer(spec.quantizer, rows);
}

}  // namespace

std::shared_ptr<const Calibration> find_calibration(
    const CodecSpec& spec, std::span<const std::shared_ptr<const Calibration>> calibrations) {
  for (const auto& calibration : calibrations)
    if (spec.calibration() == calibration->hash()) return calibration;
  return nullptr;
}

/// All stages behind the projection: its rows are what is coded.
class BoundaryCodec::Impl {
 public:
  static Result<std::unique_ptr<const Impl>> make(const CodecSpec& spec, size_t row_width,
                                                  const CodecResources& resources) {
    ISTHMUS_TRY(check_projection(spec, row_width, resources.projection.get()));
    auto impl = std::make_unique<Impl>();
    impl->spec_ = spec;
    if (spec.project) impl->projection_ = resources.projection;
    const size_t width = spec.project ? spec.project->dims : row_width;
    impl->width_ = width;
    if (const auto* format = std::get_if<Format>(&spec.quantizer)) {
      impl->format_ = *format;
      return impl;
    }
    const Calibration* const calibration = resources.calibration.get();
    ISTHMUS_TRY(check_calibration(spec, width, calibration));
    if (spec.split) impl->splitter_.emplace(*spec.split, width);
    ISTHMUS_ASSIGN(impl->transform_, make_transform(spec, width, calibration));
    RowStatistics rows{.width = width, .rotated = std::holds_alternative<Rotate>(spec.transform)};
    if (std::holds_alternative<Klt>(spec.transform)) rows.variance = calibration->variance();
    if (const privacy::MechanismSpec* const wanted = spec.mechanism()) {
      ISTHMUS_ASSIGN(auto mechanism,
                     privacy::make_mechanism(*wanted, width, mechanism_clip(*spec.clip)));
      impl->spec_.quantizer = mechanism->spec();
      impl->mechanism_ = mechanism.get();
      impl->quantizer_ = make_mechanism_quantizer(std::move(mechanism));
    } else {
      impl->quantizer_ = make_quantizer(spec, rows);
    }
    impl->random_ = resources.random;
    return impl;
  }

  [[nodiscard]] const CodecSpec& spec() const { return spec_; }
  [[nodiscard]] size_t width() const { return width_; }
  [[nodiscard]] const Projection* projection() const { return projection_.get(); }
  [[nodiscard]] const privacy::Mechanism* mechanism() const { return mechanism_; }

  [[nodiscard]] Result<size_t> max_encoded_bytes(size_t rows) const {
    size_t bits = 0;
    size_t bytes = 0;
    const size_t slack = (spec_.rans ? 2 : 1) + size_t{spec_.pad};
    if (__builtin_mul_overflow(rows, most_row_bits(), &bits) ||
        __builtin_add_overflow(bits / 8, slack, &bytes)) {
      return fail(ErrorCode::kTooLarge, "codec: the bytes of " + std::to_string(rows) +
                                            " rows of " + std::to_string(width_) +
                                            " numbers do not fit a size");
    }
    if (rows == 0) return size_t{0};
    return padded((bits + 7) / 8 + (spec_.rans ? 1 : 0));
  }

  [[nodiscard]] Result<std::vector<std::byte>> encode(MatrixView<const float> rows) const {
    ISTHMUS_TRY(check_width(rows.cols()));
    std::vector<std::byte> bytes;
    if (format_) {
      ISTHMUS_TRY(plain_encode(*format_, rows, bytes));
    } else if (rows.rows() > 0) {
      ISTHMUS_ASSIGN(const std::vector<CodedRow> coded, quantize(rows));
      bytes = spec_.rans ? entropy_code(coded) : pack(coded);
    }
    bytes.resize(padded(bytes.size()));
    return bytes;
  }

  [[nodiscard]] Status decode_into(std::span<const std::byte> bytes, MatrixView<float> rows) const {
    ISTHMUS_TRY(check_width(rows.cols()));
    ISTHMUS_ASSIGN(const size_t most, max_encoded_bytes(rows.rows()));
    if (bytes.size() > most) {
      return corrupt("has " + std::to_string(bytes.size()) + " bytes, " +
                     std::to_string(rows.rows()) + " rows of " + std::to_string(width_) +
                     " numbers take at most " + std::to_string(most));
    }
    if (spec_.pad > 0 && bytes.size() % spec_.pad != 0) {
      return corrupt("has " + std::to_string(bytes.size()) + " bytes, not a multiple of " +
                     std::to_string(spec_.pad));
    }
    if (format_) return decode_plain(*format_, bytes, rows);
    if (rows.rows() == 0) return {};
    return decode_rows(bytes, rows);
  }

  [[nodiscard]] Result<std::vector<std::vector<double>>> log_likelihoods(
      std::span<const std::vector<std::byte>> messages, MatrixView<const float> candidates) const {
    ISTHMUS_TRY(check_width(candidates.cols()));
    if (mechanism_ == nullptr) return refuse("has no mechanism whose draws are likely");
    const Matrix rows = transformed(candidates, {});
    Matrix decoded(1, width_);
    CodedRow coded;
    std::vector<int32_t> draws;
    draws.reserve(messages.size() * width_);
    for (const std::vector<std::byte>& message : messages) {
      ISTHMUS_TRY(decode_into(message, decoded.view()));
      ISTHMUS_TRY(read_rows(message, decoded.view(), {}, coded));
      draws.insert(draws.end(), coded.draws.begin(), coded.draws.end());
    }
    std::vector<std::vector<double>> result;
    for (size_t r = 0; r < rows.rows(); ++r) {
      ISTHMUS_ASSIGN(auto logs, mechanism_->log_probabilities(rows.row(r), draws));
      result.push_back(std::move(logs));
    }
    return result;
  }

  [[nodiscard]] bool is_random() const { return quantizer_ && quantizer_->is_random(); }

  [[nodiscard]] Result<Matrix> expectations(MatrixView<const float> rows) const {
    ISTHMUS_TRY(check_width(rows.cols()));
    if (!is_random()) return refuse("is not random");
    std::vector<Outliers> outliers(splitter_ ? rows.rows() : 0);
    Matrix result = transformed(rows, outliers);
    if (spec_.clip)
      for (size_t r = 0; r < result.rows(); ++r) clip_row(*spec_.clip, result.row(r));
    if (transform_) transform_->inverse(result.view());
    for (size_t r = 0; r < outliers.size(); ++r) splitter_->put_back(outliers[r], result.row(r));
    return result;
  }

 private:
  [[nodiscard]] tl::unexpected<Error> refuse(const std::string& reason) const {
    return fail(ErrorCode::kInvalidArgument, "codec: '" + spec_.to_string() + "' " + reason);
  }

  /// Rows without their outliers, as the quantiser gets them but for the clip.
  [[nodiscard]] Matrix transformed(MatrixView<const float> rows,
                                   std::span<Outliers> outliers) const {
    Matrix result(rows.rows(), width_);
    std::copy(rows.values().begin(), rows.values().end(), result.data());
    for (size_t r = 0; r < outliers.size(); ++r) splitter_->take(result.row(r), outliers[r]);
    if (transform_) transform_->forward(result.view());
    return result;
  }

  [[nodiscard]] size_t most_row_bits() const {
    if (format_) return 8 * plain_row_bytes(*format_, width_);
    return (splitter_ ? splitter_->packed_bits(splitter_->most()) : 0) + scale_bits() +
           quantizer_->most_bits();
  }

  [[nodiscard]] unsigned scale_bits() const { return quantizer_->has_scale() ? kScaleBits : 0; }

  [[nodiscard]] size_t padded(size_t bytes) const {
    if (spec_.pad == 0) return bytes;
    return (bytes + spec_.pad - 1) / spec_.pad * spec_.pad;
  }

  [[nodiscard]] Status check_width(size_t width) const {
    if (width == width_) return {};
    return fail(ErrorCode::kInvalidArgument, "codec: rows have " + std::to_string(width) +
                                                 " numbers, the codec was made for " +
                                                 std::to_string(width_));
  }

  [[nodiscard]] Result<std::vector<CodedRow>> quantize(MatrixView<const float> rows) const {
    if (is_random() && random_ == nullptr)
      return refuse("encodes with random numbers, none were given");
    for (size_t r = 0; r < rows.rows(); ++r) {
      if (all_below(kTooLarge, rows.row(r))) continue;
      return fail(ErrorCode::kNotFinite,
                  "codec: row " + std::to_string(r) +
                      " holds a number that is not finite, or not below 2^100");
    }
    std::vector<CodedRow> coded(rows.rows());
    Matrix work(rows.rows(), width_);
    std::copy(rows.values().begin(), rows.values().end(), work.data());
    for (size_t r = 0; r < coded.size(); ++r)
      if (splitter_) splitter_->take(work.row(r), coded[r].outliers);
    if (transform_) transform_->forward(work.view());
    for (size_t r = 0; r < coded.size(); ++r) {
      if (spec_.clip && mechanism_ == nullptr) clip_row(*spec_.clip, work.row(r));
      coded[r].codes.resize(width_);
      ISTHMUS_TRY(quantizer_->quantize(work.row(r), random_, coded[r]));
    }
    return coded;
  }

  [[nodiscard]] std::vector<std::byte> pack(const std::vector<CodedRow>& coded) const {
    std::vector<std::byte> bytes;
    if (spec_.rans) bytes.push_back(std::byte{0});
    BitWriter bits(bytes);
    for (const CodedRow& row : coded) {
      if (splitter_) splitter_->write(row.outliers, bits);
      bits.put(row.scale, scale_bits());
      quantizer_->write(row, bits);
    }
    bits.finish();
    return bytes;
  }

  [[nodiscard]] std::vector<std::byte> entropy_code(const std::vector<CodedRow>& coded) const {
    RansEncoder encoder(coded.size() * (width_ + 8));
    size_t packed_bits = 0;
    for (const CodedRow& row : coded) {
      if (splitter_) splitter_->write(row.outliers, encoder);
      quantizer_->write(row, encoder);
      if (&row != &coded.back()) encoder.bits(row.scale, scale_bits());
      packed_bits += (splitter_ ? splitter_->packed_bits(row.outliers.count) : 0) + scale_bits() +
                     quantizer_->packed_bits(row);
    }
    std::vector<std::byte> bytes = {std::byte{0}};
    const unsigned state_bytes = encoder.finish(coded.back().scale, bytes);
    if (bytes.size() > 1 + (packed_bits + 7) / 8) return pack(coded);
    bytes[0] = static_cast<std::byte>(state_bytes);
    return bytes;
  }

  [[nodiscard]] Status decode_plain(Format format, std::span<const std::byte> bytes,
                                    MatrixView<float> rows) const {
    const size_t exact = rows.rows() * plain_row_bytes(format, width_);
    if (bytes.size() != padded(exact)) {
      return corrupt("has " + std::to_string(bytes.size()) + " bytes, " +
                     std::to_string(rows.rows()) + " rows of " + std::to_string(width_) +
                     " numbers in " + spec_.to_string() + " take " + std::to_string(padded(exact)));
    }
    ISTHMUS_TRY(check_rest(bytes, exact));
    return plain_decode(format, bytes.first(exact), rows);
  }

  /// Behind the rows there must be nothing but the fewest zeros that make the padding.
  [[nodiscard]] Status check_rest(std::span<const std::byte> bytes, size_t used) const {
    if (bytes.size() != padded(used)) {
      return corrupt("has " + std::to_string(bytes.size()) + " bytes, its rows take " +
                     std::to_string(padded(used)));
    }
    const std::span<const std::byte> rest = bytes.subspan(used);
    if (std::all_of(rest.begin(), rest.end(), [](std::byte b) { return b == std::byte{0}; })) {
      return {};
    }
    return corrupt("has padding that is not zero");
  }

  [[nodiscard]] Status decode_rows(std::span<const std::byte> bytes, MatrixView<float> rows) const {
    std::vector<Outliers> outliers(splitter_ ? rows.rows() : 0);
    CodedRow coded;
    ISTHMUS_TRY(read_rows(bytes, rows, outliers, coded));
    if (transform_) transform_->inverse(rows);
    for (size_t r = 0; r < outliers.size(); ++r) splitter_->put_back(outliers[r], rows.row(r));
    if (all_below(std::numeric_limits<float>::infinity(), rows.values())) return {};
    return corrupt("holds numbers that are out of range");
  }

  /// `coded` holds one row after the other; the last one when all is done.
  [[nodiscard]] Status read_rows(std::span<const std::byte> bytes, MatrixView<float> rows,
                                 std::span<Outliers> outliers, CodedRow& coded) const {
    unsigned state_bytes = 0;
    if (spec_.rans) {
      state_bytes = bytes.empty() ? 1 : std::to_integer<unsigned>(bytes[0]);
      if (state_bytes == 1 || state_bytes > 4) return corrupt("does not start with 0, 2, 3 or 4");
    }
    const std::span<const std::byte> body = bytes.subspan(spec_.rans ? 1 : 0);
    if (state_bytes > 0) {
      RansDecoder decoder(body, state_bytes);
      ISTHMUS_TRY(read_rows_from(decoder, rows, outliers, coded));
      return check_rest(bytes, 1 + decoder.position());
    }
    BitReader reader(body);
    ISTHMUS_TRY(read_rows_from(reader, rows, outliers, coded));
    if (!reader.rest_is_zero()) return corrupt("has padding that is not zero");
    return check_rest(bytes, bytes.size() - body.size() + reader.position());
  }

  template <typename Reader>
  [[nodiscard]] Status read_rows_from(Reader& reader, MatrixView<float> rows,
                                      std::span<Outliers> outliers, CodedRow& coded) const {
    coded.codes.resize(width_);
    for (size_t r = 0; r < rows.rows(); ++r) {
      const bool valid = (outliers.empty() || splitter_->read(reader, outliers[r])) &&
                         read_scale_and_codes(reader, r + 1 == rows.rows(), coded);
      if (reader.overrun()) return corrupt("ends inside row " + std::to_string(r));
      if (!valid || coded.scale > (quantizer_->has_scale() ? kMaxScale : 0)) {
        return corrupt("row " + std::to_string(r) + " is not one that this codec makes");
      }
      ISTHMUS_TRY(quantizer_->reconstruct(coded, rows.row(r)));
    }
    return {};
  }

  [[nodiscard]] bool read_scale_and_codes(BitReader& bits, bool /*last*/, CodedRow& coded) const {
    coded.scale = bits.get(scale_bits());
    return quantizer_->read(bits, coded);
  }
  [[nodiscard]] bool read_scale_and_codes(RansDecoder& decoder, bool last, CodedRow& coded) const {
    const bool valid = quantizer_->read(decoder, coded);
    coded.scale = last ? decoder.carried() : decoder.bits(scale_bits());
    return valid;
  }

  CodecSpec spec_;
  std::shared_ptr<const Projection> projection_;  // may be null
  size_t width_ = 0;                              // of what is coded
  std::optional<Format> format_;                  // plain numbers: nothing below is used
  std::optional<OutlierSplitter> splitter_;
  std::unique_ptr<const RowTransform> transform_;  // may be null
  std::unique_ptr<const RowQuantizer> quantizer_;
  const privacy::Mechanism* mechanism_ = nullptr;  // inside the quantiser
  RandomSource* random_ = nullptr;
};

Result<BoundaryCodec> BoundaryCodec::make(const CodecSpec& spec, size_t width,
                                          const CodecResources& resources) {
  ISTHMUS_TRY(spec.validate());
  if (width == 0 || width > kMaxWidth) {
    return fail(ErrorCode::kUnsupported, "codec: rows of " + std::to_string(width) +
                                             " numbers, it must be 1 to " +
                                             std::to_string(kMaxWidth));
  }
  ISTHMUS_ASSIGN(std::unique_ptr<const Impl> impl, Impl::make(spec, width, resources));
  return BoundaryCodec(std::move(impl));
}

BoundaryCodec::BoundaryCodec(std::unique_ptr<const Impl> impl) : impl_(std::move(impl)) {}
BoundaryCodec::BoundaryCodec(BoundaryCodec&&) noexcept = default;
BoundaryCodec& BoundaryCodec::operator=(BoundaryCodec&&) noexcept = default;
BoundaryCodec::~BoundaryCodec() = default;

const CodecSpec& BoundaryCodec::spec() const {
  return impl_->spec();
}

size_t BoundaryCodec::width() const {
  return impl_->projection() != nullptr ? impl_->projection()->width() : impl_->width();
}

size_t BoundaryCodec::coded_width() const {
  return impl_->width();
}

bool BoundaryCodec::is_random() const {
  return impl_->is_random();
}

const privacy::Mechanism* BoundaryCodec::mechanism() const {
  return impl_->mechanism();
}

Result<size_t> BoundaryCodec::max_encoded_bytes(size_t rows) const {
  return impl_->max_encoded_bytes(rows);
}

Result<Matrix> BoundaryCodec::projected(MatrixView<const float> rows) const {
  ISTHMUS_TRY(check_width(rows.cols()));
  Matrix latents(rows.rows(), impl_->width());
  ISTHMUS_TRY(impl_->projection()->encode(rows, latents.view()));
  return latents;
}

Status BoundaryCodec::check_width(size_t columns) const {
  if (columns == width()) return {};
  return fail(ErrorCode::kInvalidArgument, "codec: rows have " + std::to_string(columns) +
                                               " numbers, the codec was made for " +
                                               std::to_string(width()));
}

Result<std::vector<std::byte>> BoundaryCodec::encode(MatrixView<const float> rows) const {
  if (impl_->projection() == nullptr) return impl_->encode(rows);
  ISTHMUS_ASSIGN(const Matrix latents, projected(rows));
  return impl_->encode(latents.view());
}

Result<std::vector<std::vector<double>>> BoundaryCodec::log_likelihoods(
    std::span<const std::vector<std::byte>> messages, MatrixView<const float> candidates) const {
  if (impl_->projection() == nullptr) return impl_->log_likelihoods(messages, candidates);
  ISTHMUS_ASSIGN(const Matrix latents, projected(candidates));
  return impl_->log_likelihoods(messages, latents.view());
}

Result<Matrix> BoundaryCodec::expectations(MatrixView<const float> rows) const {
  if (impl_->projection() == nullptr) return impl_->expectations(rows);
  ISTHMUS_ASSIGN(const Matrix latents, projected(rows));
  ISTHMUS_ASSIGN(const Matrix means, impl_->expectations(latents.view()));
  Matrix result(rows.rows(), width());
  ISTHMUS_TRY(impl_->projection()->decode(means.view(), result.view()));
  return result;
}

Status BoundaryCodec::decode_into(std::span<const std::byte> bytes, MatrixView<float> rows) const {
  if (impl_->projection() == nullptr) return impl_->decode_into(bytes, rows);
  ISTHMUS_TRY(check_width(rows.cols()));
  Matrix latents(rows.rows(), impl_->width());
  ISTHMUS_TRY(impl_->decode_into(bytes, latents.view()));
  ISTHMUS_TRY(impl_->projection()->decode(latents.view(), rows));
  if (all_below(std::numeric_limits<float>::infinity(), rows.values())) return {};
  return corrupt("holds numbers that are out of range");
}

}  // namespace isthmus::codec
