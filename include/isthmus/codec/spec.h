// What happens to a boundary on its way into bytes, as a short text that both sides agree on.
//
// A spec is a list of stages in one fixed order, each at most once:
//
//   proj:128:<hash>            a learned projection to 128 numbers, of an artefact; all that
//                              follows works on these
//   split:4 | split:x16        outliers travel apart: the 4 largest of a row, or those that are
//   more
//                              than 16 times the root mean square of what is left
//   rotate | rotate:7          public orthogonal transform (drawn from seed 0, or 7)
//   klt:<hash>                 transform, and per-component statistics, of a calibration file
//   reorder:<hash>             channels sorted by the size they have in a calibration file
//   clip:l2=40 clip:max=3      bounds on the row's norm, on each coordinate, or both (l2=40,max=3)
//   one of
//     f32 bf16 f16             plain numbers; no other stage but proj and pad may stand beside them
//     int1 ... int8            uniform levels, scale of least error for each row
//     sint1 ... sint8          the same levels, rounded at random without bias
//     tabq:0.01                the fewest bits for which the row's squared error is at most 1 % of
//                              its energy (8 bits when none are enough)
//     sign                     signs and one magnitude
//     bfp:4:32                 4-bit mantissas, one exponent for each 32 coordinates
//     step:0.5                 steps of half the row's root mean square, unbounded range
//     trellis:0.5              the same with a trellis-coded quantiser: about 0.15 bits less
//     binomial:4:mu=52 dgauss:mu=5 rqm:4:eps=20    a privacy mechanism
//     (isthmus/privacy/mechanism.h)
//                              behind a clip; nothing in front of it may depend on other data of
//                              the row, so split is refused
//   rans                       entropy coding
//   pad:64                     zeros up to a multiple of 64 bytes
#pragma once

#include <isthmus/core/error.h>
#include <isthmus/privacy/mechanism.h>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>

namespace isthmus::codec {

/// Most numbers of a row.
inline constexpr size_t kMaxWidth = 65'536;

enum class Format : uint8_t {
  kF32,   ///< bit-exact
  kBf16,  ///< rounded to nearest: off by at most 2^-8 of the number, unless that is subnormal
  kF16,   ///< rounded to nearest relative to the row's largest magnitude m: off by at most 2^-11 of
          ///< the number or 2^-38 m, whichever is more
};

/// A trained projection of a row to `dims` numbers. It is public: what it leaves out is not hidden.
struct Project {
  uint32_t dims = 0;      ///< d, at least 1
  uint64_t artefact = 0;  ///< Projection::id()
  friend bool operator==(const Project&, const Project&) = default;
};

/// Largest coordinates of a row, sent apart. Exactly one of the two is not 0.
struct Split {
  uint32_t count = 0;   ///< at most kMaxCount
  float threshold = 0;  ///< in [4, 1000], of the rest's root mean square; at most kMaxCount, and an
                        ///< eighth of the row, are sent
  static constexpr uint32_t kMaxCount = 64;
  friend bool operator==(const Split&, const Split&) = default;
};

struct Rotate {
  uint32_t seed = 0;
  friend bool operator==(const Rotate&, const Rotate&) = default;
};
struct Klt {
  uint64_t calibration = 0;  ///< Calibration::hash()
  friend bool operator==(const Klt&, const Klt&) = default;
};
struct Reorder {
  uint64_t calibration = 0;
  friend bool operator==(const Reorder&, const Reorder&) = default;
};
using Transform = std::variant<std::monostate, Rotate, Klt, Reorder>;

/// Bounds in the units of the (transformed) row; 0 means none. The row is first scaled down to the
/// norm, then each coordinate is limited.
struct Clip {
  float l2 = 0;
  float max = 0;
  friend bool operator==(const Clip&, const Clip&) = default;
};

struct Uniform {
  uint32_t bits = 4;  ///< 1 to 8
  bool stochastic = false;
  friend bool operator==(const Uniform&, const Uniform&) = default;
};
struct AdaptiveBits {
  float distortion = 0;  ///< in (0, 1)
  friend bool operator==(const AdaptiveBits&, const AdaptiveBits&) = default;
};
struct Sign {
  friend bool operator==(const Sign&, const Sign&) = default;
};
struct BlockFloat {
  uint32_t bits = 4;    ///< 2 to 8, sign included
  uint32_t block = 32;  ///< 2 to 1024
  friend bool operator==(const BlockFloat&, const BlockFloat&) = default;
};
struct Step {
  float step = 0;  ///< in [0.01, 8], of the row's root mean square
  bool trellis = false;
  friend bool operator==(const Step&, const Step&) = default;
};
using Quantizer =
    std::variant<Format, Uniform, AdaptiveBits, Sign, BlockFloat, Step, privacy::MechanismSpec>;

/// See the file comment for the text form.
struct CodecSpec {
  Quantizer quantizer = Format::kF16;
  std::optional<Project> project;
  std::optional<Split> split;
  Transform transform;
  std::optional<Clip> clip;
  bool rans = false;
  uint32_t pad = 0;  ///< at most 65,536; 0: none

  /// Reads the text form, whose numbers may be written in any way; stages in another order are
  /// refused, not sorted. The result is valid.
  /// \returns kUnsupported, saying which stage and why; what MechanismSpec::parse returns.
  [[nodiscard]] static Result<CodecSpec> parse(std::string_view text);

  /// The text form; `parse` gives this spec again.
  [[nodiscard]] std::string to_string() const;

  /// \returns kUnsupported naming the stage that is out of its range or cannot stand with another;
  /// what MechanismSpec::validate returns.
  [[nodiscard]] Status validate() const;

  /// The mechanism, or null without one: then nothing is protected.
  [[nodiscard]] const privacy::MechanismSpec* mechanism() const {
    return std::get_if<privacy::MechanismSpec>(&quantizer);
  }

  /// The calibration that the spec names.
  [[nodiscard]] std::optional<uint64_t> calibration() const;

  friend bool operator==(const CodecSpec&, const CodecSpec&) = default;
};

}  // namespace isthmus::codec
