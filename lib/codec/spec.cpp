#include <isthmus/codec/spec.h>

#include <array>
#include <charconv>
#include <cmath>
#include <vector>

namespace isthmus::codec {
namespace {

constexpr uint32_t kMaxPad = 65'536;
constexpr uint32_t kMaxProjected = 65'536;

template <typename... Visitors>
struct Overloaded : Visitors... {
  using Visitors::operator()...;
};
template <typename... Visitors>
Overloaded(Visitors...) -> Overloaded<Visitors...>;

tl::unexpected<Error> refuse(const std::string& reason) {
  return fail(ErrorCode::kUnsupported, "codec: " + reason);
}

std::vector<std::string_view> split_text(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  for (;;) {
    const size_t end = text.find(separator);
    parts.push_back(text.substr(0, end));
    if (end == std::string_view::npos) return parts;
    text.remove_prefix(end + 1);
  }
}

std::string quoted(std::string_view text) {
  return std::string("'").append(text).append("'");
}

template <typename Number>
std::string shortest(Number value) {
  std::array<char, 32> text{};
  const auto end = std::to_chars(text.data(), text.data() + text.size(), value);
  return {text.data(), end.ptr};
}

template <typename Number>
std::string with(const char* name, Number value) {
  return std::string(name).append(shortest(value));
}

std::string hex(uint64_t value) {
  std::string text(16, '0');
  for (size_t i = 0; i < 16; ++i) text[15 - i] = "0123456789abcdef"[value >> (4 * i) & 15];
  return text;
}

template <typename Number>
Result<Number> number(std::string_view stage, std::string_view text) {
  Number value = 0;
  const char* const end = text.data() + text.size();
  const std::from_chars_result read = std::from_chars(text.data(), end, value);
  if (read.ec != std::errc() || read.ptr != end || text.empty()) {
    return refuse(quoted(text) + " in " + quoted(stage) + " is not a number");
  }
  return value;
}

Result<uint64_t> hash(std::string_view stage, std::string_view text) {
  uint64_t value = 0;
  const char* const end = text.data() + text.size();
  const std::from_chars_result read = std::from_chars(text.data(), end, value, 16);
  if (read.ec != std::errc() || read.ptr != end || text.size() != 16) {
    return refuse(quoted(stage) + " does not name a file by the 16 hex digits of its hash");
  }
  return value;
}

// A stage's rank in the fixed order; several names may share one.
enum class Rank : uint8_t { kNone, kProject, kSplit, kTransform, kClip, kQuantizer, kRans, kPad };

// Reads stage after stage into a spec.
class Parser {
 public:
  Result<CodecSpec> parse(std::string_view text) {
    for (const std::string_view stage : split_text(text, '|')) ISTHMUS_TRY(read(stage));
    if (!has_quantizer_) {
      return refuse(quoted(text) + " has no stage that says how numbers are written");
    }
    ISTHMUS_TRY(spec_.validate());
    return spec_;
  }

 private:
  Status read(std::string_view stage) {
    stage_ = stage;
    arguments_ = split_text(stage, ':');
    const std::string_view name = arguments_.front();
    arguments_.erase(arguments_.begin());
    if (name == "proj") return read_project();
    if (name == "split") return read_split();
    if (name == "rotate") return read_rotate();
    if (name == "klt" || name == "reorder") return read_calibrated(name == "klt");
    if (name == "clip") return read_clip();
    if (name == "rans") {
      spec_.rans = true;
      return next(Rank::kRans, 0, 0);
    }
    if (name == "pad") {
      ISTHMUS_TRY(next(Rank::kPad, 1, 1));
      ISTHMUS_ASSIGN(spec_.pad, number<uint32_t>(stage_, arguments_[0]));
      if (spec_.pad == 0) return refuse("'pad:0' pads nothing");
      return {};
    }
    return read_quantizer(name);
  }

  // Checks the stage's place and its number of arguments.
  Status next(Rank rank, size_t fewest, size_t most) {
    if (rank <= last_) {
      return refuse(quoted(stage_) +
                    " is repeated or out of order: proj, split, rotate or klt or reorder, clip, "
                    "quantiser, rans, pad");
    }
    last_ = rank;
    if (arguments_.size() < fewest || arguments_.size() > most) {
      return refuse(quoted(stage_) + " has " + shortest(arguments_.size()) +
                    " arguments, it takes " + shortest(fewest) +
                    (most > fewest ? with(" to ", most) : ""));
    }
    return {};
  }

  Status read_project() {
    ISTHMUS_TRY(next(Rank::kProject, 2, 2));
    Project& project = spec_.project.emplace();
    ISTHMUS_ASSIGN(project.dims, number<uint32_t>(stage_, arguments_[0]));
    ISTHMUS_ASSIGN(project.artefact, hash(stage_, arguments_[1]));
    return {};
  }

  Status read_split() {
    ISTHMUS_TRY(next(Rank::kSplit, 1, 1));
    Split& split = spec_.split.emplace();
    if (arguments_[0].starts_with('x')) {
      ISTHMUS_ASSIGN(split.threshold, number<float>(stage_, arguments_[0].substr(1)));
    } else {
      ISTHMUS_ASSIGN(split.count, number<uint32_t>(stage_, arguments_[0]));
    }
    return {};
  }

