#include "engine_flags.h"

#include <cstdint>
#include <limits>

namespace isthmus::tools {

engine::CpuEngineOptions EngineFlags::options() const {
  engine::CpuEngineOptions options;
  options.precision = *engine::find_precision(precision);
  options.kv_bits = kv_bits == 8 ? engine::KvBits::k8 : engine::KvBits::k16;
  const int32_t most_bits = weight_bits.value_or(8);
  options.weights.ranges = {{{0, std::numeric_limits<int32_t>::max()}, most_bits}};
  options.weights.head_bits = most_bits;
  return options;
}

void declare_precision(CLI::App& app, EngineFlags& flags) {
  app.add_option("--precision", flags.precision,
                 "fast (packed weights, activations in one byte), fine (in two) or exact (float)")
      ->check(CLI::IsMember({"fast", "fine", "exact"}))
      ->capture_default_str();
}

void declare_storage(CLI::App& app, EngineFlags& flags, const std::string& bits_name) {
  app.add_option("--kv-bits", flags.kv_bits, "of stored keys and values: 16 or 8; not for exact")
      ->check(CLI::IsMember({16, 8}))
      ->default_str("16");
  app.add_option(bits_name, flags.weight_bits,
                 "most bits of a weight's code here: 8 or 4; types that fit stay as they are; not "
                 "for exact")
      ->check(CLI::IsMember({8, 4}))
      ->default_str("8");
}

void check_bits(bool is_exact, bool has_bits) {
  if (is_exact && has_bits)
    throw CLI::ValidationError("--precision exact keeps floats: it has no bits to choose");
}

void check(const EngineFlags& flags) {
  if (!engine::find_precision(flags.precision)) {
    throw CLI::ValidationError("--precision is '" + flags.precision +
                               "', --device cpu knows fast, fine and exact");
  }
  check_bits(flags.precision == "exact", flags.kv_bits || flags.weight_bits);
}

}  // namespace isthmus::tools
