// Randomisers for boundary rows: a row goes in, integer codes come out, and how much the codes can
// tell about the row is bounded by a number that is stated and accounted.
//
// binomial  each coordinate is a Binomial(2^n - 1, 1/2 + v/2A) count (the local randomiser of the
//           Poisson binomial mechanism: Chen, Ozgur, Kairouz 2022; DEL: Gu et al. 2026)
// dgauss    lattice point plus discrete Gaussian noise (Canonne, Kamath, Steinke 2020)
// rqm       randomised rounding between randomly kept levels (Youn, Hu, Ziani, Abernethy 2023)
//
// The unit is one boundary row; adjacency replaces the row by any other row within the clip. A row
// is clipped here, so the guarantee never depends on the caller. Noise is drawn on the device only
// and nothing about it is secret but its bits.
#pragma once

#include <isthmus/core/error.h>
#include <isthmus/core/random.h>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace isthmus::privacy {

enum class MechanismKind : uint8_t { kBinomial, kDiscreteGaussian, kRandomizedQuantization };

/// Which mechanism and how strong, per row. Exactly one of `epsilon`, `mu` and `range` is above 0
/// in a valid spec. Text form: "binomial:4:mu=52", "binomial:1:eps=8:delta=1e-06", "dgauss:mu=5",
/// "rqm:4:eps=20", "rqm:4:keep=0.5:range=3.5". "delta" and "keep" may be left out.
struct MechanismSpec {
  MechanismKind kind = MechanismKind::kBinomial;
  unsigned bits = 0;    ///< of a code: binomial 1..8, rqm 2..5; dgauss has none (0)
  double epsilon = 0;   ///< of one row at `delta`; the scale is derived, see `resolve`
  double mu = 0;        ///< binomial, dgauss: noise like that of a mu-Gaussian mechanism
  double range = 0;     ///< rqm: outermost level over the clip, above 1
  double delta = 1e-5;  ///< in (0, 1): where every epsilon is stated
  double keep = 0.5;    ///< rqm: chance that an inner level is kept, in (0, 1)

  /// \returns kUnsupported for an unknown mechanism or field, kInvalidArgument as `validate`.
  [[nodiscard]] static Result<MechanismSpec> parse(std::string_view text);
  /// Parses back to the same spec, bit for bit.
  [[nodiscard]] std::string to_string() const;
  /// \returns kInvalidArgument naming the field and its value.
  [[nodiscard]] Status validate() const;
  /// Whether the scale is given, so that making the mechanism needs no search. A server takes no
  /// other spec from a client.
  [[nodiscard]] bool is_resolved() const { return epsilon == 0; }
  friend bool operator==(const MechanismSpec&, const MechanismSpec&) = default;
};

/// What a row is cut down to before anything is drawn: scaled down to `norm_l2`, then every
/// coordinate clamped. Both are public constants, never computed from private rows.
struct Clip {
  double coordinate = std::numeric_limits<double>::infinity();  ///< largest magnitude
  double norm_l2 = std::numeric_limits<double>::infinity();     ///< largest Euclidean norm

  /// Each bound is within [1e-30, 1e30] or infinite. \returns kInvalidArgument.
  [[nodiscard]] Status validate() const;
  friend bool operator==(const Clip&, const Clip&) = default;
};

inline constexpr size_t kMaxWidth = 65536;

/// The codes a mechanism can produce, both ends included.
struct CodeRange {
  int32_t first = 0;
  int32_t last = 0;
  friend bool operator==(const CodeRange&, const CodeRange&) = default;
};

/// A statement for people: what is guaranteed, for which unit, and what is not.
struct PrivacyStatement {
  std::string mechanism;      ///< with its derived parameters
  std::string adjacency;      ///< which two inputs are compared
  double sensitivity_l2 = 0;  ///< largest Euclidean distance between such inputs
  double delta = 0;
  double epsilon_per_row = 0;
  uint64_t prompt_rows = 0;
  double epsilon_per_prompt = 0;  ///< of `prompt_rows` rows together, at the same delta
  std::string composition;        ///< how the second figure follows

  /// Several lines, with what is not covered.
  [[nodiscard]] std::string to_string() const;
};

/// A randomiser for rows of one width. Immutable; safe to use from any thread.
class Mechanism {
 public:
  virtual ~Mechanism() = default;

  /// Resolved: carries the derived scale instead of epsilon, so both sides of a connection decode
  /// alike whatever their mathematics library. This is the text to negotiate.
  [[nodiscard]] virtual const MechanismSpec& spec() const = 0;
  [[nodiscard]] virtual const Clip& clip() const = 0;
  [[nodiscard]] virtual size_t width() const = 0;
  [[nodiscard]] virtual CodeRange code_range() const = 0;

  /// Probability of every code of the range for a coordinate at 0: a public model for entropy
  /// coding. Basic IEEE arithmetic only, so equal everywhere. Sums to 1 within 1e-12.
  [[nodiscard]] virtual std::vector<double> zero_distribution() const = 0;

  /// Clips `row` [width] and draws its `codes` [width]. A second call is a second release.
  /// \returns kInvalidArgument for another width, kNotFinite for NaN or infinity; `codes` are
  /// untouched then.
  [[nodiscard]] virtual Status randomize(std::span<const float> row, RandomSource& random,
                                         std::span<int32_t> codes) const = 0;

  /// Natural logs of the chances that `randomize(row)` draws each row of `codes` [N * width]: what
  /// an attacker who knows the mechanism computes. Many rows at once are cheaper where there are
  /// few codes. Not for accounting: nothing is rounded up, and of dgauss the 2^-40 of roundings
  /// that are drawn again are left out. \returns as `randomize` and `estimate`.
  [[nodiscard]] virtual Result<std::vector<double>> log_probabilities(
      std::span<const float> row, std::span<const int32_t> codes) const = 0;

  /// The clipped row's unbiased estimate from codes that may come from anyone.
  /// \returns kInvalidArgument for another width, kCorrupt for a code outside the range.
  [[nodiscard]] virtual Status estimate(std::span<const int32_t> codes,
                                        std::span<float> row) const = 0;

  /// Epsilon of `rows` released rows together at `delta`, rows chosen adaptively; rounded up.
  /// Infinite when nothing finite can be promised. 0 for no rows.
  [[nodiscard]] virtual double epsilon(uint64_t rows, double delta) const = 0;

  /// Upper bound of one row's Renyi divergence of this order (above 1); additive over rows, also
  /// of different mechanisms.
  [[nodiscard]] virtual double renyi(double order) const = 0;

  [[nodiscard]] virtual PrivacyStatement statement(uint64_t prompt_rows) const = 0;
};

/// Makes the mechanism and derives its scale. With `epsilon` given this searches for the scale
/// (seconds if a norm is bounded); with `mu` or `range` it is cheap.
/// \returns kInvalidArgument naming the field when a parameter is outside its range, when the clip
/// lacks the bound the mechanism needs, or when no scale gives what is asked.
[[nodiscard]] Result<std::unique_ptr<Mechanism>> make_mechanism(const MechanismSpec& spec,
                                                                size_t width, const Clip& clip);

}  // namespace isthmus::privacy