  Status read_rotate() {
    ISTHMUS_TRY(next(Rank::kTransform, 0, 1));
    Rotate rotate;
    if (!arguments_.empty()) {
      ISTHMUS_ASSIGN(rotate.seed, number<uint32_t>(stage_, arguments_[0]));
    }
    spec_.transform = rotate;
    return {};
  }

  Status read_calibrated(bool klt) {
    ISTHMUS_TRY(next(Rank::kTransform, 1, 1));
    ISTHMUS_ASSIGN(const uint64_t calibration, hash(stage_, arguments_[0]));
    if (klt) {
      spec_.transform = Klt{calibration};
    } else {
      spec_.transform = Reorder{calibration};
    }
    return {};
  }

  Status read_clip() {
    ISTHMUS_TRY(next(Rank::kClip, 1, 1));
    Clip& clip = spec_.clip.emplace();
    for (const std::string_view bound : split_text(arguments_[0], ',')) {
      const size_t equals = std::min(bound.find('='), bound.size() - 1);
      const std::string_view name = bound.substr(0, equals);
      float* const field = name == "l2" ? &clip.l2 : name == "max" ? &clip.max : nullptr;
      if (field == nullptr || *field != 0) {
        return refuse(quoted(stage_) + " is not l2=C, max=C or l2=C,max=C");
      }
      ISTHMUS_ASSIGN(*field, number<float>(stage_, bound.substr(equals + 1)));
    }
    return {};
  }

  Status read_quantizer(std::string_view name) {
    has_quantizer_ = true;
    constexpr std::array<std::pair<std::string_view, Format>, 3> kFormats = {
        {{"f32", Format::kF32}, {"bf16", Format::kBf16}, {"f16", Format::kF16}}};
    for (const auto& [known, format] : kFormats) {
      if (name != known) continue;
      spec_.quantizer = format;
      return next(Rank::kQuantizer, 0, 0);
    }
    if (name == "sign") {
      spec_.quantizer = Sign{};
      return next(Rank::kQuantizer, 0, 0);
    }
    if (name == "tabq") {
      ISTHMUS_TRY(next(Rank::kQuantizer, 1, 1));
      ISTHMUS_ASSIGN(const float distortion, number<float>(stage_, arguments_[0]));
      spec_.quantizer = AdaptiveBits{distortion};
      return {};
    }
    if (name == "step" || name == "trellis") {
      ISTHMUS_TRY(next(Rank::kQuantizer, 1, 1));
      ISTHMUS_ASSIGN(const float step, number<float>(stage_, arguments_[0]));
      spec_.quantizer = Step{step, name == "trellis"};
      return {};
    }
    if (name == "bfp") {
      ISTHMUS_TRY(next(Rank::kQuantizer, 2, 2));
      ISTHMUS_ASSIGN(const auto bits, number<uint32_t>(stage_, arguments_[0]));
      ISTHMUS_ASSIGN(const auto block, number<uint32_t>(stage_, arguments_[1]));
      spec_.quantizer = BlockFloat{bits, block};
      return {};
    }
    if (name == "binomial" || name == "dgauss" || name == "rqm") {
      ISTHMUS_TRY(next(Rank::kQuantizer, 0, arguments_.size()));
      ISTHMUS_ASSIGN(spec_.quantizer, privacy::MechanismSpec::parse(stage_));
      return {};
    }
    return read_uniform(name);
  }

  Status read_uniform(std::string_view name) {
    const bool stochastic = name.starts_with("sint");
    if (!stochastic && !name.starts_with("int")) {
      return refuse(
          quoted(stage_) +
          " is unknown, known are proj, split, rotate, klt, reorder, clip, f32, bf16, f16, "
          "int1 to int8, sint1 to sint8, tabq, sign, bfp, step, trellis, "
          "binomial, dgauss, rqm, rans, pad");
    }
    ISTHMUS_TRY(next(Rank::kQuantizer, 0, 0));
    ISTHMUS_ASSIGN(const auto bits, number<uint32_t>(stage_, name.substr(stochastic ? 4 : 3)));
    spec_.quantizer = Uniform{bits, stochastic};
    return {};
  }

