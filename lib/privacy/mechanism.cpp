#include <isthmus/privacy/accountant.h>
#include <isthmus/privacy/mechanism.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <optional>

#include "row_mechanism.h"

namespace isthmus::privacy {
namespace {

Result<std::unique_ptr<Mechanism>> make_resolved(const Setup& setup) {
  switch (setup.spec.kind) {
    case MechanismKind::kBinomial:
      return make_binomial(setup);
    case MechanismKind::kDiscreteGaussian:
      return make_discrete_gaussian(setup);
    case MechanismKind::kRandomizedQuantization:
      return make_randomized_quantization(setup);
  }
  return fail(ErrorCode::kInternal, "privacy: mechanism without a maker");
}

/// Rounded to six decimal digits, so that a resolved spec is short to read.
double six_digits(double value) {
  std::array<char, 32> text;
  const auto written = std::to_chars(text.data(), text.data() + text.size(), value,
                                     std::chars_format::scientific, 5);
  std::from_chars(text.data(), written.ptr, value);
  return value;
}

/// The spec with its scale in place of epsilon. More `strength` is less noise: mu, or the clip over
/// the range.
MechanismSpec resolved(MechanismSpec spec, double strength) {
  const bool rqm = spec.kind == MechanismKind::kRandomizedQuantization;
  spec.epsilon = 0;
  (rqm ? spec.range : spec.mu) = six_digits(rqm ? 1 / strength : strength);
  return spec;
}

/// The least noise that keeps one row within the epsilon asked for.
Result<std::unique_ptr<Mechanism>> search(const Setup& setup) {
  const bool rqm = setup.spec.kind == MechanismKind::kRandomizedQuantization;
  double low = rqm ? 1e-6 : 1e-3;
  double high = rqm ? 0.9999 : 1e4;
  std::unique_ptr<Mechanism> best;
  std::optional<Error> unmade;
  const auto narrow = [&](double strength) {
    auto made = make_resolved({resolved(setup.spec, strength), setup.width, setup.clip});
    const bool too_weak = made && (*made)->epsilon(1, setup.spec.delta) > setup.spec.epsilon;
    // What cannot be made asks for more noise than can be represented.
    (too_weak ? high : low) = strength;
    if (!made) unmade = made.error();
    if (made && !too_weak) best = std::move(*made);
    return too_weak;
  };
  if (!rqm) {
    // A Gaussian's mu is a good first guess for the two that have one.
    constexpr double kStride = 1.3;
    const double guess = std::clamp(gaussian_mu(setup.spec.epsilon, setup.spec.delta), low, high);
    narrow(narrow(guess) ? std::max(guess / kStride, low) : std::min(guess * kStride, high));
  }
  while (high > low * (1 + 1e-4)) narrow(std::sqrt(low * high));
  if (best) return best;
  if (unmade) return fail(unmade->code, unmade->message);
  return refused("eps", setup.spec.epsilon,
                 "larger: no scale reaches it at " + std::to_string(setup.width) +
                     " numbers and delta " + number_text(setup.spec.delta));
}

}  // namespace

Result<std::unique_ptr<Mechanism>> make_mechanism(const MechanismSpec& spec, size_t width,
                                                  const Clip& clip) {
  ISTHMUS_TRY(spec.validate());
  ISTHMUS_TRY(clip.validate());
  if (width == 0 || width > kMaxWidth)
    return refused("width", static_cast<double>(width), "from 1 to " + std::to_string(kMaxWidth));
  const Setup setup{spec, width, clip};
  return spec.is_resolved() ? make_resolved(setup) : search(setup);
}

}  // namespace isthmus::privacy
