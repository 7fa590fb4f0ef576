// Specs as text and the ranges of their fields.
#include <array>
#include <charconv>
#include <cmath>
#include <vector>

#include "row_mechanism.h"

namespace isthmus::privacy {
namespace {

constexpr MechanismSpec kDefaults;

std::string_view name_of(MechanismKind kind) {
  switch (kind) {
    case MechanismKind::kBinomial:
      return "binomial";
    case MechanismKind::kDiscreteGaussian:
      return "dgauss";
    case MechanismKind::kRandomizedQuantization:
      return "rqm";
  }
  return "unknown";
}

std::vector<std::string_view> parts_of(std::string_view text) {
  std::vector<std::string_view> parts;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find(':', begin), text.size());
    parts.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return parts;
}

template <typename Number>
Status read_number(std::string_view text, std::string_view field, Number& out) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
  if (error != std::errc() || end != text.data() + text.size())
    return fail(ErrorCode::kInvalidArgument, "privacy: " + std::string(field) + " is '" +
                                                 std::string(text.substr(0, 32)) +
                                                 "', not a number in range");
  return {};
}

tl::unexpected<Error> unknown(const char* what, std::string_view text) {
  return fail(ErrorCode::kUnsupported, std::string("privacy: no ") + what + " is called '" +
                                           std::string(text.substr(0, 32)) + "'");
}

/// `seen` has a bit for every field read before.
Status read_field(std::string_view part, MechanismSpec& spec, unsigned& seen) {
  const size_t equals = std::min(part.find('='), part.size());
  const std::string_view name = part.substr(0, equals);
  const std::string_view value = part.substr(std::min(equals + 1, part.size()));
  const std::array<std::pair<std::string_view, double*>, 5> fields{{{"eps", &spec.epsilon},
                                                                    {"mu", &spec.mu},
                                                                    {"range", &spec.range},
                                                                    {"delta", &spec.delta},
                                                                    {"keep", &spec.keep}}};
  for (size_t i = 0; i < fields.size(); ++i) {
    const auto& [known, target] = fields[i];
    if (name != known) continue;
    if ((seen >> i) % 2 == 1)
      return fail(ErrorCode::kInvalidArgument, "privacy: " + std::string(name) + " is given twice");
    seen |= 1U << i;
    ISTHMUS_TRY(read_number(value, name, *target));
    // 0 means "not given" inside a spec, so one that is written must not pass for that.
    if (*target == 0) return refused(name, 0, "above 0");
    return {};
  }
  return unknown("field of a mechanism", part);
}

Status within(std::string_view field, double value, double least, double most) {
  if (value >= least && value <= most) return {};
  return refused(field, value, "from " + number_text(least) + " to " + number_text(most));
}

}  // namespace

std::string number_text(double value) {
  std::array<char, 32> text;
  const auto [end, error] = std::to_chars(text.data(), text.data() + text.size(), value);
  return {text.data(), error == std::errc() ? end : text.data()};
}

Result<MechanismSpec> MechanismSpec::parse(std::string_view text) {
  MechanismSpec spec;
  const auto parts = parts_of(text);
  const std::string_view name = parts.front();
  bool known = false;
  for (const auto kind : {MechanismKind::kBinomial, MechanismKind::kDiscreteGaussian,
                          MechanismKind::kRandomizedQuantization}) {
    if (name != name_of(kind)) continue;
    spec.kind = kind;
    known = true;
  }
  if (!known) return unknown("mechanism", name);
  size_t next = 1;
  if (spec.kind != MechanismKind::kDiscreteGaussian) {
    ISTHMUS_TRY(read_number(next < parts.size() ? parts[next] : "", "bits", spec.bits));
    ++next;
  }
  unsigned seen = 0;
  for (; next < parts.size(); ++next) ISTHMUS_TRY(read_field(parts[next], spec, seen));
  ISTHMUS_TRY(spec.validate());
  return spec;
}

std::string MechanismSpec::to_string() const {
  std::string out(name_of(kind));
  if (kind != MechanismKind::kDiscreteGaussian) out.append(":").append(std::to_string(bits));
  if (keep != kDefaults.keep) out += ":keep=" + number_text(keep);
  if (epsilon != 0) out += ":eps=" + number_text(epsilon);
  if (mu != 0) out += ":mu=" + number_text(mu);
  if (range != 0) out += ":range=" + number_text(range);
  if (delta != kDefaults.delta) out += ":delta=" + number_text(delta);
  return out;
}

Status MechanismSpec::validate() const {
  const bool rqm = kind == MechanismKind::kRandomizedQuantization;
  if (name_of(kind) == "unknown")
    return refused("mechanism", static_cast<double>(kind), "a known one");
  if (kind == MechanismKind::kBinomial) ISTHMUS_TRY(within("bits", bits, 1, 8));
  if (rqm) ISTHMUS_TRY(within("bits", bits, 2, 5));
  if (kind == MechanismKind::kDiscreteGaussian && bits != 0) return refused("bits", bits, "absent");

  if (epsilon != 0) ISTHMUS_TRY(within("eps", epsilon, 1e-3, 1e6));
  if (mu != 0) ISTHMUS_TRY(within("mu", mu, 1e-3, 1e4));
  if (range != 0) ISTHMUS_TRY(within("range", range, 1.0001, 1e6));
  if (rqm && mu != 0) return refused("mu", mu, "absent: rqm takes eps or range");
  if (!rqm && range != 0) return refused("range", range, "absent: it belongs to rqm");
  if (!rqm && keep != kDefaults.keep) return refused("keep", keep, "absent: it belongs to rqm");
  const int given = (epsilon != 0 ? 1 : 0) + (mu != 0 ? 1 : 0) + (range != 0 ? 1 : 0);
  if (given == 0)
    return fail(ErrorCode::kInvalidArgument, "privacy: no strength is given: eps, mu or range");
  if (given > 1)
    return fail(ErrorCode::kInvalidArgument, "privacy: more than one of eps, mu, range is given");
  ISTHMUS_TRY(within("delta", delta, 1e-30, 0.5));
  ISTHMUS_TRY(within("keep", keep, 1.0 / 256, 255.0 / 256));
  return {};
}

Status Clip::validate() const {
  const auto valid = [](double v) { return v >= 1e-30 && (v <= 1e30 || std::isinf(v)); };
  constexpr auto kRule = "from 1e-30 to 1e+30";
  if (!valid(coordinate)) return refused("coordinate clip", coordinate, kRule);
  if (!valid(norm_l2)) return refused("norm clip", norm_l2, kRule);
  return {};
}

}  // namespace isthmus::privacy