  CodecSpec spec_;
  bool has_quantizer_ = false;
  Rank last_ = Rank::kNone;
  std::string_view stage_;
  std::vector<std::string_view> arguments_;
};

template <typename Number>
Status in_range(const char* what, Number value, Number least, Number most) {
  if (value >= least && value <= most) return {};
  return refuse(std::string(what) + " is " + shortest(value) + ", it must be in [" +
                shortest(least) + ", " + shortest(most) + "]");
}

Status check_quantizer(const Quantizer& quantizer) {
  return std::visit(
      Overloaded{[](Format) -> Status { return {}; },
                 [](const Uniform& q) { return in_range("the bits of int", q.bits, 1U, 8U); },
                 [](const AdaptiveBits& q) {
                   return in_range("the distortion of tabq", q.distortion, 1e-6F, 0.999F);
                 },
                 [](Sign) -> Status { return {}; },
                 [](const BlockFloat& q) -> Status {
                   ISTHMUS_TRY(in_range("the bits of bfp", q.bits, 2U, 8U));
                   return in_range("the block of bfp", q.block, 2U, 1024U);
                 },
                 [](const Step& q) { return in_range("the step", q.step, 0.01F, 8.0F); },
                 [](const privacy::MechanismSpec& q) { return q.validate(); }},
      quantizer);
}

Status check_bound(const char* what, float bound) {
  if (bound == 0) return {};
  return in_range(what, bound, 0x1p-100F, 0x1p100F);
}

std::string text_of(const Quantizer& quantizer) {
  return std::visit(
      Overloaded{[](Format format) -> std::string {
                   return format == Format::kF32 ? "f32" : format == Format::kF16 ? "f16" : "bf16";
                 },
                 [](const Uniform& q) { return with(q.stochastic ? "sint" : "int", q.bits); },
                 [](const AdaptiveBits& q) { return with("tabq:", q.distortion); },
                 [](Sign) -> std::string { return "sign"; },
                 [](const BlockFloat& q) { return with("bfp:", q.bits) + with(":", q.block); },
                 [](const Step& q) { return with(q.trellis ? "trellis:" : "step:", q.step); },
                 [](const privacy::MechanismSpec& q) { return q.to_string(); }},
      quantizer);
}

std::string text_of(const Transform& transform) {
  return std::visit(
      Overloaded{
          [](std::monostate) -> std::string { return ""; },
          [](const Rotate& t) {
            return t.seed == 0 ? std::string("rotate") : with("rotate:", t.seed);
          },
          [](const Klt& t) { return std::string("klt:").append(hex(t.calibration)); },
          [](const Reorder& t) { return std::string("reorder:").append(hex(t.calibration)); }},
      transform);
}

std::string text_of(const Clip& clip) {
  std::string text = "clip:";
  if (clip.l2 != 0) text += with("l2=", clip.l2);
  if (clip.l2 != 0 && clip.max != 0) text += ",";
  if (clip.max != 0) text += with("max=", clip.max);
  return text;
}

}  // namespace

Result<CodecSpec> CodecSpec::parse(std::string_view text) {
  return Parser().parse(text);
}

std::string CodecSpec::to_string() const {
  std::string text;
  const auto add = [&text](const std::string& stage) {
    if (!text.empty() && !stage.empty()) text += '|';
    text += stage;
  };
  if (project) add(with("proj:", project->dims) + ":" + hex(project->artefact));
  if (split)
    add(split->count > 0 ? with("split:", split->count) : with("split:x", split->threshold));
  add(text_of(transform));
  if (clip) add(text_of(*clip));
  add(text_of(quantizer));
  if (rans) add("rans");
  if (pad > 0) add(with("pad:", pad));
  return text;
}

Status CodecSpec::validate() const {
  if (project) ISTHMUS_TRY(in_range("the width of proj", project->dims, 1U, kMaxProjected));
  if (split) {
    if ((split->count > 0) == (split->threshold != 0)) {
      return refuse("split takes a count or a threshold");
    }
    if (split->count > 0)
      ISTHMUS_TRY(in_range("the count of split", split->count, 1U, Split::kMaxCount));
    if (split->count == 0)
      ISTHMUS_TRY(in_range("the threshold of split", split->threshold, 4.0F, 1000.0F));
  }
  if (clip) {
    if (clip->l2 == 0 && clip->max == 0) return refuse("clip bounds nothing");
    ISTHMUS_TRY(check_bound("the norm of clip", clip->l2));
    ISTHMUS_TRY(check_bound("the limit of clip", clip->max));
  }
  ISTHMUS_TRY(check_quantizer(quantizer));
  const bool transformed = !std::holds_alternative<std::monostate>(transform);
  if (std::holds_alternative<Format>(quantizer) && (split || transformed || clip || rans)) {
    return refuse("plain numbers (" + text_of(quantizer) + ") stand alone, or with proj and pad");
  }
  if (std::holds_alternative<Klt>(transform) && !std::holds_alternative<Step>(quantizer) &&
      mechanism() == nullptr) {
    return refuse("klt gives components of very different sizes, which only step and trellis code");
  }
  if (mechanism() != nullptr && split) {
    return refuse(
        "split in front of a mechanism sends coordinates of the private row as they are, and which "
        "ones depends on it: nothing accounts for that");
  }
  if (mechanism() != nullptr && !clip) {
    return refuse("a mechanism needs a clip in front of it, which bounds what it has to hide");
  }
  return in_range("pad", pad, 0U, kMaxPad);
}

std::optional<uint64_t> CodecSpec::calibration() const {
  if (const auto* klt = std::get_if<Klt>(&transform)) return klt->calibration;
  if (const auto* reorder = std::get_if<Reorder>(&transform)) return reorder->calibration;
  return std::nullopt;
}

}  // namespace isthmus::codec
