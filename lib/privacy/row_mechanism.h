// What all mechanisms share: they clip alike, check alike and speak alike. Private.
#pragma once

#include <isthmus/privacy/mechanism.h>

namespace isthmus::privacy {

/// What a mechanism is made from. `spec` is valid and resolved, `clip` valid, `width` in range.
struct Setup {
  MechanismSpec spec;
  size_t width = 0;
  Clip clip;

  /// Largest Euclidean norm of a clipped row; infinite when neither bound is set.
  [[nodiscard]] double row_norm() const;
};

class RowMechanism : public Mechanism {
 public:
  explicit RowMechanism(const Setup& setup) : setup_(setup) {}

  [[nodiscard]] const MechanismSpec& spec() const final { return setup_.spec; }
  [[nodiscard]] const Clip& clip() const final { return setup_.clip; }
  [[nodiscard]] size_t width() const final { return setup_.width; }
  [[nodiscard]] Status randomize(std::span<const float> row, RandomSource& random,
                                 std::span<int32_t> codes) const final;
  [[nodiscard]] Result<std::vector<double>> log_probabilities(
      std::span<const float> row, std::span<const int32_t> codes) const final;
  [[nodiscard]] Status estimate(std::span<const int32_t> codes, std::span<float> row) const final;
  [[nodiscard]] PrivacyStatement statement(uint64_t prompt_rows) const final;

 protected:
  /// Draws the codes of a clipped row: within both bounds, but for rounding of 2^-50.
  virtual void draw(std::span<const double> clipped, RandomSource& random,
                    std::span<int32_t> codes) const = 0;
  /// Natural log of the chance that a coordinate becomes a code in range.
  [[nodiscard]] virtual double log_probability(double clipped, int32_t code) const = 0;
  /// The number a code in range stands for.
  [[nodiscard]] virtual float decode(int32_t code) const = 0;
  /// The first line and the last line of the statement.
  [[nodiscard]] virtual std::string description() const = 0;
  [[nodiscard]] virtual std::string composition() const = 0;
  /// Whether the figures use the bound on the norm, not on the coordinates alone.
  [[nodiscard]] virtual bool uses_norm() const = 0;

  [[nodiscard]] const Setup& setup() const { return setup_; }

 private:
  [[nodiscard]] Status check_sizes(size_t row, size_t codes) const;
  [[nodiscard]] std::vector<double> tabled_sums(std::span<const double> clipped,
                                                std::span<const int32_t> codes) const;
  [[nodiscard]] Status check_codes(std::span<const int32_t> codes) const;

  Setup setup_;
};

/// kInvalidArgument: "privacy: <field> is <value>, must be <rule>".
[[nodiscard]] tl::unexpected<Error> refused(std::string_view field, double value,
                                            std::string_view rule);
/// Four digits, for people.
[[nodiscard]] std::string rounded_text(double value);
/// The shortest text that reads back as the same number.
[[nodiscard]] std::string number_text(double value);

// Each takes a resolved spec. \returns kInvalidArgument when a derived scale is out of reach.
[[nodiscard]] Result<std::unique_ptr<Mechanism>> make_binomial(const Setup& setup);
[[nodiscard]] Result<std::unique_ptr<Mechanism>> make_discrete_gaussian(const Setup& setup);
[[nodiscard]] Result<std::unique_ptr<Mechanism>> make_randomized_quantization(const Setup& setup);

}  // namespace isthmus::privacy
